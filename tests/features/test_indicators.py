"""Features: no look-ahead, honest warm-up, restart anywhere, a flat market, and the inputs that the table declares."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt.features.indicators import Indicators, indicators_of
from crypto_rt.features.table import ANCHOR, FEATURE_NAMES, FEATURE_SET, FEATURES, HANDLES, WARM_UP
from tests.features.builders import START, N, _wild, candle, table, walk, worst
from tests.repeat import many


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
@settings(max_examples=many(12), deadline=None)
def test_restart_anywhere_is_equal_in_every_bit(cut, length):
    candles, vectors = _wild()
    again = Indicators('BTC/USD', 60, candles[max(0, cut - 1500) : cut])
    assert [again.update(c) for c in candles[cut : cut + length]] == vectors[cut : cut + length]


@given(
    cut=st.one_of(
        st.integers(1, N - 2), st.integers(1, 5).map(lambda k: k * ANCHOR - START // 60_000 % ANCHOR)
    )
)
@settings(max_examples=many(12), deadline=None)
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
@settings(max_examples=many(60), deadline=None)
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
@settings(max_examples=many(8), deadline=None)
def test_the_future_changes_nothing(cut):
    candles, vectors = _wild()
    begin = max(0, cut - 1500)
    poison = [candle(i, 1e9, h=1e9, l=1e-3, c=1e9, v=1e9) for i in range(cut, cut + 20)]
    state = Indicators('BTC/USD', 60, candles[begin : cut - 1])
    assert state.update(candles[cut - 1]) == vectors[cut - 1]
    for c in poison:
        state.update(c)
    assert indicators_of(candles[:cut])[-1] == vectors[cut - 1]


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
