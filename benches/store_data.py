"""Made-up candles and features for the store's bench: frames of a random walk, and messages."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pandas as pd

from crypto_rt.core.messages import Candle, TechnicalIndicators
from crypto_rt.features.table import FEATURE_NAMES, FEATURE_SET

START, MINUTE = 1_722_470_400_000, 60_000


def candle_frame(symbol: str, n: int, seed: int) -> pd.DataFrame:
    "Return `n` one-minute candles of a seeded random walk, as the store keeps them."
    rng, start = np.random.default_rng(seed), START + MINUTE * np.arange(n)
    close = np.round(50_000 * np.exp(np.cumsum(rng.standard_t(4, n) * 4e-4)), 1)
    opened = np.r_[close[0], close[:-1]]
    high, low = (
        np.round(np.maximum(opened, close) * 1.0003, 1),
        np.round(np.minimum(opened, close) * 0.9997, 1),
    )
    volume, count = np.round(np.exp(rng.normal(0, 1, n)), 8), rng.poisson(30, n) + 1
    text = {
        name: pd.Series(values).map(repr)
        for name, values in dict(
            open=opened,
            high=high,
            low=low,
            close=close,
            volume=volume,
            quote_volume=np.round(close * volume, 6),
            vwap=np.round(close * 1.00001, 8),
            buy_volume=np.round(volume * rng.uniform(0, 1, n), 8),
        ).items()
    }
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(Candle)
        if field.default is not msgspec.NODEFAULT
    }
    whole = defaults | dict(
        symbol=symbol,
        interval_seconds=60,
        revision=0,
        is_empty=False,
        is_partial=False,
        source='trades',
        bid=None,
        ask=None,
    )
    last = np.cumsum(count)
    return pd.DataFrame(
        {
            'start_ms': start,
            'end_ms': start + MINUTE,
            'available_ms': start + MINUTE + 2000,
            'trade_count': count,
            'first_trade_id': last - count,
            'last_trade_id': last - 1,
            **text,
        }
    ).assign(**whole)


def indicator_frame(symbol: str, n: int, seed: int) -> pd.DataFrame:
    "Return `n` rows of features with full mantissas: the worst case for compression."
    rng, start = np.random.default_rng(seed), START + MINUTE * np.arange(n)
    features = dict(zip(FEATURE_NAMES, rng.normal(size=(len(FEATURE_NAMES), n)), strict=True))
    return pd.DataFrame(
        dict(
            symbol=symbol,
            interval_seconds=60,
            start_ms=start,
            revision=0,
            end_ms=start + MINUTE,
            close=features[FEATURE_NAMES[0]],
            warm_up=0,
            feature_set=FEATURE_SET,
            is_partial=False,
            available_ms=start + MINUTE + 2000,
            **features,
        )
    )


def messages(first: int, n: int) -> tuple[list[Candle], list[TechnicalIndicators]]:
    "Return messages of ten symbols, as the topics carry them."
    candles, features = [], []
    for k, s in itertools.product(range(first, first + n // 10), range(10)):
        start, symbol = START + k * MINUTE, f'S{s}/USD'
        candles.append(
            Candle(
                symbol=symbol,
                interval_seconds=60,
                start_ms=start,
                revision=0,
                end_ms=start + MINUTE,
                open='100.1',
                high='100.9',
                low='99.7',
                close='100.2',
                volume='3.25',
                quote_volume='325.1',
                vwap='100.05',
                trade_count=12,
                buy_volume='1.5',
                first_trade_id=k,
                last_trade_id=k + 11,
                bid=None,
                ask=None,
                is_empty=False,
                is_partial=False,
                source='trades',
                available_ms=start + MINUTE + 2000,
            )
        )
        values: dict[str, float | None] = {name: k / 7 + i for i, name in enumerate(FEATURE_NAMES)}
        features.append(
            TechnicalIndicators(
                symbol=symbol,
                interval_seconds=60,
                start_ms=start,
                revision=0,
                end_ms=start + MINUTE,
                close=100.2,
                values=values,
                warm_up=0,
                feature_set=FEATURE_SET,
                is_partial=False,
                available_ms=start + MINUTE + 2000,
            )
        )
    return candles, features
