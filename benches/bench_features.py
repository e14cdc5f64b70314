"""Features per candle: TA-Lib's handles against its functions over a window and against talipp; and all
features of the table."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from benches.measuring import Bound, judged
from crypto_rt.core.messages import Candle
from crypto_rt.features.history import candle_row
from crypto_rt.features.indicators import Indicators
from crypto_rt.features.table import TABLE

HLC, CLOSE = ('high', 'low', 'close'), ('close',)
# 27 values: TA-Lib's name, inputs and parameters; how many values; talipp's name and parameters, whether it
# takes whole candles
VALUES: tuple[tuple[str, tuple[str, ...], tuple[float, ...], int, str, tuple[float, ...], bool], ...] = (
    *(('SMA', CLOSE, (n,), 1, 'SMA', (n,), False) for n in (10, 20, 50)),
    *(('EMA', CLOSE, (n,), 1, 'EMA', (n,), False) for n in (10, 20, 50)),
    ('WMA', CLOSE, (20,), 1, 'WMA', (20,), False),
    *(('RSI', CLOSE, (n,), 1, 'RSI', (n,), False) for n in (7, 14)),
    ('MACD', CLOSE, (12, 26, 9), 3, 'MACD', (12, 26, 9), False),
    ('BBANDS', CLOSE, (20, 2.0, 2.0), 3, 'BB', (20, 2.0), False),
    ('ATR', HLC, (14,), 1, 'ATR', (14,), True),
    ('NATR', HLC, (14,), 1, 'NATR', (14,), True),
    ('ADX', HLC, (14,), 1, 'ADX', (14, 14), True),
    ('STOCH', HLC, (14, 1, 0, 3, 0), 2, 'Stoch', (14, 3), True),
    ('CCI', HLC, (20,), 1, 'CCI', (20,), True),
    ('WILLR', HLC, (14,), 1, 'Williams', (14,), True),
    ('ULTOSC', HLC, (7, 14, 28), 1, 'UO', (7, 14, 28), True),
    ('AROONOSC', ('high', 'low'), (25,), 1, 'Aroon', (25,), True),
    ('ROC', CLOSE, (10,), 1, 'ROC', (10,), False),
    ('OBV', ('close', 'volume'), (), 1, 'OBV', (), True),
    ('STDDEV', CLOSE, (20,), 1, 'StdDev', (20,), False),
)


def walk(n: int, seed: int = 7) -> list[Candle]:
    "Return `n` one-minute candles of a seeded random walk."
    rng = np.random.default_rng(seed)
    close = 100_000 * np.exp(np.cumsum(rng.standard_t(4, n) * 4e-4))
    opened = np.r_[100_000, close[:-1]]
    high, low = np.maximum(opened, close) * 1.0002, np.minimum(opened, close) * 0.9998
    volume, share = np.exp(rng.normal(0, 1, n)), rng.uniform(0, 1, n)
    start = 1_722_470_400_000
    return [
        Candle(
            symbol='BTC/USD',
            interval_seconds=60,
            start_ms=start + i * 60_000,
            revision=0,
            end_ms=start + (i + 1) * 60_000,
            open=f'{opened[i]:.2f}',
            high=f'{high[i]:.2f}',
            low=f'{low[i]:.2f}',
            close=f'{close[i]:.2f}',
            volume=f'{volume[i]:.8f}',
            quote_volume='0',
            vwap=f'{close[i]:.2f}',
            trade_count=30,
            buy_volume=f'{volume[i] * share[i]:.8f}',
            first_trade_id=i,
            last_trade_id=i,
            bid=None,
            ask=None,
            is_empty=False,
            is_partial=False,
            source='trades',
            available_ms=start + i * 60_000 + 62_000,
        )
        for i in range(n)
    ]


def _spans(function: Callable[[Any], Any], items: Sequence[Any]) -> list[int]:
    spans = []
    for item in items:
        begun = time.perf_counter_ns()
        function(item)
        spans.append(time.perf_counter_ns() - begun)
    return spans


class Handles:
    "The 27 values by handles that are opened once and then updated."

    def __init__(self, columns: dict[str, np.ndarray]):
        from talib import stream

        self.streams = [
            (getattr(stream, name)(*[columns[c] for c in inputs], *parameters), inputs)
            for name, inputs, parameters, *_ in VALUES
        ]
        self.names = sorted({inputs for _, inputs in self.streams})
        self.plan = [(handle.update, self.names.index(inputs)) for handle, inputs in self.streams]

    def __call__(self, row: Any) -> list[Any]:
        arguments = [[getattr(row, name) for name in inputs] for inputs in self.names]
        return [update(*arguments[which]) for update, which in self.plan]


class Functions:
    "The 27 values by TA-Lib's functions, recomputed over the last `window` candles."

    def __init__(self, columns: dict[str, np.ndarray], window: int):
        import talib

        self.columns, self.window = columns, window
        self.functions = [
            (getattr(talib, name), inputs, parameters) for name, inputs, parameters, *_ in VALUES
        ]

    def __call__(self, end: int) -> list[Any]:
        part = {name: column[end - self.window : end] for name, column in self.columns.items()}
        found = (
            function(*[part[name] for name in inputs], *parameters)
            for function, inputs, parameters in self.functions
        )
        return [tuple(x[-1] for x in values) if isinstance(values, tuple) else values[-1] for values in found]


class Talipp:
    "The 27 values by talipp's incremental indicators."

    def __init__(self, rows: Sequence[Any]):
        indicators, self.candle = (
            importlib.import_module('talipp.indicators'),
            importlib.import_module('talipp.ohlcv').OHLCV,
        )
        self.all = [(getattr(indicators, name)(*parameters), whole) for *_, name, parameters, whole in VALUES]
        self.plan = [(indicator.add, whole) for indicator, whole in self.all]
        for row in rows:
            self(row)

    def __call__(self, row: Any) -> None:
        candle = self.candle(row.open, row.high, row.low, row.close, row.volume)
        for add, whole in self.plan:
            add(candle if whole else row.close)


def bench(n: int = 6000, block: int = 250) -> dict[str, Any]:
    "Return microseconds (median) per candle of each way, measured in turns, and their ratios."
    import talib

    candles = walk(n)
    rows = [candle_row(candle) for candle in candles]
    columns = {
        name: np.array([getattr(row, name) for row in rows]) for name in ('high', 'low', 'close', 'volume')
    }
    begin = n // 2
    past = {name: column[:begin].copy() for name, column in columns.items()}
    ways: dict[str, Callable[[Any], Any]] = {
        'handles': Handles(past),
        'functions_over_100': Functions(columns, 100),
    }
    spans: dict[str, list[int]] = {
        'handles': [],
        'functions_over_100': [],
        'talipp': [],
        'all_features': [],
        'parsing': [],
    }
    try:
        ways['talipp'] = Talipp(rows[:begin])
    except ModuleNotFoundError:
        del spans['talipp']
    ways |= {
        'all_features': Indicators('BTC/USD', 60, candles[begin - 1500 : begin]).update,
        'parsing': candle_row,
    }
    for at in range(begin, n, block):
        for name, way in ways.items():
            items: Sequence[Any] = (
                rows[at : at + block] if name in ('handles', 'talipp') else candles[at : at + block]
            )
            spans[name] += _spans(
                way, range(at + 1, at + 1 + len(items)) if name == 'functions_over_100' else items
            )
    us = {name: round(statistics.median(each) / 1000, 2) for name, each in spans.items()}
    whole = list(
        chain.from_iterable(
            values if isinstance(values, tuple) else (values,)
            for values in (
                getattr(talib, name)(*[columns[c] for c in inputs], *parameters)
                for name, inputs, parameters, *_ in VALUES
            )
        )
    )
    latest = [
        value
        for handle, _ in ways['handles'].streams
        for value in (handle.value if isinstance(handle.value, tuple) else (handle.value,))
    ]  # type: ignore[attr-defined]
    worst = max(abs(float(value / column[-1]) - 1) for value, column in zip(latest, whole, strict=True))
    over_functions, over_talipp = (
        us['functions_over_100'] / us['handles'],
        us['talipp'] / us['handles'] if 'talipp' in us else None,
    )
    ratios = {
        'functions_over_handles': (over_functions, Bound(at_least=8)),
        'worst_difference_to_batch': (worst, Bound(at_most=1e-9)),
    }
    if over_talipp is not None:
        ratios['talipp_over_handles'] = (over_talipp, Bound(at_least=6))
    figures = {
        'values': [
            f'{name} {" ".join(f"{p:g}" for p in parameters)}'.strip()
            + (f' ({count} values)' if count > 1 else '')
            for name, _, parameters, count, *_ in VALUES
        ],
        'us_27_values_by_handles': us['handles'],
        'us_27_values_by_functions_over_100': us['functions_over_100'],
        'us_27_values_by_talipp': us.get('talipp', 'talipp is not installed'),
        'features_of_the_table': len(TABLE.names),
        'us_all_features': us['all_features'],
        'us_of_it_parsing': us['parsing'],
        'us_all_features_scaled_to_27': round(
            (us['all_features'] - us['parsing']) * 27 / len(TABLE.names), 2
        ),
    }
    return judged(figures, **ratios)
