"""The join of rows and leader: live, late, in a replay, after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import TechnicalIndicators
from crypto_rt.core.settings import Settings
from crypto_rt.features.vectors import FeatureRows, vector_of
from crypto_rt.services import context_input
from crypto_rt.services.context import ContextJoin
from crypto_rt.services.context_input import rows_behind
from tests.features.test_vectors import NAMES, QUIET, START, defined, leaders, row
from tests.repeat import many
from tests.services.builders import Clock, complete, led, message, vector_and_late

# --- the leader


@hypothesis_settings(max_examples=many(60))
@given(leaders(), st.integers(0, 39), st.integers(0, 40))
def test_a_restart_anywhere_gives_the_same_vectors(
    drawn: tuple[int, list[TechnicalIndicators]], cut: int, first: int
) -> None:
    "The one that never stopped heard all of it; the other fetches what lay before, and hears some of that again."
    interval, rows = drawn
    rows = [*rows, row(60, interval=interval)]  # so that nothing is waited for
    own = [row(n, 'ETH/USD', interval) for n in range(first, 41)]
    never, again = led(), led(lambda seconds, since_ms: [r for r in rows[:cut] if r.start_ms >= since_ms])
    never.hear(list(map(message, rows)))
    again.hear(list(map(message, rows[max(0, cut - 2) :])))
    for x in own:
        expected = ({**x.values, **defined(x, rows), **QUIET}, [])
        assert vector_and_late(again, x) == vector_and_late(never, x) == expected


@hypothesis_settings(max_examples=many(100))
@given(leaders(), st.data())
def test_rows_that_wait_get_the_vectors_of_rows_that_come_last(
    drawn: tuple[int, list[TechnicalIndicators]], data: st.DataObject
) -> None:
    "However the two inputs are interleaved, each row gives the vector of the definition, in order, and once."
    interval, rows = drawn
    by_instant = {r.available_ms: r for r in [*rows, row(60, interval=interval)]}
    rows = [by_instant[at] for at in sorted(by_instant)]  # the topic has them as they became known
    own = [message(row(n, 'ETH/USD', interval), n) for n in range(0, 41, 3)]
    leader = [message(r) for r in rows]
    join, found = led(clock=Clock()), []
    for from_leader in data.draw(st.permutations([True] * len(leader) + [False] * len(own))):
        if from_leader:
            join.hear([leader.pop(0)])
        else:
            join.offer(own.pop(0))
        found += join.ready()
        left = join.open_from(0)
        assert left is None or all(r.offset < left for r in found)
    assert [r.offset for r in found] == list(range(0, 41, 3)) and join.waiting == 0
    for r in found:
        x = r.features
        assert (r.vector, r.late) == ({**x.values, **defined(x, rows), **QUIET}, [])


def test_what_was_forgotten_is_fetched_again() -> None:
    rows, asked = [row(n) for n in range(40)], []

    def earlier(seconds: int, since_ms: int) -> list[TechnicalIndicators]:
        asked.append((since_ms - START) // 60_000)
        return [r for r in rows if r.start_ms >= since_ms]

    join = led(earlier)
    join.leader.rows[60] = FeatureRows(keep=2)
    for n in (30, 39, 20, 21, 38):
        x = row(n, 'ETH/USD')
        join.hear(list(map(message, rows[: n + 1] if n < 39 else rows)))
        assert vector_and_late(join, x) == ({**x.values, **defined(x, rows), **QUIET}, [])
    assert asked == [25, 15]


def test_after_missed_messages_the_past_is_fetched_again() -> None:
    asked = []
    join = led(lambda seconds, since_ms: asked.append(since_ms) or [row(9), row(10)])
    for _ in range(2):
        assert len(complete(join, row(10, 'ETH/USD'))) == 1
    join.hear(None)
    assert len(complete(join, row(10, 'ETH/USD'))) == 1
    assert asked == [row(4).start_ms + 60_000] * 2


def test_a_leader_that_is_far_ahead_is_not_forgotten() -> None:
    "As in a fast replay; and what the slowest symbol has passed is."
    rows, join = [row(n) for n in range(300)], led()
    kept = join.leader.rows[60] = FeatureRows(keep=20)
    join.hear(list(map(message, rows[:200])))
    for n in range(10, 150):
        x = row(n, 'ETH/USD')
        assert vector_and_late(join, x) == ({**x.values, **defined(x, rows), **QUIET}, [])
    join.hear(list(map(message, rows[200:])))
    join.ready()
    assert kept.keys[0][0] == row(144).start_ms and len(kept.rows) == len(kept.keys) == 156


def test_rows_that_wait_keep_what_they_need_of_the_leader() -> None:
    "A hundred rows are offered at once; those behind must not let go of what the first one needs."
    rows, join = [row(n) for n in range(300)], led(clock=Clock())
    join.leader.rows[60] = FeatureRows(keep=20)
    for n in range(10, 110):
        join.offer(message(row(n, 'ETH/USD'), n))
    assert join.ready() == [] and join.open_from(0) == 10
    join.hear(list(map(message, rows)))
    found = join.ready()
    assert [r.offset for r in found] == [*range(10, 110)]
    for r in found:
        assert r.vector == {**r.features.values, **defined(r.features, rows), **QUIET}


def test_the_leader_itself_and_a_run_without_it_wait_for_nothing() -> None:
    for join, symbol in ((led(), 'BTC/USD'), (ContextJoin(), 'ETH/USD')):
        x = row(3, symbol)
        assert vector_and_late(join, x) == (vector_of(x, None, ()) | QUIET, [])


def test_other_topics_intervals_and_rubbish_do_not_disturb() -> None:
    join = led(live=True, patience_seconds=2.0, clock=Clock())
    join.hear(
        [
            message(row(9))._replace(topic='candles'),
            message(row(9, interval=300)),
            message(row(9))._replace(value=b'[]'),
            message(row(9, 'ETH/USD')),
        ]
    )
    assert complete(join, row(9, 'ETH/USD')) == []


# --- how long


def test_live_each_candle_waits_as_long_and_says_so() -> None:
    clock = Clock()
    join = led(live=True, patience_seconds=2.0, clock=clock)
    join.hear([message(row(2))])
    for n in (3, 4):
        began = clock.seconds
        assert complete(join, row(n, 'ETH/USD'), n) == []
        clock.seconds = began + 1.9
        assert join.ready() == [] and join.waiting == 1
        clock.seconds = began + 2.0
        (found,) = join.ready()
        assert found.late == ['leader_late'] and all(found.vector[name] is None for name in NAMES)
    (again,) = complete(join, row(4, 'ETH/USD'), 5)  # its revision: that candle has waited
    assert again.late == ['leader_late']
    join.hear([message(row(5))])
    assert vector_and_late(join, row(5, 'ETH/USD')) == (vector_of(row(5, 'ETH/USD'), row(2), ()) | QUIET, [])


def test_live_rows_wait_beside_each_other() -> None:
    "Ten symbols behind a leader that is gone are late by one patience, not by ten."
    clock = Clock()
    join = led(live=True, patience_seconds=2.0, clock=clock)
    for n in range(10):
        join.offer(message(row(3, f'S{n}/USD'), n))
    assert join.ready() == []
    clock.seconds = 2.0
    assert [r.late for r in join.ready()] == [['leader_late']] * 10


def test_a_replay_waits_once_for_each_standstill_of_the_leader() -> None:
    clock = Clock()
    join, waited = led(clock=clock), []
    for n, arrives in ((3, 1), (4, None), (5, None), (6, 5), (7, None)):
        if arrives:
            join.hear([message(row(arrives))])
        found = complete(join, row(n, 'ETH/USD'), n)
        waited.append(not found)
        if not found:
            clock.seconds += 59.9
            assert join.ready() == []
            clock.seconds += 0.2
            found = join.ready()
        assert [r.late for r in found] == [['leader_late']]
    assert waited == [True, False, False, True, False]


def test_a_replay_gives_nothing_up_while_the_leader_moves() -> None:
    clock = Clock()
    join, rows = led(clock=clock), [row(n) for n in range(50)]
    for n in range(40):
        join.offer(message(row(n, 'ETH/USD'), n))
    found = []
    for r in rows:
        clock.seconds += 50.0
        join.hear([message(r)])
        found += join.ready()
    assert [r.late for r in found] == [[]] * 40
    assert all(r.vector == {**r.features.values, **defined(r.features, rows), **QUIET} for r in found)


def test_what_arrives_while_waiting_is_used() -> None:
    clock = Clock()
    join = led(clock=clock)
    join.hear([message(row(4))])
    assert complete(join, row(5, 'ETH/USD')) == []
    clock.seconds = 50.0
    join.hear([message(row(5, revision=1)), message(row(5))])
    (found,) = join.ready()
    assert (found.vector, found.late) == (vector_of(row(5, 'ETH/USD'), row(4), ()) | QUIET, [])


def test_partitions_do_not_wait_for_each_other_and_one_that_left_is_dropped() -> None:
    join = led(clock=Clock())
    join.offer(message(row(5, 'ETH/USD'), 7, partition=0))
    join.offer(message(row(5), 3, partition=1))  # the leader itself
    join.offer(message(row(6, 'ETH/USD'), 8, partition=0))
    assert [(r.partition, r.offset, r.begun) for r in join.ready()] == [(1, 3, 3)]
    assert join.open_from(0) == 7 and join.open_from(1) is None
    join.forget(0)
    assert join.open_from(0) is None and join.waiting == 0
    join.hear([message(row(8))])
    (again,) = complete(join, row(5, 'ETH/USD'), 7)
    assert (again.offset, again.begun) == (7, 7)


def test_what_lies_behind_is_read_once_whole_though_the_topic_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    "A tail that reaches the beginning ends the search, even when each look finds more than the one before."
    looks: list[int] = []

    def tail(settings: Settings, topic: str, count: int) -> list[Received]:
        looks.append(count)
        assert len(looks) < 5, 'it reads for ever'
        return [message(row(n)) for n in range(460 + len(looks))][-count:]

    monkeypatch.setattr(context_input, 'tail', tail)
    settings = Settings()
    assert [r.start_ms for r in rows_behind(settings, 'BTC/USD', 60, START)] == [
        row(n).start_ms for n in range(462)
    ]
    assert looks == [500, 2000]
    assert len(rows_behind(settings, 'BTC/USD', 60, row(455).start_ms)) == 463 and len(looks) == 3
