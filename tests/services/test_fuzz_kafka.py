"""The services as processes on a real Kafka: bytes that once were loops of crashes, mutants, and what is read at a start."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apps.bus_reader import bus_batches
from apps.recent import DecodedMessage, decode_message
from crypto_rt.bus.reading import messages_behind, tail
from crypto_rt.bus.sending import Producer, open_producer, send_end
from crypto_rt.bus.topics import ensure_topics
from crypto_rt.core.messages import Candle, End, NewsWatermark, ServiceEvent, decode, encode
from crypto_rt.core.settings import Settings, load_settings, to_env
from crypto_rt.services.candles import last_candles
from crypto_rt.services.candles_replay import played
from crypto_rt.services.context_input import rows_behind, signals_behind
from crypto_rt.services.news import last_mark
from crypto_rt.services.trades import read_previous_run
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.testing import START_MS
from tests.bus.mutations import STRANGER, mutants
from tests.services.fuzzing import GOOD, MINUTES, Wired, fuzzed, stream
from tests.services.test_fuzz import STEPS

MUTANTS = 10_000 if os.environ.get('CRYPTO_RT_TEST_LONG') else 300
TRADE = (
    b'{"type":"trades","symbol":"BTC/USD","trades":[{"trade_id":%d,"price":"1","quantity":"1","side":"buy","order_type":"","event_ms":%d}],'
    b'"ingest_ms":%d,"source":"live","duplicates":%d}'
)
NAMED = {  # once each of them was a loop of crashes
    'an id of 2^63': (b'BTC/USD', TRADE % (2**63, START_MS, START_MS, 0)),
    'a count of 2^63': (b'BTC/USD', TRADE % (1, START_MS, START_MS, 2**63)),
    'a key that is no UTF-8': (b'BTC\xffUSD', TRADE % (1, START_MS, START_MS, 0)),
    'a cut end marker': (b'', encode(End('run-1'))[:-3]),
    '900 kB of junk': (b'BTC/USD', b'\xff' * 900_000),
    'nothing': (None, None),
}

YEAR_MS = 365 * 86_400_000
EVENT = ServiceEvent(service='candles', kind='end', at_ms=START_MS, run_id='run-1', counts={'messages': 7})


@pytest.fixture
def settings(kafka_broker: str, tmp_path: Path) -> Settings:
    kafka = dict(broker=kafka_broker, topic_prefix=f't{uuid.uuid4().hex[:8]}.', session_timeout_ms=6000)
    data = dict(directory=str(tmp_path), symbols='BTC/USD')
    run = dict(source='replay', id='run-1', news=True)
    made = load_settings(
        '/dev/null', env={}, kafka=kafka, data=data, run=run, news_signals={'scorers': 'vader'}
    )
    ensure_topics(made)
    return made


def fill(settings: Settings, topic: str, producer: Producer) -> int:
    "Send the named bytes, good messages and mutants to one partition of a topic; return how many."
    messages = [(key, value) for key, value in NAMED.values()]
    messages += [(m.key(), m.value()) for m in fuzzed(topic, MUTANTS)]
    for key, value in messages:
        producer.send(topic, key, value, 0)  # type: ignore[arg-type]
    producer.flush()
    return len(messages)


def until_ended(settings: Settings, service: str) -> subprocess.Popen[str]:
    "Run a service until it says that it has passed the end marker on; it must not die before."
    command = [sys.executable, '-c', 'import sys; from apps.cli import main; sys.exit(main())', service]
    env = {**os.environ, **to_env(settings)}
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    threading.Thread(target=lambda: lines.extend(run.stdout or ()), daemon=True).start()
    deadline = time.monotonic() + 240
    while True:
        events = [decode('service_events', m.value) for m in tail(settings, 'service_events', 100)]
        if any(event.kind == 'end' for event in events):
            break
        assert run.poll() is None and time.monotonic() < deadline, ''.join(lines)[-4000:]
        time.sleep(0.3)
    run.terminate()
    assert run.wait(30) == 0, ''.join(lines)[-4000:]
    return run


def letters(settings: Settings, service: str, topic: str) -> dict[int, Any]:
    "Return the dead letters of what lies on a topic, by offset."
    found = [decode('dead_letters', m.value) for m in tail(settings, 'dead_letters', 100_000)]
    return {int(letter.id.split('/')[-1]): letter for letter in found if letter.topic == topic}


@pytest.mark.parametrize('name', [name for name in STEPS if name != 'news'])
def test_a_service_takes_each_good_message_and_does_not_die(settings, name, tmp_path):
    source, output, make = STEPS[name]
    producer = open_producer(settings)
    fill(settings, source, producer)
    send_end(producer, source, 'run-1')
    if name == 'predictions':  # there are no news: without this mark each row would wait for some
        producer.send('news_signals', 'mark', encode(NewsWatermark(START_MS + YEAR_MS)))
    producer.flush()
    until_ended(settings, name)
    (tmp_path / 'quiet').mkdir()
    quiet = Wired(name, make(tmp_path / 'quiet'), tmp_path / 'quiet')
    expected = [out.value for out in quiet.run(stream(source, GOOD[source], [])) if out.topic == output]
    found = [
        m.value
        for m in tail(settings, output, 100_000)
        if STRANGER.encode() not in m.value and b'fuzz-' not in m.value
    ]
    if name == 'predictions':
        # with the store's past and the baseline's own words: which rows were predicted is what counts
        found, expected = (
            [decode(output, value).start_ms for value in values] for values in (found, expected)
        )
    assert found == expected and len(found) >= MINUTES // 2
    kept = letters(settings, name, source)
    for offset, (what, (_, value)) in enumerate(NAMED.items()):
        assert offset in kept, what
        assert kept[offset].length == len(value or b'') and kept[offset].deaths == 0
        assert 'was ' in kept[offset].reason


def test_the_store_takes_each_good_message_and_does_not_die(settings):
    producer = open_producer(settings)
    for topic in GOOD:
        fill(settings, topic, producer)
        send_end(producer, topic, 'run-1')
    producer.flush()
    until_ended(settings, 'feature-store')
    store = open_feature_store(settings)
    for topic in GOOD:
        frame = open_group(store, topic).read(all_revisions=True)
        strange = frame.symbol == STRANGER if 'symbol' in frame else frame.news_id.str.startswith('fuzz-')
        assert len(frame[~strange]) >= MINUTES, topic
        assert set(range(len(NAMED))) <= set(letters(settings, 'feature-store', topic)), topic
    store.close()


def test_what_is_read_at_a_start_is_read_past_bad_messages(settings):
    producer = open_producer(settings)
    counts = {topic: fill(settings, topic, producer) for topic in GOOD}
    states, gaps = read_previous_run(settings)
    assert (
        states['BTC/USD'].sequence.ids.contiguous_id
        == decode('trades', GOOD['trades'][-1][1]).contiguous_through
    )
    assert len([gap for gap in gaps if gap.symbol == 'BTC/USD']) == MINUTES
    newest = tail(settings, 'candles', 100_000)
    assert played(newest, 60)['BTC/USD'] == decode('candles', GOOD['candles'][-1][1]).start_ms
    found = messages_behind(settings, 'candles', partition=0, offset=counts['candles'], count=100_000)
    ours = [candle for candle in found if isinstance(candle, Candle) and candle.symbol == 'BTC/USD']
    assert len(ours) == MINUTES and len(last_candles(found, 60)['BTC/USD']) == MINUTES
    assert last_mark(settings) == decode('news', GOOD['news'][-1][1]).through_ms
    rows = rows_behind(settings, 'BTC/USD', 60, START_MS)
    assert len(rows) >= MINUTES
    assert (
        len({signal.news_id for signal in signals_behind(settings, START_MS) if signal.scorer == 'vader'})
        == MINUTES
    )


def test_the_api_reads_past_bad_messages(settings):
    producer, stop = open_producer(settings), threading.Event()
    for topic in ('candles', 'news'):
        fill(settings, topic, producer)
    seen: list[Any] = []
    for batch in bus_batches(settings, stop):
        seen += [decode_message(*message) for message in batch]
        if not batch and seen:
            stop.set()
    good = [
        m
        for m in seen
        if isinstance(m, DecodedMessage) and m.topic == 'candles' and m.struct.symbol == 'BTC/USD'
    ]
    assert {m.raw for m in good} >= {
        value for _, value in GOOD['candles'][-20:]
    }  # its tail holds 1000 messages
    assert any(isinstance(m, ValueError) and 'key' in str(m) for m in seen)


def test_the_runner_hears_events_past_bad_messages(settings):
    producer = open_producer(settings)
    own, others = [encode(EVENT)], [value for each in GOOD.values() for _, value in each[:20]]
    for key, value in [*NAMED.values(), *mutants(1, 'service_events', own, others, MUTANTS)]:
        producer.send('service_events', key, value, 0)  # type: ignore[arg-type]
    producer.send('service_events', 'candles', encode(msgspec.structs.replace(EVENT, service='the last one')))
    producer.flush()
    code = 'from crypto_rt.core.settings import load_settings; from crypto_rt.system.runner import watch_events; watch_events(load_settings(), "run-1")'
    run = subprocess.Popen(
        [sys.executable, '-c', code],
        env={**os.environ, **to_env(settings)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout and any('the last one' in line for line in run.stdout)
    run.kill()
    run.wait()
