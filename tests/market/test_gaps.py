"""No trade lost, none doubled: gaps on record, sums that hold, through loss, repetition, disorder and SIGKILL."""

import base64
import os
import random
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import EPOCH_BITS, Dropped, Gap, Trade, Trades, Watermark, decode, encode
from crypto_rt.core.settings import ExchangeSettings, load_settings, to_env
from crypto_rt.market.exchange import Frame
from crypto_rt.market.feed import Feed
from crypto_rt.market.files import read_frames, read_trades
from crypto_rt.market.kraken.frames import read_frame
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.market.watermark_clock import skew_of
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.services.trades import Recorder
from crypto_rt.store.interface import unexplained
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.store.positions import stored_past
from crypto_rt.verify.gaps import verify_gaps

START = 1_700_000_000_000
EPOCH = 1 << EPOCH_BITS


def trade(number, at=None):
    return Trade(
        trade_id=number,
        price='1.5',
        quantity='2',
        side='buy',
        order_type='limit',
        event_ms=START + 100 * number if at is None else at,
    )


def frame(numbers, snapshot=False, at=None):
    items = [
        ('BTC/USD', n, '1.5', '2', 'buy', 'limit', START + 100 * n if at is None else at) for n in numbers
    ]
    return Frame('trade', b'{"raw":1}', trades=items, snapshot=snapshot)


def opened(state, source='replay', **exchange):
    feed = Feed([state], source, ExchangeSettings(**exchange))
    feed.take([Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade')], START)
    return feed


def messages(outs, *kinds):
    found = [decode(o.topic, o.value) for o in outs]
    return [m for m in found if isinstance(m, kinds)] if kinds else found


def ids(outs):
    return [t.trade_id for m in messages(outs, Trades) for t in m.trades]


def states(outs):
    return [(m.first_missing, m.last_missing, m.state, m.found, m.revision) for m in messages(outs, Gap)]


# --- gaps on record


def test_a_hole_opens_and_is_filled_and_every_change_is_told():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    out = feed.take([frame([101]), frame([105]), frame([109])], START + 11_000)
    assert (
        states(out) == [(102, 104, 'open', 0, 0), (106, 108, 'open', 0, 0)] and messages(out, Watermark) == []
    )
    assert states(feed.take([frame([103, 104])], START + 11_500)) == []
    assert states(feed.take([frame([102])], START + 11_600)) == [(102, 104, 'filled', 3, 1)]
    out = feed.take_rest_page(
        'BTC/USD', trades=[trade(n) for n in range(101, 110)], is_last=True, here_ms=START + 12_000
    )
    assert states(out) == [(106, 108, 'filled', 3, 1)] and ids(out) == [106, 107, 108]
    assert len(messages(feed.take([], START + 12_100), Watermark)) == 1


def test_a_hole_of_the_exchange_is_declared_with_its_exact_range():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    feed.take([frame([111])], START)
    out = feed.take_rest_page(
        'BTC/USD',
        trades=[trade(n) for n in (101, 102, 105, 106, 110, 111, 112)],
        is_last=True,
        here_ms=START,
    )
    latest = {m.first_missing: m for m in sorted(messages(out, Gap), key=lambda m: m.revision)}
    assert {(m.first_missing, m.last_missing) for m in latest.values() if m.state == 'exchange_hole'} == {
        (103, 104),
        (107, 109),
    }
    assert not feed.states['BTC/USD'].gaps.open and all(m.state != 'open' for m in latest.values())
    assert ids(feed.take([frame([108])], START)) == [108], 'should it come after all, it is taken'


def test_without_an_answer_a_gap_times_out_and_its_trades_stay_wanted(caplog):
    feed = opened(
        SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)), gap_timeout_seconds=10
    )
    feed.take([frame([105])], START)
    assert states(feed.take([], START + 9_000)) == []
    out = feed.take([], START + 10_001)
    assert (
        states(out) == [(101, 104, 'timed_out', 0, 1)]
        and len(messages(out, Watermark)) == 1
        and 'could not be had in time' in caplog.text
    )
    assert feed.rest_requests(START + 20_000) == [] and len(feed.rest_requests(START + 71_000)) == 1
    out = feed.take_rest_page(
        'BTC/USD', trades=[trade(n) for n in range(100, 106)], is_last=True, here_ms=START + 71_500
    )
    assert ids(out) == [101, 102, 103, 104] and states(out) == [(101, 104, 'filled', 4, 2)]
    assert feed.rest_requests(START + 200_000) == []


def test_the_time_out_waits_for_the_connection_and_for_progress():
    feed = opened(
        SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)), gap_timeout_seconds=10
    )
    feed.take([frame([3000])], START)
    feed.take_rest_page(
        'BTC/USD', trades=[trade(n) for n in range(101, 1101)], is_last=False, here_ms=START + 9_000
    )
    assert states(feed.take([], START + 15_000)) == []
    feed.take([Frame('disconnected', text='gone')], START + 15_500)
    assert states(feed.take([], START + 60_000)) == []


def test_an_earlier_lifes_gap_goes_on_with_its_next_revision():
    record = Gap(
        symbol='BTC/USD',
        first_missing=102,
        last_missing=104,
        opened_ms=START,
        updated_ms=START,
        state='open',
        found=0,
        revision=3,
        epoch=0,
    )
    feed = opened(SymbolState('BTC/USD', TradeSequence(101, cursor_ms=START + 10_000)))
    feed.restore_gaps([record], START)
    assert states(feed.take([frame([105])], START + 20_000)) == [], 'it is on record already'
    assert states(feed.take([frame([102, 103, 104])], START + 20_000)) == [(102, 104, 'filled', 3, 4)]
    feed = opened(SymbolState('BTC/USD', TradeSequence(200)))
    feed.restore_gaps([record], START)
    assert states(feed.take([frame([201])], START + 20_000)) == [(102, 104, 'filled', 3, 4)], (
        'filled before the kill, told after it'
    )


# --- bad input


def test_a_book_that_begins_again_is_a_new_epoch():
    feed = opened(SymbolState('BTC/USD', TradeSequence(1000)))
    feed.take([frame([1001, 1002])], START + 400_000)
    out = feed.take([frame([5, 6], at=START + 200_000)], START + 400_000)
    assert ids(out) == [EPOCH + 5, EPOCH + 6] and feed.counts['epochs'] == 1
    (record,) = messages(out, Gap)
    assert (record.first_missing, record.last_missing, record.state, record.epoch) == (
        EPOCH,
        EPOCH + 4,
        'exchange_hole',
        1,
    )
    assert ids(
        feed.take([frame([1001, 1002, 7], snapshot=True), frame([7, 9], at=START + 200_100)], START + 400_000)
    ) == [EPOCH + 7, EPOCH + 9]
    assert feed.states['BTC/USD'].sequence.ids.gaps() == [(EPOCH + 8, EPOCH + 8)]
    out = feed.take_rest_page(
        'BTC/USD',
        trades=[trade(n, START + 200_000 + n) for n in range(5, 12)],
        is_last=True,
        here_ms=START + 400_000,
    )
    assert sorted(ids(out)) == [EPOCH + n for n in (8, 10, 11)]


def test_repeated_and_late_trades_are_no_new_epoch():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)))
    feed.take([frame(range(101, 151))], START + 100_000)
    feed.take([frame(range(101, 151), snapshot=True), frame([120]), frame([149, 150])], START + 100_000)
    assert feed.counts['epochs'] == 0 and feed.counts['duplicates'] == 53


@pytest.mark.parametrize('source', ['live', 'replay'])
def test_a_trade_from_the_future_is_put_aside_with_its_bytes(source):
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)), source)
    out = feed.take(
        [frame([101]), frame([102], at=START + 80_000), frame([103], at=START + 3_600_000)], START + 12_000
    )
    letters = [decode(o.topic, o.value) for o in out if o.topic == 'dead_letters']
    assert (
        ids(out) == [101]
        and [base64.b64decode(x.raw) for x in letters] == [b'{"raw":1}'] * 2
        and 'ahead of the clock' in letters[0].reason
    )
    assert (
        feed.clock.exchange_ms == START + 10_100
        and feed.counts['received'] == feed.counts['published'] + feed.counts['dead_letters'] == 3
    )
    assert messages(out, Dropped) == [Dropped('BTC/USD', 0, 2, START + 12_000)]


# --- clocks and quotes


def test_the_skew_is_measured_and_alarmed(caplog):
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)), 'live', max_skew_ms=5000)
    feed.clock.see_rest_time(skew_of(START, START + 1270, START + 1290))
    assert feed.counts['skew_ms'] == -780 and feed.counts['skew_alarms'] == 0
    feed.clock.see_rest_time(skew_of(START + 60_000, START, START))
    assert feed.counts['skew_alarms'] == 1 and 'clock is 60500 ms behind' in caplog.text


def test_the_best_quotes_are_in_the_marks_until_the_connection_ends():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)))
    nack = read_frame(
        b'{"error":"Currency pair not supported BTC/USD","method":"subscribe","success":false,"symbol":"BTC/USD","req_id":2}'
    )
    ticker = read_frame(
        b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1.40,"ask":0}]}'
    )
    (mark,) = messages(feed.take([nack, ticker, frame([101])], START + 20_000), Watermark)
    assert (mark.bid, mark.ask) == ('1.4', None) and not feed.refused, 'a refused ticker is harmless'
    feed.take([Frame('disconnected'), Frame('connected')], START + 21_000)
    assert not feed.quotes


# --- the recorder


def test_a_recording_is_read_back_whole_across_its_files(tmp_path):
    recorder = Recorder(tmp_path / 'r.jsonl', most_bytes=5_000)
    raws = [_line('BTC/USD', n).encode() for n in range(1, 101)]
    for n, raw in enumerate(raws):
        recorder([Frame('connected'), Frame('trade', raw)], START + n)
    recorder([Frame('bad', b'\xff{')], START)
    recorder.file.close()
    files = [tmp_path / f'r.jsonl.{n}' for n in range(1, len(list(tmp_path.iterdir())))] + [
        tmp_path / 'r.jsonl'
    ]
    assert len(files) > 3 and [f.stat().st_size < 6000 for f in files] == [True] * len(files)
    kept = [item for f in files for item in read_frames(f)]
    assert [raw for _, raw in kept[:-1]] == raws and [t for t, _ in kept[:-1]] == [
        START + n for n in range(100)
    ]
    told = [t for batch in read_trades(files[0]) for t in batch.trades]
    assert told == [
        Trade(trade_id=n, price='1.5', quantity='2', side='buy', order_type='limit', event_ms=START + 10 * n)
        for n in range(1, len(told) + 1)
    ]


# --- the store


@pytest.fixture
def stored(tmp_path):
    chosen = load_settings(env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD'))
    writer = StoreWriter(open_feature_store(chosen), chosen)
    yield chosen, writer
    writer.store.close()


def received(items, at=0, topic='trades'):
    return [
        Received(key='BTC/USD', value=encode(item), topic=topic, partition=0, offset=at + place)
        for place, item in enumerate(items)
    ]


def test_what_is_read_twice_is_counted_once(stored):
    chosen, writer = stored
    batch = received([Trades('BTC/USD', [trade(n)], START, 'live', duplicates=1) for n in range(1, 11)])
    writer.take(batch)
    writer.take(batch[5:] + received([Trades('BTC/USD', [trade(10), trade(11)], START, 'live')], at=10))
    assert writer.store.trade_accounts().counters == {'received': 22, 'duplicates': 10, 'repeated': 1}
    writer.logs = {'trades': 'another log of that name'}
    writer.take(received([Trades('BTC/USD', [trade(12)], START, 'live')]))
    figures = verify_gaps(chosen)
    assert figures['ok'] and (
        figures['received'],
        figures['stored'],
        figures['duplicates'],
        figures['missing'],
    ) == (23, 12, 11, 0)


def test_a_sealed_trade_is_not_stored_again_and_a_late_one_is(stored):
    chosen, writer = stored
    group = open_group(writer.store, 'trades')
    writer.take(received([Trades('BTC/USD', [trade(n) for n in range(1, 101) if n != 50], START, 'live')]))
    assert group.materialize() == 99 and verify_gaps(chosen)['missing'] == 1
    writer.take(received([Trades('BTC/USD', [trade(n) for n in range(40, 120)], START, 'rest')], at=1))
    assert (
        group.insert(
            [
                dict(
                    zip(
                        group.definition.names,
                        (
                            'BTC/USD',
                            n,
                            '1.5',
                            '2',
                            'buy',
                            '',
                            START + 100 * n,
                            START,
                            'rest',
                            START + 100 * n,
                        ),
                        strict=True,
                    )
                )
                for n in range(90, 125)
            ]
        ).rows
        == 5
    )
    assert (
        group.insert_sealed([Trades('BTC/USD', [trade(n) for n in range(100, 131)], START, 'rest')]).rows == 6
    )
    figures = verify_gaps(chosen)
    assert figures['ok'] and (figures['stored'], figures['duplicates'], figures['stored_twice']) == (
        130,
        60 + 30 + 25,
        0,
    )
    assert group.read().trade_id.tolist() == list(range(1, 131)) and stored_past(chosen).trades == {
        'BTC/USD': (130, START + 13_000)
    }
    assert [t.trade_id for t in group.history({'symbol': 'BTC/USD'}, last=3)] == [128, 129, 130]


def test_a_row_in_both_places_is_found_out(stored):
    chosen, writer = stored
    group = open_group(writer.store, 'trades')
    writer.take(received([Trades('BTC/USD', [trade(n) for n in range(1, 11)], START, 'live')]))
    group.materialize()
    with writer.store.database.transaction() as db:
        db.execute(f'INSERT INTO {group.table.hot} SELECT * FROM {group.table.online}')
    figures = verify_gaps(chosen)
    assert not figures['ok'] and figures['stored_twice'] == 1


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=6),
    st.integers(0, 20),
    st.integers(0, 15),
)
def test_unexplained_is_what_no_record_covers(ranges, first, length):
    covered = {n for begin, size in ranges for n in range(begin, begin + size + 1)}
    hole = range(first, first + length + 1)
    assert unexplained(hole[0], hole[-1], [(b, b + size) for b, size in ranges]) == len(set(hole) - covered)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.floats(0, 0.4), st.floats(0, 0.4), st.sets(st.integers(2, 299), max_size=8))
def test_any_order_loss_and_repetition_stores_every_id_once(tmp_path_factory, seed, loss, again, own_holes):
    rng, now = random.Random(seed), START + 600_000
    exchange = [trade(n) for n in range(1, 301) if n not in own_holes]
    frames = [frame([t.trade_id]) for t in exchange if rng.random() >= loss] + [
        frame([rng.choice(exchange).trade_id]) for _ in range(int(again * 300))
    ]
    frames = [f for _, f in sorted(enumerate(frames), key=lambda pair: pair[0] + rng.uniform(0, 40))]
    feed, out, sent = (
        opened(SymbolState('BTC/USD', TradeSequence(0, cursor_ms=START))),
        [],
        sum(len(f.trades) for f in frames),
    )
    while frames or feed.rest_requests(now + 2000):
        some, frames, now = frames[:17], frames[17:], now + 2000
        out += feed.take([*some, Frame('bad', b'{', text='cut')], now)
        sent += 1
        for want in feed.rest_requests(now):
            out += feed.take_rest_page(
                want.symbol,
                trades=[t for t in exchange if t.event_ms >= want.since_ms],
                is_last=True,
                here_ms=now,
            )
    feed.replay_end_ms = exchange[-1].event_ms
    out += feed.take_rest_page('BTC/USD', trades=exchange, is_last=True, here_ms=now) + feed.final_watermarks(
        60, 2000, now
    )
    chosen = load_settings(env={}, data=dict(directory=str(tmp_path_factory.mktemp('d')), symbols='BTC/USD'))
    writer = StoreWriter(open_feature_store(chosen), chosen)
    for topic in ('trades', 'gaps'):
        batch = [
            Received(key=o.key, value=o.value, topic=topic, partition=0, offset=place)
            for place, o in enumerate(o for o in out if o.topic == topic)
        ]
        for start in range(0, len(batch), 50):
            writer.take(batch[max(0, start - rng.randint(0, 20)) : start + 50])
    assert open_group(writer.store, 'trades').read().trade_id.tolist() == [t.trade_id for t in exchange]
    figures = verify_gaps(chosen)
    writer.store.close()
    assert (
        figures['ok']
        and figures['stored'] == len(exchange)
        and figures['gaps_open'] == figures['stored_twice'] == 0
    )
    assert figures['received'] == sent + feed.counts['from_rest'] == feed.counts['received']


# --- killed on Kafka

SYMBOLS = ('BTC/USD', 'ETH/USD', 'SOL/USD')
EACH = 2500
CODE = {
    'exchange': 'from crypto_rt.sandbox.server import run_exchange; run_exchange(load_settings(env={}), file=sys.argv[1], speed=3, faults=sys.argv[2], '
    'on_ready=lambda *urls: print(*urls, flush=True))',
    'trades': 'from crypto_rt.services.trades import run_trades; from crypto_rt.store.positions import stored_past; run_trades(load_settings(), stored_past)',
    'feature-store': 'from crypto_rt.services.feature_store import run_feature_store; run_feature_store(load_settings())',
}


def _line(symbol, number):
    at = START + 10 * number
    stamp = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at // 1000)) + f'.{at % 1000:03}000Z'
    return (
        f'{{"channel":"trade","type":"update","data":[{{"symbol":"{symbol}","side":"buy","price":1.5,"qty":2,"ord_type":"limit",'
        f'"trade_id":{number},"timestamp":"{stamp}"}}]}}'
    )


def start(name, *arguments, env=None, **options):
    line = [
        sys.executable,
        '-c',
        f'import sys; from crypto_rt.core.settings import load_settings; {CODE[name]}',
        *arguments,
    ]
    return subprocess.Popen(line, env=os.environ | (env or {}), **options)


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, 'it has not come to that'
        time.sleep(0.1)


def stored_rows(chosen):
    try:
        return verify_gaps(chosen)['stored']
    except (ValueError, OSError):
        return 0


def test_killed_under_faults_nothing_is_lost_or_doubled(kafka_broker, tmp_path):
    (tmp_path / 'r.jsonl').write_text(
        '\n'.join(_line(symbol, n) for n in range(1, EACH + 1) for symbol in SYMBOLS)
    )
    server = start(
        'exchange',
        str(tmp_path / 'r.jsonl'),
        'drop=0.05,duplicate=0.03,reorder=0.02,close=0.0003,rest429=0.1;seed=3',
        stdout=subprocess.PIPE,
        text=True,
    )
    running = [server]
    try:
        urls = server.stdout.readline().split()
        chosen = load_settings(
            env={},
            data=dict(directory=str(tmp_path / 'd'), symbols=','.join(SYMBOLS)),
            kafka=dict(broker=kafka_broker, topic_prefix=f'gaps{os.getpid()}.', session_timeout_ms=2000),
            exchange=dict(websocket_url=urls[0], rest_url=urls[1], reconnect_first_seconds=0.2),
        )
        env = to_env(chosen) | {
            'CRYPTO_RT_RUN_SOURCE': 'replay',
            'CRYPTO_RT_RUN_UNTIL_IDLE': '1',
            'CRYPTO_RT_RUN_NEWS': '0',
            'CRYPTO_RT_RUN_ID': 'run',
        }
        feeds, keeper = start('trades', env=env), start('feature-store', env=env)
        running += [feeds, keeper]
        for goal in (800, 2500):
            wait_until(lambda goal=goal: stored_rows(chosen) > goal)
            for victim in (feeds, keeper):
                victim.send_signal(signal.SIGKILL)
                victim.wait()
            feeds, keeper = start('trades', env=env), start('feature-store', env=env)
            running += [feeds, keeper]
        assert feeds.wait(120) == 0
        wait_until(lambda: stored_rows(chosen) == EACH * len(SYMBOLS), 30)
        wait_until(lambda: (figures := verify_gaps(chosen))['ok'] and not figures['gaps_open'], 30)
        figures = verify_gaps(chosen)
        assert figures['duplicates'] > 0 and figures['gaps_filled'] > 20 and figures['exchange_holes'] == 0, (
            figures
        )
        frame = open_group(store := open_feature_store(chosen), 'trades').read()
        store.close()
        assert frame.groupby('symbol').trade_id.apply(list).to_dict() == {
            symbol: list(range(1, EACH + 1)) for symbol in SYMBOLS
        }
    finally:
        for process in running:
            process.kill()
            process.wait()
        server.stdout.close()


def test_frames_of_any_shape_do_not_break_the_feed():
    for raw in (
        b'{"channel":"ticker","data":[{"symbol":"BTC/USD"}]}',
        b'{"channel":"trade","type":"update","data":[]}',
    ):
        assert messages(opened(SymbolState('BTC/USD', TradeSequence(1))).take([read_frame(raw)], START)) == []
    assert msgspec.json.decode(encode(Dropped('BTC/USD', 1, 0, START)))['type'] == 'dropped'


def test_the_api_tells_the_gaps(stored):
    from fastapi.testclient import TestClient

    from apps.app import create_app

    chosen, writer = stored
    record = Gap(
        symbol='BTC/USD',
        first_missing=104,
        last_missing=106,
        opened_ms=START,
        updated_ms=START,
        state='open',
        found=0,
        revision=0,
        epoch=0,
    )
    writer.take(
        received(
            [
                record,
                msgspec.structs.replace(
                    record, first_missing=90, last_missing=91, opened_ms=START - 1000, state='filled'
                ),
            ],
            topic='gaps',
        )
    )
    news = [
        record,
        msgspec.structs.replace(record, state='exchange_hole', revision=1),
        Dropped('BTC/USD', 1, 0, START),
    ]
    with TestClient(create_app(chosen, source=[('gaps', encode(item)) for item in news])) as client:
        wait_until(lambda: client.get('/v1/status').json()['gaps']['exchange_holes'] == 1, 10)
        assert client.get('/v1/status').json()['gaps'] == {
            'open': 0,
            'filled': 0,
            'exchange_holes': 1,
            'timed_out': 0,
        }
        rows = client.get('/v1/gaps', params={'symbol': 'BTC/USD'}).json()['gaps']
        assert [(g['first_missing'], g['state'], g['revision']) for g in rows] == [
            (90, 'filled', 0),
            (104, 'exchange_hole', 1),
        ]
        assert client.get('/v1/gaps', params={'since': START}).json()['gaps'] == rows[1:]
        assert client.get('/v1/gaps', params={'symbol': 'NO/NE'}).status_code == 404
        assert 'crypto_rt_gaps{state="exchange_holes"} 1.0' in client.get('/metrics').text
