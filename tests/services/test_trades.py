"""Every trade once, marks only where nothing is missing: for any order, loss and repetition of frames."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt.core.messages import Candle, Trade, Trades, Watermark, decode, encode
from crypto_rt.market.exchange import Frame
from crypto_rt.market.feed import Feed
from crypto_rt.market.gap_filling import OVERLAP_MS
from crypto_rt.market.recovery import StoredState, initial_states, resume
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from tests.repeat import many

START = 1_700_000_000_000


def trade(number, event_ms=None):
    return Trade(
        trade_id=number,
        price='1.5',
        quantity='2',
        side='buy',
        order_type='limit',
        event_ms=START + 100 * number if event_ms is None else event_ms,
    )


def frame(numbers, symbol='BTC/USD', snapshot=False):
    return Frame(
        'trade',
        trades=[(symbol, n, '1.5', '2', 'buy', 'limit', START + 100 * n) for n in numbers],
        snapshot=snapshot,
    )


def opened(state, source='replay'):
    feed = Feed([state], source)
    feed.take([Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade')], START)
    return feed


def messages(outs):
    return [decode(o.topic, o.value) for o in outs if o.topic == 'trades']


def ids(found):
    return [t.trade_id for m in found if isinstance(m, Trades) for t in m.trades]


@given(st.lists(st.lists(st.integers(1, 60), max_size=8), max_size=20))
def test_each_trade_is_told_once_and_through_is_the_first_hole(batches):
    sequence, seen = TradeSequence(0), set()
    for batch in batches:
        fresh = [t.trade_id for t in sequence.take([trade(n) for n in batch])]
        assert len(fresh) == len(set(fresh)) and not seen & set(fresh)
        seen |= set(batch)
        expected = next(n for n in range(1, 62) if n not in seen) - 1
        assert sequence.ids.contiguous_id == expected and {
            n for first, last in sequence.ids.early_runs for n in range(first, last + 1)
        } == {n for n in seen if n > expected}
        missing = [n for first, last in sequence.ids.gaps() for n in range(first, last + 1)]
        assert missing == [n for n in range(expected + 1, max([expected, *seen])) if n not in seen]
        assert sequence.ids.first_gap() == (sequence.ids.gaps()[0] if missing else None)


@settings(deadline=None, max_examples=many(60))
@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.3), st.integers(0, 30))
def test_no_mark_passes_a_missing_trade(seed, loss, again, lag):
    rng, exchange = random.Random(seed), [trade(n) for n in range(1, 401)]
    feed, told, position, now = (
        opened(SymbolState('BTC/USD', TradeSequence(0, cursor_ms=START))),
        [],
        0,
        START,
    )
    while position < len(exchange):
        step = rng.randint(1, 6)
        frames = [frame([t.trade_id]) for t in exchange[position : position + step] if rng.random() > loss]
        frames += [frame([rng.randint(1, position)]) for _ in range(2) if position and rng.random() < again]
        rng.shuffle(frames)
        position, now = position + step, now + 1500
        told += messages(feed.take(frames, now))
        for want in feed.rest_requests(now):
            page = [t for t in exchange[: max(0, position - lag)] if t.event_ms >= want.since_ms]
            told += messages(feed.take_rest_page(want.symbol, trades=page, is_last=True, here_ms=now))
    told += messages(feed.take_rest_page('BTC/USD', trades=exchange, is_last=True, here_ms=now))
    feed.replay_end_ms = exchange[-1].event_ms
    told += messages(feed.final_watermarks(60, 2000, now))
    assert sorted(ids(told)) == list(range(1, 401)) and feed.counts['exchange_holes'] == 0
    seen = set()
    for message in told:
        if isinstance(message, Watermark):
            assert seen >= set(range(1, message.contiguous_through + 1))
            due = {
                t.trade_id
                for t in exchange
                if t.event_ms <= message.exchange_ms and t.trade_id <= max(seen, default=0)
            }
            assert due <= seen, 'a mark has passed a trade that was missing'
        else:
            seen |= set(ids([message]))
    assert feed.counts['received'] == feed.counts['published'] + feed.counts['duplicates']


def test_a_snapshot_closes_a_short_hole_without_rest():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    assert messages(feed.take([Frame('disconnected', text='1006')], START)) == []
    feed.take([Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade')], START + 5000)
    told = messages(feed.take([frame(range(81, 131), snapshot=True)], START + 5100))
    assert (
        ids(told) == list(range(101, 131))
        and isinstance(told[-1], Watermark)
        and feed.rest_requests(START + 5200) == []
    )


def test_a_longer_hole_waits_for_rest():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    told = messages(feed.take([frame(range(181, 231), snapshot=True)], START + 5100))
    assert len(told) == 1 and [w.since_ms for w in feed.rest_requests(START + 5100)] == [
        START + 10_000 - OVERLAP_MS
    ]
    told = messages(
        feed.take_rest_page(
            'BTC/USD', trades=[trade(n) for n in range(100, 231)], is_last=True, here_ms=START + 5200
        )
    )
    assert ids(told) == list(range(101, 181)) and told[0].source == 'rest'
    assert [m.contiguous_through for m in messages(feed.take([], START + 5300))] == [230]


def test_rest_that_is_behind_is_asked_again_and_not_believed():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    feed.take([frame([105])], START)
    feed.take_rest_page('BTC/USD', trades=[trade(101)], is_last=True, here_ms=START)
    assert (
        feed.states['BTC/USD'].sequence.ids.first_gap() == (102, 104) and feed.counts['exchange_holes'] == 0
    )
    assert feed.rest_requests(START + 500) == [] and len(feed.rest_requests(START + 1500)) == 1


def test_without_a_snapshot_rest_proves_that_nothing_is_missing():
    feed = Feed([SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START))], 'live')
    feed.take([Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade', exchange_ms=START)], START)
    assert messages(feed.take([Frame('heartbeat')], START + 900)) == [] == feed.rest_requests(START + 900)
    assert len(feed.rest_requests(START + 1200)) == 1
    feed.take_rest_page('BTC/USD', trades=[], is_last=True, here_ms=START + 1300)
    assert [m.exchange_ms for m in messages(feed.take([Frame('heartbeat')], START + 2000))] == [START + 2000]


def test_the_live_clock_is_corrected_and_stands_still_without_frames():
    feed = Feed([SymbolState('BTC/USD', TradeSequence(100))], 'live')
    feed.take(
        [Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade', exchange_ms=START + 1270)], START
    )
    feed.take([frame([101], snapshot=True)], START)
    assert [m.exchange_ms for m in messages(feed.take([Frame('heartbeat')], START + 12_000))] == [
        START + 13_270
    ]
    assert messages(feed.take([], START + 60_000)) == [], 'silence proves nothing'


def test_a_dead_connection_is_said_and_no_mark_follows():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)))
    feed.take([frame([101])], START)
    (mark,) = messages(feed.take([Frame('disconnected', text='gone')], START))
    assert not mark.connected
    assert messages(feed.take([], START + 60_000)) == []


def test_other_symbols_bad_frames_and_big_batches():
    feed = opened(SymbolState('BTC/USD'))
    out = feed.take(
        [frame([1], 'ETH/USD'), frame(range(1, 2501)), Frame('bad', b'{"chan', text='truncated')],
        START + 300_000,
    )
    told = messages(out)
    assert [len(m.trades) for m in told if isinstance(m, Trades)] == [1000, 1000, 500]
    letters = [decode(o.topic, o.value) for o in out if o.topic == 'dead_letters']
    assert [letter.reason for letter in letters] == ['truncated'] and feed.counts['other_symbols'] == 1


def test_an_earlier_run_is_resumed_from_the_topic_and_a_newer_store_wins():
    told = [
        Trades('BTC/USD', [trade(n) for n in range(1, 51)], START, 'live'),
        Watermark(
            symbol='BTC/USD', exchange_ms=START + 5000, contiguous_through=50, connected=True, source='live'
        ),
        Trades('BTC/USD', [trade(52)], START, 'live'),
    ]
    left = resume(map(encode, told))['BTC/USD']
    assert left.sequence.contiguous_id == 50 and left.sequence.ids.first_gap() == (51, 51)
    assert left.sequence.cursor_ms <= START + 5100

    def start(resumed, **stored):
        (state,) = initial_states(['BTC/USD'], resumed, StoredState(**stored), START)
        return state

    assert start({'BTC/USD': left}, trades={'BTC/USD': (50, START)}) is left
    newer = start({'BTC/USD': left}, trades={'BTC/USD': (70, START + 7000)})
    assert newer.sequence.contiguous_id == 70 and newer.fetch_first
    assert newer.sequence.cursor_ms == START + 7000
    amounts = ['1'] * 4 + ['0', '0', '0']
    candle = Candle(
        'BTC/USD',
        60,
        START // 60_000 * 60_000 + 60_000,
        0,
        START // 60_000 * 60_000 + 120_000,
        *amounts,
        0,
        '0',
        -1,
        -1,
        None,
        None,
        True,
        False,
        'exchange',
        START,
    )
    after = start({}, candles={'BTC/USD': candle})
    assert after.since_ms == candle.end_ms and after.fetch_first
    assert after.sequence.ids.contiguous_id is None


def test_a_start_from_the_store_leaves_out_what_is_final():
    feed = opened(
        SymbolState(
            'BTC/USD', TradeSequence(cursor_ms=START + 5_000), since_ms=START + 5_000, fetch_first=True
        ),
        'simulated',
    )
    told = messages(feed.take([frame(range(31, 81), snapshot=True)], START))
    assert ids(told) == list(range(50, 81)) and not [m for m in told if isinstance(m, Watermark)]
    (want,) = feed.rest_requests(START)
    told = messages(
        feed.take_rest_page('BTC/USD', trades=[trade(n) for n in range(50, 83)], is_last=True, here_ms=START)
    )
    assert want.since_ms == START + 5_000 - OVERLAP_MS and ids(told) == [81, 82]
    assert [m.contiguous_through for m in messages(feed.take([], START))] == [82]


def test_killed_on_kafka_it_goes_on_where_it_was(kafka_broker, tmp_path):
    from crypto_rt.bus.reading import tail
    from crypto_rt.bus.topics import ensure_topics
    from crypto_rt.core.settings import load_settings, to_env

    (tmp_path / 'r.jsonl').write_text('\n'.join(_line(n) for n in range(1, 6001)))
    settings = load_settings(
        env={},
        data=dict(directory=str(tmp_path), symbols='BTC/USD'),
        kafka=dict(broker=kafka_broker, topic_prefix=f'kill{os.getpid()}.'),
    )
    ensure_topics(settings)
    server = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import sys; from crypto_rt.sandbox.exchange import *; from crypto_rt.sandbox.server import *; from crypto_rt.core.settings import load_settings; '
            'run_exchange(load_settings(env={}), file=sys.argv[1], speed=600, on_ready=lambda *urls: print(*urls, flush=True))',
            str(tmp_path / 'r.jsonl'),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        urls = server.stdout.readline().split()
        settings = load_settings(env=to_env(settings), exchange=dict(websocket_url=urls[0], rest_url=urls[1]))
        environment = (
            os.environ
            | to_env(settings)
            | {'CRYPTO_RT_RUN_SOURCE': 'replay', 'CRYPTO_RT_RUN_UNTIL_IDLE': '1', 'CRYPTO_RT_RUN_ID': 'run'}
        )
        line = [
            sys.executable,
            '-c',
            'from crypto_rt.services.trades import run_trades; from crypto_rt.core.settings import load_settings; run_trades(load_settings())',
        ]
        for _ in range(2):
            victim = subprocess.Popen(line, env=environment)
            _wait_for_more(settings)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        assert subprocess.run(line, env=environment, timeout=60, check=False).returncode == 0
    finally:
        server.kill()
        server.stdout.close()
        server.wait()
    told = [decode('trades', m.value) for m in tail(settings, 'trades', 100_000)]
    assert set(ids(told)) == set(range(1, 6001))
    marks = [m for m in told if isinstance(m, Watermark) and m.connected]
    assert marks[-1].contiguous_through == 6000


def _line(number):
    at = START + 10 * number
    stamp = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at // 1000)) + f'.{at % 1000:03}000Z'
    return f'{{"channel":"trade","type":"update","data":[{{"symbol":"BTC/USD","side":"buy","price":1.5,"qty":2,"ord_type":"limit","trade_id":{number},"timestamp":"{stamp}"}}]}}'


def _wait_for_more(settings):
    from crypto_rt.bus.reading import follow

    stop, timer = threading.Event(), time.monotonic() + 20
    for batch in follow(settings, ['trades'], stop):
        assert time.monotonic() < timer, 'the service has published nothing'
        if batch:
            stop.set()
