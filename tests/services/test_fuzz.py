"""Whatever comes between good messages, on any topic: each good one comes out, and no service dies."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from apps.hub import Hub
from apps.recent import TOPICS as API_TOPICS
from apps.recent import decode_message
from apps.routes.status import status_of
from crypto_rt.bus.steps import Out, Received, key_refusal
from crypto_rt.candles.fold import CandleFold
from crypto_rt.core.messages import decode
from crypto_rt.core.settings import load_settings
from crypto_rt.news.scorers import Vader
from crypto_rt.services.candles import Candles
from crypto_rt.services.context import ContextJoin, JoinedStep, LeaderContext, NewsContext
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.services.indicators import IndicatorStep
from crypto_rt.services.news import NewsReplay
from crypto_rt.services.news_signals import Cache, SignalStep
from crypto_rt.services.predictions import Champions, Closes, PredictionStep
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import open_group
from crypto_rt.testing import story
from tests.bus.mutations import STRANGER
from tests.services.fuzzing import GOOD, MINUTES, Message, Wired, fuzzed, stream

MUTANTS = 10_000 if os.environ.get('CRYPTO_RT_TEST_LONG') else 1_000
SETTINGS = load_settings('/dev/null', env={})


def sent(service: Wired, messages: list[Message], topic: str) -> list[Out]:
    "Return what a service makes of messages on one topic, without what it makes of strangers."
    return [
        out
        for out in service.run(messages)
        if out.topic == topic and STRANGER.encode() not in out.value and b'fuzz-' not in out.value
    ]


def letters_of(service: Wired) -> Counter[str]:
    "Return how often each id has a dead letter; every letter fits its topic and a message's size."
    found = [out for out in service.outs if out.topic == 'dead_letters']
    assert max((len(out.value) for out in found), default=0) < 900_000
    letters = [decode('dead_letters', out.value) for out in found]
    assert all(letter.reason and letter.length is not None and len(letter.sha256) == 64 for letter in letters)
    return Counter(letter.id for letter in letters)


def predictions() -> JoinedStep:
    step = PredictionStep(SETTINGS, Closes(SETTINGS, lambda *where: {}), Champions(lambda *key: None))
    join = ContextJoin(
        LeaderContext('ETH/USD', lambda *where: []),
        NewsContext('vader', lambda since_ms: []),
        patience_seconds=0.0,
    )
    return JoinedStep('predictions', join, step)


STEPS: dict[str, tuple[str, str, Any]] = {
    'candles': ('trades', 'candles', lambda folder: Candles(SETTINGS)),
    'indicators': ('candles', 'technical_indicators', lambda folder: IndicatorStep(lambda *where: [])),
    'predictions': ('technical_indicators', 'predictions', lambda folder: predictions()),
    'news': ('candles', 'news', lambda folder: NewsReplay([story(n, hours=n / 60) for n in range(MINUTES)])),
    'news-signals': (
        'news',
        'news_signals',
        lambda folder: SignalStep([Vader()], Cache(folder / 'scores.sqlite')),
    ),
}


@pytest.mark.parametrize('name', STEPS)
def test_each_good_message_comes_out_of_a_step(name, tmp_path):
    source, output, make = STEPS[name]
    (tmp_path / 'quiet').mkdir()
    quiet = Wired(name, make(tmp_path / 'quiet'), tmp_path / 'quiet')
    expected = sent(quiet, stream(source, GOOD[source], []), output)
    service = Wired(name, make(tmp_path), tmp_path)
    messages = fuzzed(source, MUTANTS)
    found = sent(service, messages, output)
    if name == 'news':  # a stranger's candle moves its clock: stories come earlier, and fewer watermarks
        found, expected = ([out for out in outs if out.key != 'mark'] for outs in (found, expected))
    assert found == expected and len(expected) >= MINUTES // 2
    letters = letters_of(service)
    print(
        name,
        len(messages) - len(GOOD[source]),
        'mutants,',
        len(expected),
        'good out,',
        sum(letters.values()),
        'letters',
    )
    assert sum(letters.values()) > (MUTANTS // 20 if name == 'news' else MUTANTS // 2)


@pytest.mark.parametrize('topic', GOOD)
def test_each_good_message_is_stored(topic, tmp_path):
    def stored(messages: list[Message], folder: Path) -> tuple[Any, Wired]:
        store = EmbeddedStore(folder / 'store')
        service = Wired('feature-store', StoreWriter(store, SETTINGS), folder)
        service.run(messages)
        frame = open_group(store, topic).read(all_revisions=True)
        store.close()
        strange = frame.symbol == STRANGER if 'symbol' in frame else frame.news_id.str.startswith('fuzz-')
        return frame[~strange].reset_index(drop=True), service

    expected, _ = stored(stream(topic, GOOD[topic], []), tmp_path / 'quiet')
    found, service = stored(fuzzed(topic, MUTANTS), tmp_path / 'loud')
    assert found.equals(expected) and len(found) >= MINUTES
    letters = letters_of(service)
    print(topic, MUTANTS, 'mutants,', len(found), 'rows,', sum(letters.values()), 'letters')
    assert set(letters.values()) == {1} and len(letters) > MUTANTS // 2


def test_context_is_heard_between_mutants(tmp_path):
    def vectors(*heard: list[Message]) -> list[bytes]:
        step = predictions()
        for messages in heard:
            received = [
                Received(m.key().decode('utf-8', 'surrogateescape'), m.value(), m.topic(), 0, m.offset())
                for m in messages
            ]
            step.join.hear([m for m in received if not key_refusal(m.topic, m.key)])
        service = Wired('predictions', step, tmp_path)
        return [
            out.value for out in service.run(stream('technical_indicators', GOOD['technical_indicators'], []))
        ]

    good = [stream(topic, GOOD[topic], []) for topic in ('news_signals', 'technical_indicators')]
    bad = [fuzzed(topic, MUTANTS) for topic in ('news_signals', 'technical_indicators')]
    assert vectors(*bad) == vectors(*good) and len(vectors(*good)) == MINUTES


@pytest.mark.parametrize('topic', [topic for topic in API_TOPICS if topic in GOOD])
def test_the_api_keeps_each_good_message(topic):
    async def kept(messages: list[Message]) -> tuple[Hub, list[Any]]:
        hub = Hub(SETTINGS, 'replay')
        for at in range(0, len(messages), 100):
            batch = messages[at : at + 100]
            keys = [m.key().decode('utf-8', 'surrogateescape') for m in batch]
            hub.receive(
                [
                    decode_message(topic, m.value(), key_refusal(topic, key))
                    for m, key in zip(batch, keys, strict=True)
                ]
            )
        status_of(hub)
        if topic == 'gaps':
            return hub, [row for row in hub.gaps.rows.values() if row.symbol != STRANGER]
        if topic == 'news':
            return hub, [s for s in hub.news.stories.values() if not s.news_id.startswith('fuzz-')]
        if topic == 'news_signals':
            return hub, [rows for key, rows in hub.news.signals.items() if not key.startswith('fuzz-')]
        return hub, hub.recent.structs(topic, 'BTC/USD')

    _, expected = asyncio.run(kept(stream(topic, GOOD[topic], [])))
    hub, found = asyncio.run(kept(fuzzed(topic, MUTANTS)))
    assert found == expected and len(found) >= MINUTES
    assert hub.undecodable[topic] > MUTANTS // 2


def test_both_folds_refuse_the_same(tmp_path):
    from crypto_rt._core import CandleFold as RustFold

    messages = fuzzed('trades', MUTANTS)
    raws, offsets = [m.value() for m in messages], [m.offset() for m in messages]

    def outcome(fold: Any) -> list[tuple[int, Any]]:
        return [
            (at, 'refused' if isinstance(made, str) else made) for at, made in fold.feed_many(raws, offsets)
        ]

    assert outcome(RustFold(60)) == outcome(CandleFold(60))
