"""Features per candle: handles against TA-Lib's functions over a window."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from crypto_rt.indicators import FEATURES, HANDLES, Indicators, place, row_of
from crypto_rt.messages import Candle


def walk(n: int, seed: int = 7) -> list[Candle]:
    "Return `n` one-minute candles of a seeded random walk."
    rng = np.random.default_rng(seed)
    close = 100_000 * np.exp(np.cumsum(rng.standard_t(4, n) * 4e-4))
    opened = np.r_[100_000, close[:-1]]
    high, low = np.maximum(opened, close) * 1.0002, np.minimum(opened, close) * 0.9998
    volume, share = np.exp(rng.normal(0, 1, n)), rng.uniform(0, 1, n)
    start = 1_722_470_400_000
    return [
        Candle('BTC/USD', 60, start + i * 60_000, 0, start + (i + 1) * 60_000, *(f'{x:.2f}' for x in (opened[i], high[i], low[i], close[i])),
               f'{volume[i]:.8f}', '0', f'{close[i]:.2f}', 30, f'{volume[i] * share[i]:.8f}', i, i, None, None, False, False, 'trades', start + i * 60_000 + 62_000)
        for i in range(n)
    ]  # fmt: skip


def _microseconds(function: Any, items: list[Any]) -> float:
    spans = []
    for item in items:
        begun = time.perf_counter_ns()
        function(item)
        spans.append(time.perf_counter_ns() - begun)
    return round(statistics.median(spans) / 1000, 2)


def bench(n: int = 6000) -> dict[str, Any]:
    "Return microseconds (median) per candle for all features, for the handles alone, and for functions over 100 candles."
    import talib

    candles = walk(n)
    state = Indicators('BTC/USD', 60, candles[:1500])
    whole = _microseconds(state.update, candles[1500:])
    streams = [(handle, state.handles[i]) for i, handle in enumerate(HANDLES)]
    rows = [row_of(candle) for candle in candles[1500:]]

    def handles(row: Any) -> None:
        for handle, stream in streams:
            stream.update(*[getattr(row, name) for name in handle.inputs])

    columns = {name: np.array([getattr(row, name) for row in rows]) for name in ('high', 'low', 'close', 'volume')}

    def functions(end: int) -> None:
        for handle in HANDLES:
            getattr(talib, handle.name)(*[columns[name][end - 100 : end] for name in handle.inputs], *handle.parameters)

    by_handle, by_function = _microseconds(handles, rows), _microseconds(functions, list(range(100, len(rows))))
    begun = time.perf_counter()
    fresh = Indicators('BTC/USD', 60)
    for candle in candles:
        fresh.update(candle)
    rate = n / (time.perf_counter() - begun)
    parse = _microseconds(row_of, candles)
    return {'values': len(FEATURES), 'us_per_candle': whole, 'us_of_it_parsing': parse, 'us_per_27_values': round((whole - parse) * 27 / len(FEATURES), 2), 'handles': len(HANDLES),
            'us_handles': by_handle, 'us_functions_over_100': by_function, 'functions_over_handles': round(by_function / by_handle, 1),
            'candles_per_second': round(rate), 'placed': place(fresh.rows, rows[-1], 60) is None}  # fmt: skip
