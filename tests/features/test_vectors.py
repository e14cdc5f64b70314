"""The leader joined to a candle: one row at a time, many at once, live, late, and after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import NewsSignal, NewsWatermark, TechnicalIndicators, decode, encode
from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.features.news_features import NEWS_NAMES, news_features
from crypto_rt.features.vectors import (
    CONTEXT,
    LEADER,
    NEWEST,
    FeatureRows,
    leader_columns,
    oldest_ms,
    vector_names,
    vector_of,
)
from crypto_rt.services import context
from crypto_rt.services.context import ContextReader, rows_behind
from crypto_rt.services.predictions import Champions, Closes, PredictionStep

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


@hypothesis_settings(max_examples=300)
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


# --- live


def message(x: TechnicalIndicators) -> Received:
    return Received(key=x.symbol, value=encode(x), topic='technical_indicators', partition=0, offset=0)


def patient(**features: object) -> Settings:
    return load_settings('/dev/null', env={}, data={'symbols': 'BTC/USD,ETH/USD'}, features=features)


@hypothesis_settings(max_examples=60)
@given(leaders(), st.integers(0, 39), st.integers(0, 40))
def test_a_restart_anywhere_gives_the_same_vectors(
    drawn: tuple[int, list[TechnicalIndicators]], cut: int, first: int
) -> None:
    "The one that never stopped heard all of it; the other fetches what lay before, and hears some of that again."
    interval, rows = drawn
    rows = [*rows, row(60, interval=interval)]  # so that nothing is waited for
    own = [row(n, 'ETH/USD', interval) for n in range(first, 41)]
    never, again = (
        ContextReader(patient()),
        ContextReader(patient(), lambda seconds, since_ms: [r for r in rows[:cut] if r.start_ms >= since_ms]),
    )
    never.take(map(message, rows))
    again.take(map(message, rows[max(0, cut - 2) :]))
    for x in own:
        assert again.vector(x) == never.vector(x) == ({**x.values, **defined(x, rows), **QUIET}, [])


def test_what_was_forgotten_is_fetched_again() -> None:
    rows, asked = [row(n) for n in range(40)], []

    def earlier(seconds: int, since_ms: int) -> list[TechnicalIndicators]:
        asked.append((since_ms - START) // 60_000)
        return [r for r in rows if r.start_ms >= since_ms]

    outside = ContextReader(patient(), earlier)
    outside.rows[60] = FeatureRows(keep=2)
    for n in (30, 39, 20, 21, 38):
        x = row(n, 'ETH/USD')
        outside.take(map(message, rows[: n + 1] if n < 39 else rows))
        assert outside.vector(x) == ({**x.values, **defined(x, rows), **QUIET}, [])
    assert asked == [25, 15]


def test_a_leader_that_is_far_ahead_is_not_forgotten() -> None:
    "As in a fast replay; and what the slowest symbol has passed is."
    rows, outside = [row(n) for n in range(300)], ContextReader(patient())
    outside.rows[60] = FeatureRows(keep=20)
    outside.take(map(message, rows[:200]))
    for n in range(10, 150):
        assert outside.vector(row(n, 'ETH/USD')) == (
            {**row(n, 'ETH/USD').values, **defined(row(n, 'ETH/USD'), rows), **QUIET},
            [],
        )
    outside.take(map(message, rows[200:]))
    assert (
        outside.rows[60].keys[0][0] == row(144).start_ms
        and len(outside.rows[60].rows) == len(outside.rows[60].keys) == 156
    )


def test_the_leader_itself_and_a_run_without_it_wait_for_nothing() -> None:
    alone = load_settings('/dev/null', env={}, data={'symbols': 'ETH/USD'})
    for settings, symbol in ((patient(), 'BTC/USD'), (alone, 'ETH/USD')):
        began, x = time.monotonic(), row(3, symbol)
        assert ContextReader(settings).vector(x) == (vector_of(x, None, ()), [])
        assert time.monotonic() - began < 1


def test_live_each_candle_waits_and_says_so() -> None:
    outside = ContextReader(patient(wait_ms=40), live=True)
    outside.take([message(row(2))])
    for n in (3, 4):
        began = time.monotonic()
        vector, flags = outside.vector(row(n, 'ETH/USD'))
        assert flags == ['leader_late'] and time.monotonic() - began >= 0.03
        assert all(vector[name] is None for name in NAMES)
    began = time.monotonic()
    assert (
        outside.vector(row(4, 'ETH/USD'))[1] == ['leader_late'] and time.monotonic() - began < 0.03
    )  # asked again: that candle has waited
    outside.take([message(row(5))])
    assert outside.vector(row(5, 'ETH/USD')) == (vector_of(row(5, 'ETH/USD'), row(2), ()), [])


def test_a_replay_waits_once_for_each_stop_of_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, 'PATIENCE_SECONDS', 0.05)
    outside, waited = ContextReader(patient()), []
    for n, arrives in ((3, 1), (4, None), (5, None), (6, 5), (7, None)):
        if arrives:
            outside.take([message(row(arrives))])
        began = time.monotonic()
        assert outside.vector(row(n, 'ETH/USD'))[1] == ['leader_late']
        waited.append(time.monotonic() - began >= 0.04)
    assert waited == [True, False, False, True, False]


def test_what_arrives_while_waiting_is_used() -> None:
    outside = ContextReader(patient())
    outside.take([message(row(4))])
    threading.Timer(0.05, lambda: outside.take([message(row(5, revision=1)), message(row(5))])).start()
    began = time.monotonic()
    assert outside.vector(row(5, 'ETH/USD')) == (
        vector_of(row(5, 'ETH/USD'), row(4), ()),
        [],
    )  # which may rely on it now
    assert 0.03 < time.monotonic() - began < 5


def test_other_topics_intervals_and_rubbish_do_not_disturb() -> None:
    outside = ContextReader(patient(wait_ms=20), live=True)
    outside.take(
        [
            message(row(9))._replace(topic='candles'),
            message(row(9, interval=300)),
            message(row(9))._replace(value=b'[]'),
            message(row(9, 'ETH/USD')),
        ]
    )
    assert outside.vector(row(9, 'ETH/USD'))[1] == ['leader_late']


def test_a_prediction_says_that_the_leader_was_late() -> None:
    settings = patient(wait_ms=20)
    closes = {START + n * 60_000: 100 + n % 7 for n in range(600)}
    outside = ContextReader(settings, live=True)
    step = PredictionStep(
        settings, Closes(settings, lambda *_: closes), Champions(lambda *_: None), outside=outside
    )
    late, whole = row(599, 'ETH/USD'), row(600, 'ETH/USD')
    (first,) = step.take([message(late)])
    outside.take([message(row(600)), message(row(598, late_ms=0))])
    (second,) = step.take([message(whole)._replace(offset=1)])
    assert [decode('predictions', out.value).flags for out in (first, second)] == [['leader_late'], []]
    assert step.counts['late'] == 1
    assert oldest_ms(60) == 300_000


# --- news


def story(
    n: int, score: float, known: int, scorer: str = 'head', assets: tuple[str, ...] = ('BTC',)
) -> NewsSignal:
    label = 'positive' if score > 0 else 'negative' if score < 0 else 'neutral'
    return NewsSignal(
        news_id=f'n{n}',
        scorer=scorer,
        version='1',
        assets=list(assets),
        score=score,
        label=label,
        confidence=0.5,
        text_hash='f',
        published_ms=START + known,
        available_ms=START + known,
    )


stories = st.lists(
    st.builds(
        story,
        st.integers(0, 8),
        st.sampled_from([-1.0, -0.25, 0.0, 0.5]),
        st.integers(0, 3_000_000),
        st.sampled_from(['head', 'vader']),
    ),
    max_size=20,
)


@hypothesis_settings(max_examples=60)
@given(stories, st.integers(0, 20), st.integers(1, 40))
def test_news_are_the_same_after_a_restart_and_as_of_the_end_of_the_candle(
    told: list[NewsSignal], cut: int, place: int
) -> None:
    x = row(place)
    mark = NewsWatermark(START + 10_000_000)
    never, again = (
        ContextReader(patient(), archive=lambda since_ms, known=known: known) for known in ([], told[:cut])
    )
    never.take(
        Received(key='', value=encode(m), topic='news_signals', partition=0, offset=0) for m in [*told, mark]
    )
    again.take(
        Received(key='', value=encode(m), topic='news_signals', partition=0, offset=0)
        for m in [*told[max(0, cut - 2) :], mark]
    )
    first: dict[str, NewsSignal] = {}
    for s in sorted((s for s in told if s.scorer == 'head'), key=lambda s: s.available_ms):
        first.setdefault(s.news_id, s)
    early = [s for s in first.values() if s.available_ms <= x.end_ms]
    vector, late = never.vector(x)
    assert (vector, late) == again.vector(x) and not late
    assert {name: vector[name] for name in NEWS_NAMES} == news_features(early, 'BTC', x.end_ms)


def test_news_that_are_waited_for_in_vain_are_null_and_say_so() -> None:
    outside = ContextReader(patient(wait_ms=30), live=True, archive=lambda since_ms: [story(1, 0.5, 0)])
    outside.take(
        [
            Received(
                key='',
                value=encode(NewsWatermark(row(4).end_ms)),
                topic='news_signals',
                partition=0,
                offset=0,
            )
        ]
    )
    heard, missed = outside.vector(row(4)), outside.vector(row(5))
    assert heard[1] == [] and heard[0]['news_count_1h'] > 0
    assert missed[1] == ['news_late'] and all(missed[0][name] is None for name in NEWS_NAMES)


def test_what_lies_behind_is_read_once_whole_though_the_topic_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    "A tail that reaches the beginning ends the search, even when each look finds more than the one before."
    looks: list[int] = []

    def tail(settings: Settings, topic: str, count: int) -> list[Received]:
        looks.append(count)
        assert len(looks) < 5, 'it reads for ever'
        return [message(row(n)) for n in range(460 + len(looks))][-count:]

    monkeypatch.setattr(context, 'tail', tail)
    assert [r.start_ms for r in rows_behind(patient(), 'BTC/USD', 60, START)] == [
        row(n).start_ms for n in range(462)
    ]
    assert looks == [500, 2000]
    assert len(rows_behind(patient(), 'BTC/USD', 60, row(455).start_ms)) == 463 and len(looks) == 3
