"""A message that kills its service: three deaths, then it is set aside and the rest comes; an outage blames nobody."""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from crypto_rt.bus.deaths import DEATHS, Deaths, Record
from crypto_rt.bus.reading import tail
from crypto_rt.bus.sending import open_producer
from crypto_rt.bus.service import send_due
from crypto_rt.bus.steps import Out
from crypto_rt.bus.topics import ensure_topics, log_ids
from crypto_rt.core.compose import Spec
from crypto_rt.core.messages import decode
from crypto_rt.core.settings import Settings, load_settings, to_env
from crypto_rt.core.supervisor import Supervisor
from tests.services.fuzzing import Message, Wired

BUGGY = """
import logging, os, sys
from pathlib import Path
from crypto_rt.bus.service import run_service
from crypto_rt.bus.steps import Out
from crypto_rt.core.settings import load_settings

settings = load_settings()

class Buggy:
    'Passes numbers on; some are too much for it.'
    def take(self, messages):
        for m in messages:
            number = m.value.decode()
            with (Path(settings.data.directory) / 'met').open('a') as met:
                met.write(number + '\\n')
            how = HOW.get(number)
            if how == 'raises': {}[number]
            if how == 'aborts': os.abort()
            if how == 'outage' and (Path(settings.data.directory) / 'met').read_text().split().count(number) < 6:
                raise ConnectionError('no store')
            yield Out('candles', m.key, m.value)
    def open_from(self, topic, partition):
        return None

logging.basicConfig(level='WARNING', format='%(levelname)s %(message)s')
run_service(settings, 'buggy', ['trades'], ['candles', 'dead_letters'], Buggy())
"""


@pytest.fixture
def settings(kafka_broker: str, tmp_path: Path) -> Settings:
    kafka = dict(
        broker=kafka_broker, topic_prefix=f't{uuid.uuid4().hex[:8]}.', session_timeout_ms=1000, batch=50
    )
    return load_settings('/dev/null', env={}, kafka=kafka, data=dict(directory=str(tmp_path)))


def supervised(
    settings: Settings, tmp_path: Path, how: dict[str, str], count: int, give_up: int = DEATHS + 1
) -> Supervisor:
    "Run the buggy service over `count` numbers until all that can come has come; return its supervisor, stopped."
    script = tmp_path / 'buggy.py'
    script.write_text(f'HOW = {how!r}\n{BUGGY}')
    ensure_topics(settings)
    producer = open_producer(settings)
    for n in range(count):
        producer.send('trades', 'A/B', b'%d' % n)
    producer.flush()
    env = {**to_env(settings), 'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(Path(__file__).parents[2])}
    plan = [Spec('buggy', f'{sys.executable} {script}')]
    supervisor = Supervisor(plan, env, {}, tmp_path / 'logs', pauses=(0.1,), give_up=give_up, echo=False)
    deadline = time.monotonic() + 240
    try:
        expected = {str(n) for n in range(count)} - {n for n, what in how.items() if what != 'outage'}
        while expected - {m.value.decode() for m in tail(settings, 'candles', 10 * count)}:
            assert supervisor.failure is None, supervisor.failure
            assert time.monotonic() < deadline, (tmp_path / 'logs' / 'buggy.log').read_text()[-3000:]
            for _ in range(5):
                supervisor.step()
    finally:
        supervisor.stop()
    return supervisor


def letters(settings: Settings) -> dict[str, Any]:
    found = [decode('dead_letters', m.value) for m in tail(settings, 'dead_letters', 1000)]
    return {letter.id: letter for letter in found}


def record_of(settings: Settings, tmp_path: Path) -> Record:
    "Return what the lives of the buggy service left to the next one, which reads the same logs."
    return Deaths(tmp_path / 'deaths', 'buggy', log_ids(settings, ['trades'])).record


@pytest.mark.parametrize(('what', 'bad'), [('raises', ('40', '41')), ('aborts', ('40',))])
def test_three_deaths_at_a_message_set_it_aside(settings, tmp_path, what, bad):
    supervisor = supervised(settings, tmp_path, dict.fromkeys(bad, what), 100)
    met = (tmp_path / 'met').read_text().split()
    assert all(DEATHS <= met.count(number) <= DEATHS + 1 for number in bad), met
    assert len(supervisor.fallen) == DEATHS * len(bad) + 1, supervisor.fallen  # the first one was in a batch
    (partition,) = {m.partition for m in tail(settings, 'trades', 100)}
    found = letters(settings)
    assert set(found) == {f'buggy/trades/{partition}/{n}' for n in bad}
    for letter in found.values():
        assert letter.deaths == DEATHS and 'killed the service 3 times' in letter.reason
        assert ('KeyError' in letter.reason) == (what == 'raises')
    log = (tmp_path / 'logs' / 'buggy.log').read_text()
    assert f'ERROR message set aside: trades/{partition}/40' in log
    events = [decode('service_events', m.value) for m in tail(settings, 'service_events', 100)]
    assert sum(event.counts['set_aside'] for event in events if event.kind == 'counts') >= len(bad)
    record = record_of(settings, tmp_path)
    assert [each.message.first for each in record.aside] == [int(number) for number in bad]
    assert not record.deaths


class Waits:
    "A step behind a join: each row is looked at three times before it goes; some are too much for it."

    def __init__(self, bad: set[bytes]):
        self.bad, self.rows, self.gone = bad, list[list[Any]](), list[bytes]()

    def take(self, messages: Any) -> list[Out]:
        self.rows += [[m, 3] for m in messages]
        return self.due()

    def due(self) -> list[Out]:
        for row in self.rows:
            row[1] -= 1
        while self.rows and self.rows[0][1] <= 0:
            if self.rows[0][0].value in self.bad:
                raise KeyError(self.rows[0][0].value)
            self.gone.append(self.rows.pop(0)[0].value)
        return []

    def open_from(self, topic: str, partition: int) -> int | None:
        return self.rows[0][0].offset if self.rows else None

    @property
    def waiting(self) -> int:
        return len(self.rows)


def test_a_row_that_waited_is_found_out(tmp_path):
    values = [b'%d' % n for n in range(100)]
    messages = [Message('trades', at, b'A/B', value) for at, value in enumerate(values)]
    for life in range(1, 20):  # noqa: B007
        service = Wired('waits', step := Waits({b'40', b'77'}), tmp_path)
        try:
            service.run(messages)
            while step.waiting:
                send_due(service)
            break
        except KeyError:
            continue
        finally:
            service.deaths.close()
    assert step.gone == [value for value in values if value not in step.bad]
    assert life <= 2 * (DEATHS + 1) + 1, life
    letters = [decode('dead_letters', out.value) for out in service.outs if out.topic == 'dead_letters']
    assert sorted(letter.deaths for letter in letters) == [DEATHS, DEATHS]


def test_an_outage_sets_nothing_aside(settings, tmp_path):
    supervisor = supervised(settings, tmp_path, {'40': 'outage'}, 100, give_up=8)
    assert len(supervisor.fallen) == 5 and letters(settings) == {}
    assert record_of(settings, tmp_path).deaths == []
