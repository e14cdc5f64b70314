"""Parity with TA-Lib's batch functions, on made-up and on real candles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from crypto_rt.core.messages import Candle
from crypto_rt.features.indicators import Indicators, indicators_of
from crypto_rt.features.table import FEATURE_NAMES, FEATURES
from tests.features.builders import START, candle, table, walk, worst


def batch(candles: list[Candle]) -> dict[str, np.ndarray]:
    "The features that rest on handles, by TA-Lib's batch functions over the whole history."
    import talib

    h, lo, c = (np.array([float(getattr(x, n)) for x in candles]) for n in ('high', 'low', 'close'))
    k, d = talib.STOCH(h, lo, c, 14, 3, 0, 3, 0)
    return {
        'ema_gap_20': c / talib.EMA(c, 20) - 1,
        'macd_histogram': talib.MACD(c, 12, 26, 9)[2] / c,
        'adx_14': talib.ADX(h, lo, c, 14),
        'directional_14': talib.PLUS_DI(h, lo, c, 14) - talib.MINUS_DI(h, lo, c, 14),
        'aroon_25': talib.AROONOSC(h, lo, 25),
        'slope_20': talib.LINEARREG_SLOPE(c, 20) / c,
        'rsi_14': talib.RSI(c, 14),
        'stochastic_k': k,
        'stochastic_d': d,
        'williams_14': talib.WILLR(h, lo, c, 14),
        'cci_20': talib.CCI(h, lo, c, 20),
        'ultimate': talib.ULTOSC(h, lo, c, 7, 14, 28),
        'natr_14': talib.NATR(h, lo, c, 14),
    }


def check_batch(candles: list[Candle]) -> float:
    "Compare with `batch` after 600 warm candles, outside flat stretches; return the worst relative error of class 1e-9."
    values, found, seen = table(indicators_of(candles)), batch(candles), 0.0
    rows, still, run = 0, [], 0
    for before, x in pairwise([candles[0], *candles]):
        run = run + 1 if float(x.high) == float(x.low) == float(before.close) else 0
        still.append(run)
    for i, f in enumerate(FEATURES):
        if f.name not in found:
            assert not f.handles, f.name
            continue
        use = np.arange(len(candles)) >= 600
        if f.flat is not None:
            use &= np.array(still) < f.warm_up
        ours, theirs = values[use, i], np.clip(found[f.name][use], f.low, f.high)
        rows += len(ours)
        if f.tolerance == 'bits':
            assert np.array_equal(ours, theirs), f.name
        else:
            error = worst(ours[:, None], theirs[:, None], np.array([np.std(theirs)])).max()
            assert error <= 1e-9, (f.name, error)
            seen = max(seen, error)
    assert rows
    return seen


def test_batch_parity(series):
    check_batch(series[0])


def test_windows_agree_with_talib_where_its_running_sums_are_good():
    import talib

    candles = walk(900, 2)
    h, lo, c, v = (
        np.array([float(getattr(x, n)) for x in candles]) for n in ('high', 'low', 'close', 'volume')
    )
    frame = dict(zip(FEATURE_NAMES, table(indicators_of(candles)).T, strict=True))
    upper, middle, lower = talib.BBANDS(c, 20, 2, 2)
    for name, theirs in {
        'money_flow_14': talib.MFI(h, lo, c, v, 14),
        'chaikin_flow_20': talib.CMF(h, lo, c, v, 20),
        'sma_gap_50': c / talib.SMA(c, 50) - 1,
        'bollinger_width_20': (upper - lower) / middle,
        'bollinger_position_20': (c - middle) / ((upper - lower) / 2),
    }.items():
        assert np.allclose(frame[name][60:], theirs[60:], rtol=1e-6, atol=1e-9), name


def real_candles(file, limit: int = 12_000) -> list[Candle]:
    import pyarrow.parquet as pq

    rows = pq.read_table(file).slice(0, limit).to_pylist()
    return [
        candle(
            (r['start_ms'] - START) // 60_000,
            r['open'],
            h=r['high'],
            l=r['low'],
            c=r['close'],
            v=r['volume'],
            source='exchange',
            trade_count=int(r.get('trade_count') or 0),
            symbol=r['symbol'],
        )
        for r in rows
    ]


def test_real_candles_restart_anywhere(shared):
    files = sorted((shared / 'data/canonical/candles').glob('BTC-USD*_1m_*.parquet'))
    assert files
    for file in files:
        candles = real_candles(file)
        symbol = candles[0].symbol
        never_stopped, state = indicators_of(candles), Indicators(symbol, 60)
        for i, c in enumerate(candles):
            if i % 97 == 0:
                state = Indicators(symbol, 60, candles[max(0, i - 1500) : i])
            assert state.update(c) == never_stopped[i], (file.name, i)


def test_real_candles_agree_with_batch(shared):
    "BTC-USDT 1m of 2024 has no hole, so TA-Lib can run over all of it."
    candles = real_candles(next((shared / 'data/canonical/candles').glob('BTC-USDT_1m_*.parquet')))
    assert check_batch(candles) <= 1e-9
