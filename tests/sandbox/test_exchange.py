"""The local exchange, its client and the feed, together in one process."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from crypto_rt.core.messages import Trades, Watermark, decode
from crypto_rt.core.settings import load_settings
from crypto_rt.core.times import now_ms
from crypto_rt.market.exchange import trade_pages
from crypto_rt.market.feed import Feed
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.sandbox.exchange import SandboxExchange
from crypto_rt.sandbox.random_market import DAY_MS, Simulation
from crypto_rt.sandbox.recording import Recording
from crypto_rt.sandbox.server import open_sandbox, run_exchange, serving
from crypto_rt.services.trades import drive

NOON = 20_400 * DAY_MS + DAY_MS // 2


def settings_at(urls, **data):
    return load_settings(
        env={},
        data=data,
        exchange=dict(
            websocket_url=urls[0], rest_url=urls[1], reconnect_first_seconds=0.05, reconnect_max_seconds=0.1
        ),
    )


async def replayed(file, symbols, speed='max'):
    exchange = SandboxExchange(Recording(file), float('inf') if speed == 'max' else speed)
    feed, got = Feed([SymbolState(s) for s in symbols], 'replay'), []
    async with asyncio.timeout(60), serving(exchange) as urls:
        settings = settings_at(urls)
        began = time.monotonic()
        await drive(settings, feed, Kraken(settings), got.extend, until_end=True)
    return feed, [decode(m.topic, m.value) for m in got], time.monotonic() - began


def ids_of(messages):
    return [t.trade_id for m in messages if isinstance(m, Trades) for t in m.trades]


def marks_of(messages):
    return [m for m in messages if isinstance(m, Watermark)]


def test_a_recording_of_frames_arrives_whole(shared):
    feed, messages, _ = asyncio.run(
        replayed(shared / 'data/kraken-ws-v2/DERIVED_replay_BTC-USDT_20251110.jsonl', ['BTC/USDT'])
    )
    ids = ids_of(messages)
    assert ids == list(range(10218208, 10219208))
    marks = marks_of(messages)
    assert [m.exchange_ms for m in marks] == sorted(m.exchange_ms for m in marks)
    last = max(t.event_ms for m in messages if isinstance(m, Trades) for t in m.trades)
    assert (
        marks[-1].exchange_ms == last // 60_000 * 60_000 + 62_000 and marks[-1].contiguous_through == 10219207
    )
    assert (
        feed.counts['received'] == 1000
        and feed.counts['duplicates'] == feed.counts['dead_letters'] == feed.counts['from_rest'] == 0
    )
    assert (feed.counts['frames_status'], feed.counts['frames_ack']) == (1, 2), (
        "the recording's own greetings are not sent twice"
    )


def test_a_file_of_trades_arrives_whole_and_fast(shared):
    file = shared / 'data/canonical/trades/BTC-USDT_20240808T2354.parquet'
    _, messages, seconds = asyncio.run(replayed(file, ['BTC/USDT']))
    ids = ids_of(messages)
    assert len(ids) == len(set(ids)) == 19_904 and max(ids) - min(ids) == 19_903
    assert max(len(m.trades) for m in messages if isinstance(m, Trades)) <= 1000
    assert len(marks_of(messages)) > 10
    print(f'{len(ids)} trades in {seconds:.2f} s, {len(messages)} messages')
    assert seconds < 10, 'the aim is 3 s; 10 allows for a machine that does other things'


def test_a_quiet_market_is_replayed_with_its_silence(shared):
    feed, messages, _ = asyncio.run(
        replayed(shared / 'data/canonical/trades/XRP-ETH_20191011.parquet', ['XRP/ETH'])
    )
    assert len(set(ids_of(messages))) == 12_477 and feed.counts['exchange_holes'] == 0


def test_a_replay_at_twice_its_speed_takes_half_its_time(tmp_path):
    start = 1_700_000_000_000
    rows = [{'t': start / 1000 + i / 2, 'raw': frame(i, start + 500 * i)} for i in range(9)]
    (tmp_path / 'r.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    feed, messages, seconds = asyncio.run(replayed(tmp_path / 'r.jsonl', ['BTC/USD'], 2.0))
    assert ids_of(messages) == list(range(9)) and 1.8 < seconds < 4 and feed.counts['frames_heartbeat'] >= 1


def frame(trade_id, event_ms):
    at = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(event_ms // 1000)) + f'.{event_ms % 1000:03}000Z'
    item = {
        'symbol': 'BTC/USD',
        'side': 'buy',
        'price': 1.5,
        'qty': 2,
        'ord_type': 'limit',
        'trade_id': trade_id,
        'timestamp': at,
    }
    return json.dumps({'channel': 'trade', 'type': 'update', 'data': [item]})


def test_damaged_frames_and_holes_of_a_recording(tmp_path):
    start = 1_700_000_000_000
    lines = [frame(i, start + 100 * i) for i in range(1, 301) if i not in (100, 101)]
    lines[150:150] = [
        lines[150][:70],
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","price":NaN}]}',
    ]
    lines[200:200] = [lines[10]]
    (tmp_path / 'r.jsonl').write_text('\n'.join(lines))
    feed, messages, _ = asyncio.run(replayed(tmp_path / 'r.jsonl', ['BTC/USD']))
    assert sorted(ids_of(messages)) == [i for i in range(1, 301) if i not in (100, 101)]
    assert feed.counts['dead_letters'] == 2 and feed.counts['exchange_holes'] == 1
    assert (
        feed.counts['received']
        == feed.counts['published'] + feed.counts['duplicates'] + feed.counts['dead_letters']
    )


def test_a_new_client_of_a_replay_goes_on_without_a_hole(tmp_path):
    start = 1_700_000_000_000
    (tmp_path / 'r.jsonl').write_text('\n'.join(frame(i, start + 100 * i) for i in range(1, 3001)))

    async def go():
        got = []
        async with (
            asyncio.timeout(30),
            serving(SandboxExchange(Recording(tmp_path / 'r.jsonl'), float('inf'))) as urls,
        ):
            settings, first = settings_at(urls), Feed([SymbolState('BTC/USD')], 'replay')
            task = asyncio.create_task(drive(settings, first, Kraken(settings), got.extend))
            while first.counts['published'] < 500:
                await asyncio.sleep(0)
            task.cancel()
            left = first.states['BTC/USD'].sequence
            known = left.ids.contiguous_id
            second = Feed([SymbolState('BTC/USD', left)], 'replay')
            await drive(settings, second, Kraken(settings), got.extend, until_end=True)
        return known, [decode(m.topic, m.value) for m in got], second

    known, messages, second = asyncio.run(go())
    assert 500 <= known < 3000, 'it was cut in mid-stream'
    assert Counter(ids_of(messages)) == Counter(range(1, 3001))
    assert second.counts['exchange_holes'] == 0


def test_the_simulation_is_a_function_of_its_seed():
    ask = (NOON * 10**6, (NOON + 3_600_000) * 10**6, 500)
    rows = Simulation(7).rows('BTC/USD', *ask)
    assert rows == Simulation(7).rows('BTC/USD', *ask) != Simulation(8).rows('BTC/USD', *ask)
    assert [r.trade_id for r in rows] == list(range(rows[0].trade_id, rows[0].trade_id + 500))
    assert all(a.ns < b.ns for a, b in pairwise(rows))
    assert sum(a.ns // 10**6 == b.ns // 10**6 for a, b in pairwise(rows)) > 50
    assert Simulation(7).rows('BTC/USD', 0, 10**30, 1)[0].trade_id == 1


async def asked(exchange, ask):
    async with serving(exchange) as urls:
        return await asyncio.to_thread(ask, Kraken(settings_at(urls)))


@pytest.mark.parametrize(('symbol', 'interval'), [('BTC/USD', 60), ('XRP/EUR', 60), ('DOGE/BTC', 300)])
def test_simulated_candles_are_made_of_its_trades(symbol, interval):
    def ask(kraken):
        candles = kraken.candles(symbol, interval)
        pages = trade_pages(kraken, symbol, candles[0].start_ms)
        return candles, [t for page in pages for t in page.trades]

    candles, trades = asyncio.run(asked(SandboxExchange(Simulation(3), 1, (now_ms(), NOON)), ask))
    assert len(candles) == 720 and candles[-1].end_ms == NOON // (interval * 1000) * interval * 1000
    windows = {}
    for t in trades:
        windows.setdefault(t.event_ms // (interval * 1000) * interval * 1000, []).append(t)
    for c in candles:
        some = windows.get(c.start_ms, [])
        assert c.trade_count == len(some) and c.is_empty == (not some)
        if some:
            prices = [Decimal(t.price) for t in some]
            assert [Decimal(v) for v in (c.open, c.high, c.low, c.close)] == [
                prices[0],
                max(prices),
                min(prices),
                prices[-1],
            ]
            assert Decimal(c.volume) == sum(Decimal(t.quantity) for t in some)
        else:
            assert {c.open, c.high, c.low} == {c.close} and c.volume == c.vwap == '0'
    assert all(a.close == b.open for a, b in pairwise(candles) if b.is_empty)
    assert (0 < sum(c.is_empty for c in candles) < 100) == (interval == 60)


def test_the_other_calls():
    def ask(kraken):
        symbols = kraken.symbols()
        with pytest.raises(ValueError, match='does not list BTC/UDS; the nearest are BTC/USD'):
            kraken.trade_page('BTC/UDS', '0')
        with pytest.raises(ValueError, match='kraken makes candles of'):
            kraken.candles('BTC/USD', 61)
        return symbols, kraken.status(), kraken.time_ms()

    symbols, status, clock = asyncio.run(asked(SandboxExchange(Simulation(3), 1, (now_ms(), NOON)), ask))
    assert 'BTC/USD' in symbols and len(symbols) > 100 and status == 'online' and abs(clock - NOON) < 5000


def test_a_live_start_is_whole_and_marks_come_every_second_for_each_symbol():
    async def go():
        symbols, got = ['BTC/USD', 'GRT/GBP'], []
        async with serving(SandboxExchange(Simulation(7), 60, (now_ms(), NOON + 30_000))) as urls:
            settings = settings_at(urls)
            feed = Feed([SymbolState(s, since_ms=NOON, fetch_first=True) for s in symbols], 'simulated')
            try:
                async with asyncio.timeout(3):
                    await drive(settings, feed, Kraken(settings), got.extend)
            except TimeoutError:
                return feed, [decode(m.topic, m.value) for m in got]

    feed, messages = asyncio.run(go())
    for symbol in feed.states:
        own = [m for m in messages if m.symbol == symbol]
        trades = [t for m in own if isinstance(m, Trades) for t in m.trades]
        marks = [m for m in own if isinstance(m, Watermark)]
        expected = [
            r.trade_id
            for r in Simulation(7).rows(
                symbol, NOON * 10**6 - 1, marks[-1].exchange_ms * 10**6 + 999_999, 1 << 30
            )
        ]
        assert {t.trade_id for t in trades} >= set(expected) and len({t.trade_id for t in trades}) == len(
            trades
        )
        assert (
            marks[-1].exchange_ms - NOON > 100_000
            and len(marks) > 8
            and marks[0].exchange_ms >= NOON + 30_000
        )
        late = [
            t
            for i, m in enumerate(own)
            if isinstance(m, Trades)
            for t in m.trades
            if any(isinstance(k, Watermark) and k.exchange_ms > t.event_ms + 2000 for k in own[:i])
        ]
        assert late == [], 'a mark has passed a trade'
    assert feed.counts['exchange_holes'] == 0


def test_an_unknown_symbol_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setattr('crypto_rt.market.exchange_health.LISTS_APART_MS', 1000)

    async def go():
        async with asyncio.timeout(10), serving(SandboxExchange(Simulation(7))) as urls:
            settings = settings_at(urls)
            await drive(settings, Feed([SymbolState('BTC/UDS')]), Kraken(settings), lambda out: None)

    with pytest.raises(ValueError, match=r'Currency pair not supported BTC/UDS.*nearest are BTC/USD'):
        asyncio.run(go())


def test_what_cannot_be_served(tmp_path):
    (tmp_path / 'poem.txt').write_text('Two roads diverged')
    for wrong, words in (
        (dict(file=tmp_path / 'poem.txt'), 'expected Parquet'),
        (dict(simulate=True, speed='max'), 'has no end'),
        (dict(simulate=True, speed='-3'), 'positive number'),
        (dict(), '--file F or --simulate'),
    ):
        with pytest.raises(ValueError, match=words):
            run_exchange(load_settings(env={}), **wrong)


def test_a_taken_port_is_named():
    async def go():
        async with serving(SandboxExchange(Simulation(7))) as (url, _):
            port = int(url.split(':')[2].split('/')[0])
            with pytest.raises(OSError, match=f'port {port} of 127.0.0.1 cannot be used'):
                async with serving(SandboxExchange(Simulation(7)), port=port):
                    pass

    asyncio.run(go())


def test_a_fast_simulation_never_falls_back(tmp_path):
    settings = load_settings(env={}, data=dict(directory=str(tmp_path)))

    async def clock(speed):
        return open_sandbox(settings, speed=speed).clock_ms()

    first = asyncio.run(clock('36000'))
    time.sleep(0.05)
    second, third = asyncio.run(clock('60')), asyncio.run(clock('1'))
    assert first + 1_000_000 < second <= third


def test_the_command_starts_at_once_and_stops_within_a_second():
    began = time.monotonic()
    with subprocess.Popen(
        [str(Path(sys.executable).with_name('crypto-rt')), 'exchange', '--simulate'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stderr.readline()
            started, began = time.monotonic() - began, time.monotonic()
            process.send_signal(signal.SIGTERM)
            code, took = process.wait(10), time.monotonic() - began
        finally:
            process.kill()
    assert 'SIMULATED market, seed 7 at ws://127.0.0.1:' in line
    print(f'ready after {started:.2f} s, stopped after {took:.2f} s')
    assert code == 0 and took < 3, 'the aim is 1 s; 3 allows for a machine that does other things'
