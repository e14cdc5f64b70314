"""The stored candles against an exchange: what it changed, and a service that stands still."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from crypto_rt.candles.aggregation import candles_of_trades
from crypto_rt.core.settings import load_settings
from crypto_rt.market.files.trades import read_trades
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.kraken.frames import exchange_candle
from crypto_rt.sandbox.exchange import SandboxExchange
from crypto_rt.sandbox.recording import Recording
from crypto_rt.sandbox.server import serving
from crypto_rt.services.reconcile import against_exchange, reconcile_once
from crypto_rt.store.open import open_feature_store, open_group
from tests.services.builders import folded


class Fixed:
    "An exchange that says what it is told."

    def __init__(self, rows, now_ms):
        self.rows, self.now_ms = rows, now_ms

    def candles(self, symbol, interval_seconds):
        return [c for c in self.rows if c.symbol == symbol]

    def time_ms(self):
        return self.now_ms


def of_the_exchange(candles):
    "The same candles as the exchange tells them."
    return [
        exchange_candle(
            'BTC/USD',
            60,
            start_ms=c.start_ms,
            ohlc=(c.open, c.high, c.low, c.close),
            volume=c.volume,
            vwap=c.vwap,
            trade_count=c.trade_count,
        )
        for c in candles
    ]


def test_the_store_is_compared_and_a_change_of_the_exchange_is_told_apart(here):
    ours = folded(range(120))
    store = open_feature_store(here)
    open_group(store, 'candles').insert(ours)
    store.close()
    theirs = of_the_exchange(folded(range(120)))
    now = ours[-1].end_ms + 5_000
    assert against_exchange(here, Fixed(theirs, now), alive=True)['reasons'] == {'cut_first': 1}
    revised = [
        msgspec.structs.replace(c, volume=c.volume + '1') if n == 5 else c for n, c in enumerate(theirs)
    ]
    result = against_exchange(here, Fixed(revised, now + 300_000), alive=False)
    assert result['ok'] and result['reasons'] == {'cut_first': 1, 'exchange_revision': 1}
    wrong = [msgspec.structs.replace(c, high='999') if n == 6 else c for n, c in enumerate(revised)]
    again = load_settings(
        '/dev/null', env={}, data=dict(directory=here.data.directory, symbols='BTC/USD,ETH/USD')
    )
    (Path(here.data.directory) / 'exchange_candles.sqlite').unlink()
    result = reconcile_once(again, Fixed(wrong, now))
    assert (
        not result['ok'] and result['unexplained'] == 2 and result['symbols']['BTC/USD']['unexplained'] == 2
    )
    assert json.loads((Path(here.data.directory) / 'reconciliation.json').read_text()) == result


def test_a_service_that_stands_still_is_seen(here):
    ours = folded(range(120))
    store = open_feature_store(here)
    open_group(store, 'candles').insert(ours)
    store.close()
    theirs = of_the_exchange(folded(range(300)))
    assert against_exchange(here, Fixed(theirs, theirs[-1].end_ms), alive=False)['unexplained'] == 1, (
        'our last minute is cut, and was told as whole'
    )
    result = against_exchange(here, Fixed(theirs, theirs[-1].end_ms), alive=True)
    missed = [line for line in result['evidence'] if line['evidence'] == 'we have no candle for it']
    assert missed[0]['windows'] == len(theirs) - len(ours) - 2 and result['reasons']['still_forming'] == 2


def test_the_local_exchange_agrees_with_the_fold(here, tmp_path, shared):
    file = shared / 'data/canonical/trades/BTC-USDT_20240808T2354.parquet'
    ours = list(candles_of_trades(read_trades(file), 60, 2000))
    settings = load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path), symbols='BTC/USDT'))
    store = open_feature_store(settings)
    open_group(store, 'candles').insert(ours)
    store.close()

    async def compare():
        market = Recording(file)
        exchange = SandboxExchange(market, float('inf'))
        async with serving(exchange) as urls:
            from websockets.asyncio.client import connect

            async with connect(urls[0]) as socket:
                await socket.send(
                    '{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USDT"],"snapshot":true}}'
                )
                async for frame in socket:
                    if '"replay"' in frame:
                        break
            at = msgspec.structs.replace(
                settings, exchange=msgspec.structs.replace(settings.exchange, rest_url=urls[1])
            )
            return await asyncio.to_thread(lambda: against_exchange(at, Kraken(at)))

    result = asyncio.run(asyncio.wait_for(compare(), 60))
    assert result['unexplained'] == 0 and result['exact'] >= 10, result


def catches(pid: int, number: int) -> bool:
    "Tell whether a process has a handler of its own for a signal."
    (mask,) = (
        line.split()[1] for line in Path(f'/proc/{pid}/status').read_text().splitlines() if 'SigCgt' in line
    )
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_the_service_ends_at_once_when_it_is_told_to(here, tmp_path):
    code = (
        'from crypto_rt.core.settings import load_settings; from crypto_rt.services.reconcile import run_reconciliation; '
        f"run_reconciliation(load_settings('/dev/null', env={{}}, data=dict(directory={str(tmp_path)!r}), kafka=dict(broker='127.0.0.1:9')))"
    )
    process = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not catches(process.pid, signal.SIGTERM):  # it is still importing
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
