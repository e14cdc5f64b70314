"""Candles, indicators and predictions as a store takes them."""

from crypto_rt.core.messages import Candle, Prediction, TechnicalIndicators
from crypto_rt.features.table import FEATURE_NAMES, FEATURE_SET
from crypto_rt.store.schema import FeatureDef

NOON = 1_762_776_000_000
DAY = 86_400_000
KEY = dict(symbol='BTC/USD', interval_seconds=60)


def candle(n, price='100', revision=0, symbol='BTC/USD', delay=62_000, **other):
    start = NOON + n * 60_000
    values = dict(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=revision,
        end_ms=start + 60_000,
        open=price,
        high=price,
        low=price,
        close=price,
        volume='1.5',
        quote_volume='150',
        vwap=price,
        trade_count=3,
        buy_volume='1',
        first_trade_id=n,
        last_trade_id=n + 2,
        bid=None,
        ask='100.5',
        is_empty=False,
        is_partial=False,
        source='trades',
        available_ms=start + delay,
    )
    return Candle(**values | other)


def indicators(n, value=0.5, revision=0, symbol='BTC/USD', delay=62_000):
    start, values = NOON + n * 60_000, dict.fromkeys(FEATURE_NAMES, value) | {FEATURE_NAMES[0]: None}
    return TechnicalIndicators(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=revision,
        end_ms=start + 60_000,
        close=100.0,
        values=values,
        warm_up=0,
        feature_set=FEATURE_SET,
        is_partial=False,
        available_ms=start + delay,
    )


def prediction(n):
    start = NOON + n * 60_000
    return Prediction(
        symbol='BTC/USD',
        interval_seconds=60,
        horizon_seconds=300,
        start_ms=start,
        revision=0,
        model_version='3',
        made_at_ms=start + 62_100,
        target_ms=start + 360_000,
        last_price=100.0,
        expected_log_return=None,
        lower=-0.1,
        upper=0.1,
        level=0.9,
        expected_price=None,
        status='abstain',
        reasons=['stale', 'gap'],
        model_digest='ab',
        feature_hash='cd',
        flags=[],
        expires_ms=start + 180_000,
        trace={'features': 12},
    )


SCHEMA = [
    FeatureDef('symbol', 'string', False),
    *(FeatureDef(n, 'bigint', False) for n in ('start_ms', 'revision', 'available_ms')),
    FeatureDef('value', 'double'),
]
