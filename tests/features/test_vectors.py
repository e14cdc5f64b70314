"""The leader joined to a candle: one row at a time and many at once, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.core.messages import TechnicalIndicators
from crypto_rt.features.news_features import NEWS_NAMES
from crypto_rt.features.vectors import (
    CONTEXT,
    LEADER,
    NEWEST,
    FeatureRows,
    leader_columns,
    vector_names,
    vector_of,
)
from tests.repeat import many

START = 1_722_470_400_000
NAMES = [feature.name for feature in CONTEXT if feature.family == 'leader']
QUIET = dict.fromkeys(NEWS_NAMES)  # what nobody listened to


def row(
    n: int, symbol: str = 'BTC/USD', interval: int = 60, late_ms: int = 2000, **other: object
) -> TechnicalIndicators:
    at = START + n * interval * 1000
    fields = dict(
        symbol=symbol,
        interval_seconds=interval,
        start_ms=at,
        revision=0,
        end_ms=at + interval * 1000,
        close=100.0,
        warm_up=0,
        values={name: n + place / 7 for place, name in enumerate(LEADER)},
        feature_set='core-v1',
        is_partial=False,
        available_ms=at + interval * 1000 + late_ms,
    )
    return TechnicalIndicators(**fields | other)


@st.composite
def leaders(draw: st.DrawFn) -> tuple[int, list[TechnicalIndicators]]:
    "Draw an interval and rows with holes, revisions, late, partial and null ones, in any order."
    interval = draw(st.sampled_from([1, 5, 60, 300]))
    late = st.sampled_from([0, 1, 2000, interval * 1000 - 1, interval * 1000]) | st.integers(
        0, 8 * interval * 1000
    )
    value = st.none() | st.floats(-1e9, 1e9)
    drawn = st.tuples(
        st.integers(0, 25),
        st.integers(0, 3),
        late,
        st.booleans() | st.just(False),
        st.tuples(*[value] * len(LEADER)),
    )
    rows = draw(st.lists(drawn, max_size=40, unique_by=lambda r: r[:2]))
    return interval, [
        row(
            n,
            interval=interval,
            late_ms=late,
            revision=revision,
            is_partial=partial,
            values=dict(zip(LEADER, values, strict=True)),
        )
        for n, revision, late, partial, values in rows
    ]


def frame_of(rows: Sequence[TechnicalIndicators]) -> pd.DataFrame:
    "Return rows as the store gives them."
    fields = ['start_ms', 'revision', 'end_ms', 'available_ms', 'is_partial']
    made = [[*(getattr(r, name) for name in fields), *(r.values[name] for name in LEADER)] for r in rows]
    return pd.DataFrame(made, columns=[*fields, *LEADER]).astype(dict.fromkeys(LEADER, 'float64'))


def defined(x: TechnicalIndicators, rows: Sequence[TechnicalIndicators]) -> dict[str, float | None]:
    "Return the leader's features by the definition, read aloud."
    known = [r for r in rows if r.available_ms <= x.end_ms]
    vector = vector_of(x, max(known, key=lambda r: (r.start_ms, r.revision), default=None), ())
    return {name: vector[name] for name in NAMES}


def bits(values: Sequence[float | None]) -> bytes:
    return np.array([np.nan if value is None else value for value in values], 'float64').tobytes()


@hypothesis_settings(max_examples=many(300))
@given(leaders(), st.sets(st.integers(0, 40), min_size=1, max_size=20))
def test_many_at_once_are_each_alone_bit_for_bit(
    drawn: tuple[int, list[TechnicalIndicators]], places: set[int]
) -> None:
    interval, rows = drawn
    own = [row(n, 'ETH/USD', interval) for n in sorted(places)]
    found = leader_columns(
        pd.DataFrame({'start_ms': [x.start_ms for x in own]}, index=[2 * n for n in range(len(own))]),
        interval,
        frame_of(rows),
    )
    assert list(found.columns) == NAMES and list(found.index) == [2 * n for n in range(len(own))]
    for x, values in zip(own, found.itertuples(index=False), strict=True):
        assert bits(values) == bits(list(defined(x, rows).values()))


@given(leaders(), st.integers(0, 40))
def test_the_order_of_arrival_and_repeats_change_nothing(
    drawn: tuple[int, list[TechnicalIndicators]], place: int
) -> None:
    interval, rows = drawn
    kept, x = FeatureRows(), row(place, 'ETH/USD', interval)
    for r in [*rows, *reversed(rows)]:
        kept.take(r)
    assert vector_of(x, kept.as_of(x.end_ms), ()) == {**x.values, **defined(x, rows), **QUIET}


@given(leaders(), st.integers(0, 25))
def test_what_becomes_known_later_changes_no_vector(
    drawn: tuple[int, list[TechnicalIndicators]], place: int
) -> None:
    interval, rows = drawn
    x = row(place, 'ETH/USD', interval)
    candles = pd.DataFrame({'start_ms': [x.start_ms]})
    known = [r for r in rows if r.available_ms <= x.end_ms]
    pd.testing.assert_frame_equal(
        leader_columns(candles, interval, frame_of(rows)), leader_columns(candles, interval, frame_of(known))
    )


def test_no_leader_is_null() -> None:
    candles = pd.DataFrame({'start_ms': [START, START + 60_000]})
    for rows in (None, frame_of([])):
        assert leader_columns(candles, 60, rows).isna().all(axis=None)
    assert set(NAMES) <= set(vector_names(NEWEST))
