"""Candles of recorded trades equal the exchange's own, and those of another party."""

from __future__ import annotations

import json
from pathlib import Path

from crypto_rt._core import CandleFold as RustFold
from crypto_rt.core.messages import Candle, Trade, decode
from crypto_rt.core.times import seconds_text_ms, window_start
from tests.candles.builders import mark, trades_message

AMOUNTS = ('open', 'high', 'low', 'close', 'vwap', 'volume')


def fold_all(symbol: str, trades: list[Trade], cut: bool = False) -> dict[int, Candle]:
    fold, told = RustFold(60), []
    for i in range(0, len(trades), 50):
        told += fold.feed(trades_message(trades[i : i + 50], symbol=symbol))
        told += fold.feed(
            mark(
                trades[min(i + 49, len(trades) - 1)].event_ms,
                trades[min(i + 49, len(trades) - 1)].trade_id,
                symbol=symbol,
            )
        )
    last = trades[-1]
    if not cut:
        told += fold.feed(mark(window_start(last.event_ms, 60) + 62_000, last.trade_id, symbol=symbol))
    return {candle.start_ms: candle for candle in (decode('candles', raw) for raw in told)}


def test_minutes_equal_kraken_s_own(shared: Path) -> None:
    folder = shared / 'data/kraken-rest'
    reply = json.loads((folder / 'nautilus_http_trades.json').read_text(), parse_float=str)['result']
    rows = next(rows for key, rows in reply.items() if key != 'last')
    trades = [
        Trade(
            trade_id=r[6],
            price=r[0],
            quantity=r[1],
            side='buy' if r[3] == 'b' else 'sell',
            order_type='limit' if r[4] == 'l' else 'market',
            event_ms=seconds_text_ms(r[2]),
        )
        for r in rows
    ]
    ohlc = json.loads((folder / 'nautilus_http_ohlc.json').read_text())['result']
    kraken = {r[0] * 1000: r for r in next(rows for key, rows in ohlc.items() if key != 'last')}
    ours = fold_all('BTC/USDT', trades)

    def equal(candle: Candle) -> bool:
        row = kraken[candle.start_ms]
        numbers = [f'{float(getattr(candle, name)):.8f}' for name in AMOUNTS]
        theirs = [f'{float(row[i]):.8f}' for i in range(1, 5)]
        return numbers[:4] == theirs and numbers[5] == f'{float(row[6]):.8f}' and candle.trade_count == row[7]

    traded = [c for c in ours.values() if not c.is_empty and c.start_ms in kraken]
    different = [c for c in traded if not equal(c)]
    assert (len(traded), len(different)) == (274, 1)
    assert (
        different[0].start_ms == window_start(trades[0].event_ms, 60) and different[0].is_partial
    )  # the first minute was cut
    assert not any(c.is_partial for c in traded if c is not different[0])
    empty = [c for c in ours.values() if c.is_empty]
    assert empty and all(equal(c) for c in empty)  # Kraken writes silent minutes as flat candles too
    assert len(ours) == (max(ours) - min(ours)) // 60_000 + 1


def test_minutes_equal_another_party_s_candles(shared: Path) -> None:
    import pyarrow.parquet as pq

    folder = shared / 'data/canonical'
    table = pq.read_table(
        folder / 'trades/BTC-USDT_20240808T2354.parquet',
        columns=['trade_id', 'price', 'quantity', 'side', 'event_ms'],
    )
    trades = [
        Trade(
            trade_id=r['trade_id'],
            price=r['price'],
            quantity=r['quantity'],
            side=r['side'],
            order_type='',
            event_ms=r['event_ms'],
        )
        for r in table.to_pylist()
    ]
    ours = fold_all('BTC/USDT', trades, cut=True)
    candles = pq.read_table(folder / 'candles/BTC-USDT_1m_2024-07-26.parquet')
    theirs = {r['start_ms']: r for r in candles.to_pylist() if r['start_ms'] in ours}
    whole = [c for c in ours.values() if not c.is_partial]
    assert len(whole) == 10
    for candle in whole:
        for name in ('open', 'high', 'low', 'close', 'volume'):
            assert f'{float(getattr(candle, name)):.8f}' == f'{theirs[candle.start_ms][name]:.8f}', (
                candle.start_ms,
                name,
            )
