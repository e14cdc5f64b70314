"""Behind the join, on the bus's loop: nothing that waits is committed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from crypto_rt.bus.deaths import Deaths
from crypto_rt.bus.service import Service, send_due, take_partition
from crypto_rt.bus.steps import Batch, Out, Received
from crypto_rt.core.messages import End, decode, encode
from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.features.vectors import oldest_ms
from crypto_rt.services.context import ContextJoin, ContextRow, JoinedStep
from crypto_rt.services.predictions import Champions, Closes, PredictionStep
from tests.features.test_vectors import START, row
from tests.services.builders import Clock, led, message


def test_a_prediction_says_that_the_leader_was_late() -> None:
    settings, clock = Settings(), Clock()
    closes = {START + n * 60_000: 100 + n % 7 for n in range(600)}
    join = led(live=True, patience_seconds=2.0, clock=clock)
    step = JoinedStep(
        'predictions',
        join,
        PredictionStep(settings, Closes(settings, lambda *_: closes), Champions(lambda *_: None)),
    )
    assert step.take([message(row(599, 'ETH/USD'))]) == []
    clock.seconds = 2.0
    (first,) = step.due()
    join.hear([message(row(600)), message(row(598, late_ms=0))])
    (second,) = step.take([message(row(600, 'ETH/USD'), 1)])
    assert [decode('predictions', out.value).flags for out in (first, second)] == [['leader_late'], []]
    assert step.counts == {'predictions': 2, 'abstained': 0, 'late': 1, 'dead_letters': 0}
    assert oldest_ms(60) == 300_000


class Loop:
    "A service without a broker: what it sends and up to where it would commit."

    def __init__(self, step: Any, folder: Path):
        self.sent: list[tuple[str, Any, str]] = []
        self.committed: dict[int, int] = {}
        producer = SimpleNamespace(
            produce=lambda topic, value, key, partition=None: self.sent.append((topic, value, key)),
            flush=lambda: None,
        )
        offsets = SimpleNamespace(store_offset=self.store)
        topic = SimpleNamespace(error=None, partitions={0: None})
        consumer = SimpleNamespace(
            list_topics=lambda name, timeout: SimpleNamespace(topics={name: topic}),
        )
        self.service = Service.__new__(Service)
        self.service.__dict__.update(
            settings=load_settings('/dev/null', env={}),
            name='predictions',
            inputs=['technical_indicators'],
            outputs=['predictions'],
            step=step,
            stored={},
            last={},
            ended={},
            passed=set(),
            awaits=1,
            taken=0,
            held_back=False,
            refused=0,
            set_aside=0,
            deaths=Deaths(folder, 'predictions'),
            app=SimpleNamespace(_producer=producer, _processing_context=offsets, _consumer=consumer),
        )

    def store(self, topic: str, partition: int, offset: int) -> None:
        self.committed[partition] = offset

    def take(self, messages: Sequence[Received]) -> None:
        def run(part: Sequence[Received], *_: object) -> None:
            self.sent += [(out.topic, out.value, out.key) for out in self.service.step.take(part)]

        values = [m.value for m in messages]
        batch = Batch('technical_indicators', 0, list(map(FromClient, messages)), values)
        take_partition(self.service, run, batch)

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _, _ in self.sent]


class FromClient:
    "What a `Batch` asks of a message of Kafka's client."

    def __init__(self, received: Received):
        self.received = received

    def key(self) -> bytes:
        return self.received.key.encode()

    def offset(self) -> int:
        return self.received.offset


class Echo:
    "A step that sends each row on."

    counts: dict[str, int] = {}

    def take(self, rows: Sequence[ContextRow]) -> list[Out]:
        return [Out('predictions', r.features.symbol, b'%d' % r.offset) for r in rows]


def test_nothing_that_waits_is_committed_and_the_end_waits_too(tmp_path: Path) -> None:
    "The marker of a run that ended is passed on after the last of its rows, and only then committed."
    join = led(clock=Clock())
    loop = Loop(JoinedStep('predictions', join, Echo()), tmp_path)
    rows = [message(row(n, 'ETH/USD'), offset=n) for n in range(4)]
    end = message(row(4), offset=4)._replace(value=encode(End('run-1')))
    loop.take([*rows, end])
    assert loop.sent == [] and loop.committed.get(0, -1) < 0
    join.hear([message(row(1))])
    send_due(loop.service)
    assert [value for _, value, _ in loop.sent] == [b'0', b'1'] and loop.committed[0] == 1
    assert loop.service.passed == set()
    join.hear([message(row(5))])
    send_due(loop.service)
    assert loop.topics == ['predictions'] * 5 + ['service_events'] and loop.service.passed == {'run-1'}
    assert decode('predictions', loop.sent[4][1]) == End('run-1')
    assert loop.committed[0] == 4
    send_due(loop.service)
    assert loop.topics.count('service_events') == 1


def test_a_run_without_waiting_rows_ends_at_once(tmp_path: Path) -> None:
    loop = Loop(JoinedStep('predictions', ContextJoin(), Echo()), tmp_path)
    end = message(row(4), offset=1)._replace(value=encode(End('run-1')))
    loop.take([message(row(0, 'ETH/USD')), end])
    assert loop.topics == ['predictions', 'predictions', 'service_events'] and loop.committed[0] == 1
    assert decode('predictions', loop.sent[1][1]) == End('run-1')
