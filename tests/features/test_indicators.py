"""Features: no look-ahead, honest warm-up, restart anywhere, parity with TA-Lib's batch functions."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt.bus.steps import Out, Received
from crypto_rt.core.messages import Candle, decode, encode
from crypto_rt.features.indicators import Indicators, indicators_of
from crypto_rt.features.table import ANCHOR, FEATURE_NAMES, FEATURE_SET, FEATURES, HANDLES, WARM_UP
from crypto_rt.services.indicators import IndicatorStep
from crypto_rt.store.open import candles_before

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


@pytest.fixture(scope='module', params=['calm', 'wild'])
def series(request):
    candles = walk(N, 5, wild=request.param == 'wild')
    return candles, indicators_of(candles)


def table(vectors) -> np.ndarray:
    return np.array([[math.nan if v is None else v for v in m.values.values()] for m in vectors])


def worst(a: np.ndarray, b: np.ndarray, std: np.ndarray) -> np.ndarray:
    "Worst |a-b| / max(|b|, std) of each column; inf where only one is null."
    assert a.shape == b.shape
    off = np.isnan(a) != np.isnan(b)
    error = np.abs(a - b) / np.maximum(np.maximum(np.abs(b), std), 1e-300)
    return np.where(off.any(0), np.inf, np.nan_to_num(error).max(0))


def test_table_is_complete():
    assert len(FEATURES) >= 27 and len(set(FEATURE_NAMES)) == len(FEATURES)
    for f in FEATURES:
        assert f.tolerance in ('bits', '1e-9') and f.warm_up >= 1 and f.low < f.high and f.meaning
        assert all(HANDLES[h] <= f.warm_up for h in f.handles)


each_feature = pytest.mark.parametrize('feature', FEATURES, ids=FEATURE_NAMES)


def test_messages_carry_the_whole_table(series):
    for n, message in enumerate(series[1], 1):
        assert tuple(message.values) == FEATURE_NAMES and message.feature_set == FEATURE_SET
        assert message.warm_up == max(0, WARM_UP - n)


@each_feature
def test_value_is_finite_in_range_and_warm_exactly_when_declared(feature, series):
    for n, message in enumerate(series[1], 1):
        value = message.values[feature.name]
        assert (value is not None) == (n >= feature.warm_up), n
        assert value is None or (
            math.isfinite(value) and feature.low <= value <= feature.high and str(value) != '-0.0'
        ), value


STARTS = range(150, N - WARM_UP - 200, 411)


@pytest.fixture(scope='module')
def late_starts(series):
    return [table(indicators_of(series[0][start : start + WARM_UP + 150])) for start in STARTS], table(
        series[1]
    )


def warm_up_errors(late_starts, place: int) -> list[float]:
    "Worst relative error of a feature's values from each late start, against the whole history."
    lates, whole = late_starts
    std, errors = np.nanstd(whole[:, place]), []
    for start, late in zip(STARTS, lates, strict=True):
        given_ = ~np.isnan(late[:, place])
        full = whole[start : start + len(late), place]
        errors.append(worst(late[given_][:, [place]], full[given_][:, None], np.array([std]))[0])
    return errors


@each_feature
def test_warm_up_is_honest(feature, late_starts):
    "From any start, a value that is given agrees with that of the whole history to 1e-9."
    assert max(warm_up_errors(late_starts, FEATURE_NAMES.index(feature.name))) <= 1e-9


@given(cut=st.integers(1, N - 1), length=st.integers(1, 60))
@settings(max_examples=12, deadline=None)
def test_restart_anywhere_is_equal_in_every_bit(cut, length):
    candles, vectors = _wild()
    again = Indicators('BTC/USD', 60, candles[max(0, cut - 1500) : cut])
    assert [again.update(c) for c in candles[cut : cut + length]] == vectors[cut : cut + length]


@given(
    cut=st.one_of(
        st.integers(1, N - 2), st.integers(1, 5).map(lambda k: k * ANCHOR - START // 60_000 % ANCHOR)
    )
)
@settings(max_examples=12, deadline=None)
def test_peek_is_what_update_will_say_and_changes_nothing(cut):
    candles, vectors = _wild()
    state = Indicators('BTC/USD', 60, candles[max(0, cut - 1500) : cut])
    for at in (cut, cut + 1):
        state.peek(candle(at, 1, h=1e9, l=1e-8, c=1e9, v=1e9))
        assert state.peek(candles[at]) == state.peek(candles[at]) == vectors[at].values
        assert state.update(candles[at]) == vectors[at]
    with pytest.raises(ValueError, match='expected a window after'):
        state.peek(candles[at])
    hole = candle(at + 9, 30_000, h=30_000, l=30_000, c=30_000)
    assert state.peek(hole)['log_return_1'] is None
    assert state.peek(hole) == state.update(hole).values


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(['next'] * 5 + ['empty', 'hole', 'again', 'revise']),
        st.integers(1, 9),
        st.integers(0, 9),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=70,
)


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_any_stream_is_finite_and_a_restart_after_it_is_equal(events):
    "Holes, repeats, revisions and empty candles in any order."
    state, stored, at = Indicators('BTC/USD', 60), {}, 0
    for kind, price, height, volume in events:
        at += {'hole': price + 1, 'again': 0, 'revise': 0}.get(kind, 1)
        start = at - (height if kind == 'revise' else 0)
        old = stored.get(start)
        close = float(stored[at - 1].close) if kind == 'empty' and at - 1 in stored else 100.0 * price
        taken = candle(
            start,
            close,
            h=close + (kind != 'empty') * height,
            l=close,
            c=close + (kind != 'empty') * height / 2,
            v=0 if kind == 'empty' else volume,
            revision=old.revision + 1 if old and kind == 'revise' else 0,
        )
        for x in state.corrected(taken):
            assert all(
                v is None or (math.isfinite(v) and f.low <= v <= f.high)
                for f, v in zip(FEATURES, x.values.values(), strict=True)
            )
            stored[start] = taken
    again = Indicators('BTC/USD', 60, [stored[i] for i in sorted(stored)])
    for i in (1, 2):
        after = candle(at + i, 500, h=505, l=499, c=501)
        assert again.update(after).values == state.update(after).values


@pytest.mark.parametrize('seconds', [300, 900, 3600])
def test_other_intervals(seconds):
    "The same prices at another interval: the same features, but for the clock and the rate of trades."
    minutes = walk(500, 6)
    longer = [
        msgspec.structs.replace(
            c,
            interval_seconds=seconds,
            start_ms=(c.start_ms - START) // 60_000 * seconds * 1000
            + START // (seconds * 1000) * seconds * 1000,
            end_ms=((c.start_ms - START) // 60_000 + 1) * seconds * 1000
            + START // (seconds * 1000) * seconds * 1000,
        )
        for c in minutes
    ]
    a, b = indicators_of(minutes)[-1].values, indicators_of(longer)[-1].values
    assert b['trade_intensity'] == pytest.approx(a['trade_intensity'] * 60 / seconds)
    other = {f.name for f in FEATURES if f.family == 'time'} | {'trade_intensity'}
    error = {n: abs(a[n] - b[n]) / max(abs(a[n]), 1e-9) for n in FEATURE_NAMES if n not in other}
    assert max(error.values()) <= 1e-9, error


@given(cut=st.integers(1, N - 1))
@settings(max_examples=8, deadline=None)
def test_the_future_changes_nothing(cut):
    candles, vectors = _wild()
    begin = max(0, cut - 1500)
    poison = [candle(i, 1e9, h=1e9, l=1e-3, c=1e9, v=1e9) for i in range(cut, cut + 20)]
    state = Indicators('BTC/USD', 60, candles[begin : cut - 1])
    assert state.update(candles[cut - 1]) == vectors[cut - 1]
    for c in poison:
        state.update(c)
    assert indicators_of(candles[:cut])[-1] == vectors[cut - 1]


_cache: list = []


def _wild():
    if not _cache:
        candles = walk(N, 11, wild=True)
        _cache.extend((candles, indicators_of(candles)))
    return _cache


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


def test_anchor_reopens_and_stays_exact():
    candles, vectors = _wild()
    anchored = [i for i, c in enumerate(candles) if c.start_ms // 60_000 % ANCHOR == 0 and i >= 1500]
    assert anchored
    for i in anchored:
        again = Indicators('BTC/USD', 60, candles[i - 1500 : i])
        assert again.update(candles[i]) == vectors[i]


@pytest.fixture(scope='module')
def dead_market():
    return indicators_of(
        [candle(i, 100, h=100, l=100, c=100, v=0, trade_count=0) for i in range(WARM_UP + 2)]
    )


@each_feature
def test_dead_market_means_what_the_table_says(feature, dead_market):
    value = dead_market[-1].values[feature.name]
    assert value is not None if feature.flat is None else value == feature.flat


# one candle, and what its fields are changed to; prices from the close before it. The second try: a shadow ends at the open or the close, not at both
BASE = dict(open=10, high=20, low=-20, close=5, volume=2.5, buy_volume=1, trade_count=40, vwap=2)
CHANGES = [
    dict(open=8, high=300, low=-300, close=1, volume=9, buy_volume=2, trade_count=70, vwap=3),
    dict(open=-2, high=9000, low=-9000, close=12),
]


@pytest.fixture(scope='module')
def changed_inputs():
    "The vectors of a candle and of the one after it; and those with one field of the candle changed, by field."
    before = walk(700, 8)
    level = float(before[-1].close)

    def told(**changed):
        state, fields = Indicators('BTC/USD', 60, before), BASE | changed
        prices = {
            name: f'{level + fields.pop(name):.8f}' for name in ('open', 'high', 'low', 'close', 'vwap')
        }
        amounts = {name: f'{fields.pop(name):.8f}' for name in ('volume', 'buy_volume')}
        last = msgspec.structs.replace(candle(700, 1, h=1, l=1, c=1), **prices, **amounts, **fields)
        return [
            state.update(c).values
            for c in (last, candle(701, level + 30, h=level + 31, l=level + 29, c=level + 30))
        ]

    return told(), [(field, told(**{field: value})) for change in CHANGES for field, value in change.items()]


@each_feature
def test_declared_inputs_are_those_that_matter(feature, changed_inputs):
    as_it_is, changed = changed_inputs
    matters = {
        field
        for field, told in changed
        if [x[feature.name] for x in told] != [x[feature.name] for x in as_it_is]
    }
    in_handles = {
        name for handle in feature.handles for name in handle.inputs
    }  # what TA-Lib wants may cancel: the true range does in ADX
    assert matters <= {*feature.inputs} and {*feature.inputs} - {'start_ms'} - in_handles <= matters


@pytest.mark.parametrize(
    'bad',
    [
        dict(low='0'),
        dict(high='1'),
        dict(buy_volume='9'),
        dict(interval_seconds=300),
        dict(start_ms=START + 7),
    ],
)
def test_bad_candle_is_refused_and_changes_nothing(bad):
    candles = walk(60, 3)
    state, twin = Indicators('BTC/USD', 60, candles[:50]), Indicators('BTC/USD', 60, candles[:50])
    with pytest.raises(ValueError, match='expected'):
        state.update(msgspec.structs.replace(candles[50], **bad))
    assert [state.update(c) for c in candles[50:]] == [twin.update(c) for c in candles[50:]]


def test_hole_resets_empty_does_not_and_repeats_are_ignored():
    candles = walk(40, 3)
    state = Indicators('BTC/USD', 60)
    assert state.update(candles[0]).warm_up == WARM_UP - 1
    assert state.update(candles[0]) is None
    c = float(candles[0].close)
    assert state.update(candle(1, c, h=c, l=c, c=c, v=0, trade_count=0)).warm_up == WARM_UP - 2
    assert state.update(candles[5]).warm_up == WARM_UP - 1
    assert state.update(candles[3]) is None


@pytest.mark.parametrize('back', [0, 1, 100])
def test_revision_equals_a_history_that_always_had_it(back):
    candles, _ = _wild()
    at = 2000
    state = Indicators('BTC/USD', 60, candles[: at - 5])
    for c in candles[at - 5 : at + 1]:
        state.update(c)
    o = candles[at - back]
    late = msgspec.structs.replace(
        o, revision=1, high=f'{float(o.high) * 1.01:.8f}', volume='7700000000', buy_volume='1'
    )
    clean = [*candles[: at - back], late, *candles[at - back + 1 :]]
    assert state.update(late) == Indicators('BTC/USD', 60, clean[: at - back]).update(late)
    assert state.update(candles[at + 1]) == Indicators('BTC/USD', 60, clean[: at + 1]).update(candles[at + 1])
    assert state.update(late) is None


def test_unknown_order_flow_is_null():
    quiet = [
        msgspec.structs.replace(c, source='exchange', buy_volume='0', trade_count=0) for c in walk(30, 3)
    ]
    values = indicators_of(quiet)[-1].values
    assert [
        n
        for n, v in values.items()
        if v is None and n in ('order_flow_imbalance', 'trade_intensity', 'volume_ratio_20')
    ] == ['order_flow_imbalance', 'trade_intensity']


def test_step_recovers_with_equal_outputs_and_buries_the_undecodable():
    candles, vectors = _wild()
    messages = [
        Received(key='BTC/USD', value=encode(c), topic='candles', partition=0, offset=i)
        for i, c in enumerate(candles)
    ]
    step = IndicatorStep(lambda first, *place: [c for c in candles if c.start_ms < first.start_ms][-1500:])
    first = list(step.take(messages[1700:1720]))
    assert list(step.take(messages[1710:1720])) == first[10:]  # read again after a rebalance
    assert list(step.take(messages[1900:1905])) == [
        Out('technical_indicators', 'BTC/USD', encode(v)) for v in vectors[1900:1905]
    ]
    (dead,) = step.take([Received(key='BTC/USD', value=b'{', topic='candles', partition=0, offset=1905)])
    assert (
        dead.topic == 'dead_letters' and decode('dead_letters', dead.value).id == 'indicators/candles/0/1905'
    )


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


def test_warm_start_from_the_store_and_the_topic(tmp_path):
    "What the store has, and what only the topic has yet, together make a restart exact."
    from crypto_rt.core.settings import DataSettings, Settings
    from crypto_rt.store.open import open_feature_store, open_group

    candles, vectors = _wild()
    config = Settings(data=DataSettings(directory=str(tmp_path)))
    assert candles_before(config, 'BTC/USD', 60, candles[0].start_ms) == []
    store = open_feature_store(config)
    group = open_group(store, 'candles')
    group.insert(candles[:2400])
    group.flush()
    store.close()
    found = candles_before(
        config, 'BTC/USD', interval_seconds=60, before_ms=candles[2500].start_ms, behind=candles[2300:]
    )
    assert found == candles[1000:2500]
    again = Indicators('BTC/USD', 60, found)
    assert [again.update(c) for c in candles[2500:2600]] == vectors[2500:2600]


def test_a_revision_tells_all_features_that_it_changes():
    from msgspec import structs

    candles = walk(300, 5)
    late = structs.replace(
        candles[290], revision=1, close=candles[290].high, available_ms=candles[292].available_ms + 7
    )
    true = [*candles[:290], late, *candles[291:]]
    told = {}
    step = IndicatorStep(lambda first, *place: [])
    stream = [*candles[:293], late, *candles[293:]]
    for out in step.take(
        [
            Received(key=c.symbol, value=encode(c), topic='candles', partition=0, offset=i)
            for i, c in enumerate(stream)
        ]
    ):
        x = decode(out.topic, out.value)
        assert x.start_ms not in told or x.revision > told[x.start_ms].revision
        told[x.start_ms] = x
    assert [told[c.start_ms].values for c in true] == [x.values for x in indicators_of(true)]
    assert [told[c.start_ms].revision for c in true[288:]] == [0, 0, 1, 1, 1, *[0] * 7]
    assert told[candles[292].start_ms].available_ms == late.available_ms
