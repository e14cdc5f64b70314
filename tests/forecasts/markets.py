"""Markets of candles for the tests of forecasts, and the same as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from crypto_rt.forecasts.path import CandleSeries

FIRST_MS = 1_700_006_400_000  # a Wednesday, 00:00 UTC
COLUMNS = ('open', 'high', 'low', 'close', 'volume', 'trade_count')


def market_of(size: np.ndarray, interval_seconds: int = 300, seed: int = 3) -> CandleSeries:
    "Return candles of a walk with these standard deviations."
    rng, inner, n = np.random.default_rng(seed), 20, len(size)
    steps = rng.normal(0, 1, (n, inner)) * size[:, None] / np.sqrt(inner)
    walk = 1e4 * np.exp(np.cumsum(steps)).reshape(n, inner)
    opens = np.r_[1e4, walk[:-1, -1]]
    return CandleSeries(
        symbol='BTC/USD',
        interval_seconds=interval_seconds,
        start_ms=FIRST_MS + 1000 * interval_seconds * np.arange(n),
        open=opens,
        high=np.maximum(walk.max(1), opens),
        low=np.minimum(walk.min(1), opens),
        close=walk[:, -1],
        volume=1e4 * size * rng.lognormal(0, 0.5, n) + 0.01,
        trade_count=np.zeros(n),
    )


def clustered_market(n: int, interval_seconds: int = 300, seed: int = 3) -> CandleSeries:
    "Return candles whose volatility clusters."
    rng, log_variance = np.random.default_rng(seed), np.zeros(n)
    for i in range(1, n):
        log_variance[i] = 0.98 * log_variance[i - 1] + 0.2 * rng.normal()
    return market_of(1e-3 * np.exp(log_variance / 2), interval_seconds, seed)


def null_market(n: int, interval_seconds: int = 300, seed: int = 3) -> CandleSeries:
    "Return candles of one volatility, in which there is nothing to be known."
    return market_of(np.full(n, 1e-3), interval_seconds, seed)


def rows_of(series: CandleSeries, rows: slice | np.ndarray) -> CandleSeries:
    "Return some of the candles."
    return CandleSeries(series.symbol, series.interval_seconds, *(column[rows] for column in series[2:]))


def with_columns(series: CandleSeries, rows: slice, factor: float) -> CandleSeries:
    "Return the candles with prices and volumes of some rows multiplied."
    changed = {}
    for name in COLUMNS:
        changed[name] = getattr(series, name).copy()
        changed[name][rows] *= factor
    return series._replace(**changed)


def candles_file(path: Path, *markets: CandleSeries) -> Path:
    "Write a candles file."
    frames = [
        pd.DataFrame(market._asdict() | {'trade_count': market.trade_count.astype(int)}) for market in markets
    ]
    pd.concat(frames).to_parquet(path)
    return path
