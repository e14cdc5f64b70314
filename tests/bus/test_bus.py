"""The bus on a real Kafka: micro-batches, end markers, and the recovery rule under SIGKILL."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

from crypto_rt.bus import service as bus
from crypto_rt.bus.reading import follow, tail
from crypto_rt.bus.sending import open_producer, send_end
from crypto_rt.bus.topics import ensure_topics, wait_for_broker
from crypto_rt.core.messages import decode
from crypto_rt.core.settings import load_settings, to_env

PAIRS = """
import time
from crypto_rt.bus.service import run_service
from crypto_rt.bus.steps import Out
from crypto_rt.core.settings import load_settings

class Pairs:
    'Adds numbers in pairs per partition: after an odd count one is open.'
    def __init__(self): self.first = {}
    def take(self, messages):
        time.sleep(0.002)
        for m in messages:
            first = self.first.pop(m.partition, None)
            if first is None: self.first[m.partition] = m
            else: yield Out('candles', m.key, b'%d %d' % (first.offset, int(first.value) + int(m.value)))
    def open_from(self, topic, partition):
        return self.first[partition].offset if partition in self.first else None

run_service(load_settings(), 'pairs', ['trades'], ['candles'], Pairs())
"""


@pytest.fixture
def settings(kafka_broker, tmp_path):
    prefix = f't{uuid.uuid4().hex[:8]}.'
    kafka = dict(broker=kafka_broker, topic_prefix=prefix, session_timeout_ms=1000, batch=50)
    return load_settings('/dev/null', env={}, kafka=kafka, data=dict(directory=str(tmp_path)))


def start_pairs(settings):
    env = {**os.environ, **to_env(settings)}
    return subprocess.Popen([sys.executable, '-c', PAIRS], env=env, stderr=subprocess.PIPE, text=True)


def wait_until(truth, seconds=30):
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, 'not within the time'
        time.sleep(0.05)


def test_killed_service_gives_the_outputs_of_an_unkilled_one(settings):
    count = 3001
    ensure_topics(settings)
    producer = open_producer(settings)
    for n in range(count):
        producer.send('trades', 'A/B', b'%d' % n)
    producer.flush()
    kills, run = 0, start_pairs(settings)
    while kills < 3:
        done = len(tail(settings, 'candles', count))
        wait_until(
            lambda done=done: (
                len(tail(settings, 'candles', count)) > done
                or len(tail(settings, 'candles', count)) >= count // 2
            )
        )
        run.send_signal(signal.SIGKILL)
        run.wait()
        kills += 1
        run = start_pairs(settings)
    send_end(producer, 'trades', 'run-1')
    producer.flush()

    def ended():
        events = [decode('service_events', m.value) for m in tail(settings, 'service_events', 50)]
        return any(e.kind == 'end' and e.run_id == 'run-1' for e in events)

    wait_until(ended)
    run.send_signal(signal.SIGTERM)
    assert run.wait(10) == 0, run.stderr.read()
    numbers = [
        (m.offset, int(m.value)) for m in tail(settings, 'trades', count + 1)
    ]  # one partition: one key
    assert len(numbers) == count
    expected = {
        offset: first + second
        for (offset, first), (_, second) in zip(numbers[0::2], numbers[1::2], strict=False)
    }
    outputs = {}
    for message in tail(settings, 'candles', 10 * count):
        offset, total = map(int, message.value.split())
        assert outputs.setdefault(offset, total) == total, 'a second reading gave another output'
    assert outputs == expected


def test_follow_sees_what_comes_after_the_tail(settings):
    ensure_topics(settings)
    producer, stop, seen = open_producer(settings), threading.Event(), []
    for n in range(5):
        producer.send('dead_letters', 'k', b'%d' % n)
    producer.flush()
    for batch in follow(settings, ['dead_letters'], stop, tail=2):
        seen += [m.value for m in batch]
        if seen == [b'3', b'4']:
            producer.send('dead_letters', 'k', b'5')
            producer.flush()
        if b'5' in seen:
            stop.set()
    assert seen == [b'3', b'4', b'5']


def test_topics_are_made_once_with_their_settings(settings):
    assert len(ensure_topics(settings)) == len(bus.TOPICS)
    assert ensure_topics(settings) == []


def test_unreachable_broker_is_named():
    lost = load_settings('/dev/null', env={}, kafka=dict(broker='127.0.0.1:1'))
    with pytest.raises(ConnectionError, match=r'127\.0\.0\.1:1 within'):
        wait_for_broker(lost, seconds=0.2)
