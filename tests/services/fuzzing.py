"""A service on a list in place of a broker: the bus's own loop around a step, and good messages to put mutants between."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from crypto_rt.bus.deaths import Deaths
from crypto_rt.bus.service import send_due, take_partition
from crypto_rt.bus.steps import Out, batches
from crypto_rt.core.messages import Dropped, Gap, NewsSignal, NewsWatermark, Prediction, Trades, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.features.indicators import indicators_of
from crypto_rt.testing import START_MS, random_candles, random_trades, story, watermark
from tests.bus.mutations import mutants

MINUTES = 60


class Message:
    "A message as Kafka's client gives it."

    def __init__(self, topic: str, offset: int, key: bytes | None, value: bytes | None):
        self.topic, self.offset = (lambda: topic), (lambda: offset)
        self.key, self.value, self.partition = (lambda: key), (lambda: value), (lambda: 0)


class Wired(SimpleNamespace):
    "What the functions of `bus.service` use of a `Service`; what it sends is kept in `outs`."

    def __init__(self, name: str, step: Any, folder: Path):
        self.outs: list[Out] = []
        producer = SimpleNamespace(
            produce=lambda topic, value, key=None: self.outs.append(Out(topic, key, value))
        )
        context = SimpleNamespace(store_offset=lambda *where: None)
        super().__init__(
            settings=load_settings('/dev/null', env={}),
            name=name,
            step=step,
            stored={},
            last={},
            ended={},
            passed=set(),
            awaits=1 << 30,  # end markers: those of a stranger's run are never all there
            taken=0,
            refused=0,
            set_aside=0,
            deaths=Deaths(folder, name),
            app=SimpleNamespace(_producer=producer, _processing_context=context),
        )

    def run(self, messages: Sequence[Message], seed: int = 0) -> list[Out]:
        "Take the messages in micro-batches of many sizes; return all that it has sent."
        rng, at = random.Random(seed), 0
        while at < len(messages):
            size = rng.choice((1, 7, 100, 1000))
            for batch in batches(self.settings, ['one'], list(messages[at : at + size])):
                take_partition(self, lambda part, *rest: self.outs.extend(self.step.take(part)), batch)
            if hasattr(self.step, 'due'):
                send_due(self)
            at += size
        return self.outs


def stream(
    topic: str, good: Sequence[tuple[bytes, bytes]], bad: Iterable[tuple[bytes, bytes]]
) -> list[Message]:
    "Return good messages (key and value) with the bad ones spread between them."
    bad = list(bad)
    share, found = len(bad) / max(1, len(good)), list[tuple[bytes, bytes]]()
    for number, message in enumerate(good):
        found += [*bad[round(number * share) : round((number + 1) * share)], message]
    return [Message(topic, offset, *message) for offset, message in enumerate(found)]


def keyed(structs: Iterable[Any]) -> list[tuple[bytes, bytes]]:
    "Return structs as key and value."
    return [(getattr(x, 'symbol', getattr(x, 'news_id', 'mark')).encode(), encode(x)) for x in structs]


def good_messages() -> dict[str, list[tuple[bytes, bytes]]]:
    "Return what a quiet hour brings, by topic, as key and value."
    candles = random_candles(MINUTES, 5, buy_volume='0.01')
    trades: list[Any] = []
    by_minute: dict[int, list[Any]] = {}
    for trade in random_trades(MINUTES, 3):
        by_minute.setdefault((trade.event_ms - START_MS) // 60_000, []).append(trade)
    through = 0
    for minute in range(MINUTES):
        for one in by_minute.get(minute, []):
            trades.append(Trades('BTC/USD', [one], START_MS, 'replay'))
            through = one.trade_id
        trades.append(watermark(60_000 * (minute + 1) + 2_500, through))
    stories = [story(n, hours=n / 60) for n in range(MINUTES)]
    return {
        'trades': keyed(trades),
        'gaps': keyed([*(_gap(n) for n in range(MINUTES)), Dropped('BTC/USD', 1, 0, START_MS)]),
        'candles': keyed(candles),
        'technical_indicators': keyed(indicators_of(candles)),
        'predictions': keyed(_prediction(n) for n in range(MINUTES)),
        'news': keyed(x for s in stories for x in (s, NewsWatermark(s.available_ms))),
        'news_signals': keyed(
            x for n, s in enumerate(stories) for x in (_signal(n), NewsWatermark(s.available_ms))
        ),
    }


def fuzzed(topic: str, count: int, seed: int = 1) -> list[Message]:
    "Return the good messages of a topic with so many mutants between them."
    own = [value for _, value in GOOD[topic]]
    others = [value for name, each in GOOD.items() if name != topic for _, value in each[:20]]
    return stream(topic, GOOD[topic], mutants(seed, topic, own, others, count))


def _gap(n: int) -> Gap:
    at = START_MS + 1000 * n
    where = dict(symbol='BTC/USD', first_missing=10 * n, last_missing=10 * n + 3, opened_ms=at, updated_ms=at)
    return Gap(**where, state='open', found=0, revision=0, epoch=0)


def _signal(n: int) -> NewsSignal:
    s = story(n, hours=n / 60)
    when = dict(published_ms=s.published_ms, available_ms=s.available_ms)
    what = dict(assets=['BTC'], score=0.5, label='positive', confidence=0.8, text_hash=s.text_hash)
    return NewsSignal(news_id=s.news_id, scorer='vader', version='1', **what, **when)


def _prediction(n: int) -> Prediction:
    start = START_MS + 60_000 * n
    when = dict(
        start_ms=start, made_at_ms=start + 62_000, target_ms=start + 360_000, expires_ms=start + 360_000
    )
    none = dict(expected_log_return=None, lower=None, upper=None, expected_price=None)
    what = dict(
        model_version='3', last_price=100.0, level=0.9, status='abstain', reasons=['stale'], trace={'news': 1}
    )
    return Prediction(
        symbol='BTC/USD',
        interval_seconds=60,
        horizon_seconds=300,
        revision=0,
        model_digest='ab',
        feature_hash='cd',
        flags=[],
        **when,
        **none,
        **what,
    )


GOOD = good_messages()
