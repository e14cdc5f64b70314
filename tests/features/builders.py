"""Candles of a made-up market, and feature vectors as tables."""

from __future__ import annotations

import math

import numpy as np

from crypto_rt.core.messages import Candle
from crypto_rt.features.indicators import indicators_of

START = 1_722_470_400_000
N = 3000


def candle(i: int, o: float, h: float, l: float, c: float, v: float = 1.0, **other: object) -> Candle:  # noqa: E741
    start = START + i * 60_000
    fields = dict(
        symbol='BTC/USD',
        interval_seconds=60,
        start_ms=start,
        revision=0,
        end_ms=start + 60_000,
        open=f'{o:.8f}',
        high=f'{h:.8f}',
        low=f'{l:.8f}',
        close=f'{c:.8f}',
        volume=f'{v:.8f}',
        quote_volume='0',
        vwap=f'{c:.8f}',
        trade_count=3,
        buy_volume='0',
        first_trade_id=-1,
        last_trade_id=-1,
        bid=None,
        ask=None,
        is_empty=not v,
        is_partial=False,
        source='trades',
        available_ms=start + 62_000,
    )
    return Candle(**fields | other)


def walk(n: int, seed: int, wild: bool = False) -> list[Candle]:
    """Seeded walk; `wild` has jumps of 5 %, flat and empty stretches, volume over ten orders of magnitude."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(3, n) * 4e-4
    spread = rng.exponential(1e-4, (2, n))
    volume = np.exp(rng.normal(0, 1, n))
    if wild:
        returns[rng.integers(0, n, 10)] = 0.05
        volume = np.exp(rng.normal(0, 4, n))
        for begin in rng.integers(0, n, 6):
            dead = slice(begin, begin + rng.integers(5, 90))
            returns[dead], spread[:, dead], volume[dead] = 0, 0, 0
    close = 30_000 * np.exp(np.cumsum(returns))
    opened = np.r_[30_000, close[:-1]]
    share = rng.uniform(0, 1, n)
    high, low = np.maximum(opened, close) * (1 + spread[0]), np.minimum(opened, close) * (1 - spread[1])
    return [
        candle(
            i,
            o,
            h=h,
            l=lo,
            c=c,
            v=v,
            buy_volume=f'{math.floor(v * s * 1e6) / 1e6:.8f}',
            trade_count=int(k) if v else 0,
        )
        for i, (o, h, lo, c, v, s, k) in enumerate(
            zip(opened, high, low, close, volume, share, rng.poisson(30, n) + 1, strict=True)
        )
    ]


def table(vectors) -> np.ndarray:
    return np.array([[math.nan if v is None else v for v in m.values.values()] for m in vectors])


def worst(a: np.ndarray, b: np.ndarray, std: np.ndarray) -> np.ndarray:
    "Worst |a-b| / max(|b|, std) of each column; inf where only one is null."
    assert a.shape == b.shape
    off = np.isnan(a) != np.isnan(b)
    error = np.abs(a - b) / np.maximum(np.maximum(np.abs(b), std), 1e-300)
    return np.where(off.any(0), np.inf, np.nan_to_num(error).max(0))


_cache: list = []


def _wild():
    if not _cache:
        candles = walk(N, 11, wild=True)
        _cache.extend((candles, indicators_of(candles)))
    return _cache
