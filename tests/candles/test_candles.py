"""Candles: the same from any delivery, in Python and in Rust, and each told once by services that are killed or moved."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt._core import CandleFold as RustFold
from crypto_rt.candles.fold import CandleFold
from crypto_rt.core.messages import Candle, Trade, decode
from crypto_rt.services.candles import last_candles
from tests.candles.builders import FOLDS, START, mark, trades_message
from tests.repeat import many

KEEP = 4
WAITS = st.sampled_from([0, 15_000, 100_000])  # for a proof, ms


@st.composite
def markets(draw: st.DrawFn, largest: int = 10**9) -> list[Trade]:
    "Up to 60 trades over some minutes; event times mostly rise with the ids, amounts have all sorts of digits."
    amounts = st.tuples(
        st.integers(0, largest) | st.integers(1, 200_000), st.integers(0, 10**12 - 1) | st.integers(0, 99)
    )
    steps = draw(
        st.lists(
            st.tuples(
                st.integers(-30_000, 200_000),
                amounts,
                amounts,
                st.booleans(),
                st.integers(0, 9).map(lambda n: n == 0),
            ),
            min_size=1,
            max_size=60,
        )
    )
    trades, at = [], START + 300_000
    for i, (step, price, quantity, buy, nothing) in enumerate(steps):
        at += step
        text = [f'{whole}.{fraction:012}' for whole, fraction in (price, quantity)]
        if nothing:
            text[1] = '0.0'
        trades.append(
            Trade(
                trade_id=100 + i,
                price=text[0],
                quantity=text[1],
                side='buy' if buy else 'sell',
                order_type='market',
                event_ms=max(at, START),
            )
        )
    return trades


@st.composite
def deliveries(draw: st.DrawFn, largest: int = 10**9) -> tuple[list[Trade], list[bytes]]:
    "A market, and messages that deliver it: shuffled, cut, repeated, with ids missing, and with any marks among them."
    trades = draw(markets(largest))
    lost = set(draw(st.lists(st.sampled_from(trades), max_size=3)))
    kept = [t for t in trades if t not in lost]
    order = draw(st.permutations(kept)) if draw(st.booleans()) else kept
    order = [*order, *draw(st.lists(st.sampled_from(trades), max_size=8))]
    messages: list[bytes] = []
    sent: list[Trade] = []
    while order:
        size = draw(st.integers(1, 12))
        messages.append(trades_message(order[:size], draw(st.sampled_from(['live', 'replay']))))
        sent, order = [*sent, *order[:size]], order[size:]
        if draw(st.integers(0, 2)):
            newest_ms = max(t.event_ms for t in sent)
            when = newest_ms + draw(st.integers(-5_000, 200_000) | st.integers(62_000, 130_000))
            highest = st.just(max(t.trade_id for t in sent))
            through = draw(highest | highest | st.sampled_from([t.trade_id for t in trades]) | st.just(-1))
            quote = st.none() | st.integers(0, 200).map(lambda n: f'{n}.50')
            proven_ms = draw(st.none() | st.just(0) | st.integers(-200_000, 10_000).map(when.__add__))
            witness = draw(st.sampled_from(['rest', 'snapshot', 'recording'])) if proven_ms else ''
            messages.append(
                mark(
                    when,
                    through,
                    draw(st.integers(0, 3)) > 0,
                    draw(st.sampled_from(['live', 'replay'])),
                    quotes=(draw(quote), draw(quote)),
                    proven=(proven_ms, witness),
                )
            )
    return trades, messages


@settings(max_examples=many(200), deadline=None)
@given(deliveries(10**20 - 1), WAITS)
def test_python_and_rust_return_the_same_bytes(
    delivery: tuple[list[Trade], list[bytes]], proof_wait_ms: int
) -> None:
    _, messages = delivery
    python, rust = (make(60, 2000, KEEP, proof_wait_ms) for make in FOLDS)
    for place, message in enumerate(messages):
        assert python.feed(message, place) == rust.feed(message, place)
        assert python.oldest_offset() == rust.oldest_offset()
        if place % 3 == 0:
            assert python.forming() == rust.forming()
    assert python.rejected() == rust.rejected()
    assert python.counts() == rust.counts()


@settings(max_examples=many(50), deadline=None)
@given(deliveries(), st.lists(st.integers(0, 40), max_size=3))
def test_many_messages_in_one_call_are_the_same(
    delivery: tuple[list[Trade], list[bytes]], bad: list[int]
) -> None:
    _, messages = delivery
    for at in bad:
        messages.insert(at, b'{"type":"trades"}')
    places = list(range(100, 100 + len(messages)))
    python, rust, single = CandleFold(60, 2000, KEEP), RustFold(60, 2000, KEEP), RustFold(60, 2000, KEEP)
    many = rust.feed_many(messages, places)
    assert [(i, type(told)) for i, told in many] == [
        (i, type(told)) for i, told in python.feed_many(messages, places)
    ]
    one_by_one = [
        (i, told)
        for i, raw in enumerate(messages)
        if raw != b'{"type":"trades"}'
        for told in single.feed(raw, places[i])
    ]
    assert [(i, told) for i, told in many if isinstance(told, bytes)] == one_by_one
    assert rust.oldest_offset() == python.oldest_offset() == single.oldest_offset()


@settings(max_examples=many(80), deadline=None)
@given(deliveries(), st.integers(0, 40), st.integers(0, 40), WAITS)
def test_a_restart_is_the_same_in_python_and_rust(
    delivery: tuple[list[Trade], list[bytes]], killed: int, back: int, proof_wait_ms: int
) -> None:
    _, messages = delivery
    first = RustFold(60, 2000, KEEP, proof_wait_ms)
    told = [decode('candles', raw) for message in messages[:killed] for raw in first.feed(message)]
    python, rust = (make(60, 2000, KEEP, proof_wait_ms) for make in FOLDS)
    for candle in last_candles(told, 60, KEEP + 1).get('BTC/USD', []):
        python.restore('BTC/USD', candle)
        rust.restore('BTC/USD', candle)
    for place, message in enumerate(messages[max(0, killed - back) :]):
        assert python.feed(message, place) == rust.feed(message, place)
        assert python.oldest_offset() == rust.oldest_offset()
    assert python.counts() == rust.counts()


def final_state(told: list[Candle]) -> dict[int, tuple]:
    "Of each window the latest revision, without what says when and how often it was told."
    best: dict[int, Candle] = {}
    for candle in told:
        if candle.revision >= best.get(candle.start_ms, candle).revision:
            best[candle.start_ms] = candle
    skip = ('revision', 'available_ms', 'evidence')
    return {
        start: tuple(getattr(c, f) for f in c.__struct_fields__ if f not in skip)
        for start, c in sorted(best.items())
    }


@settings(max_examples=many(80), deadline=None)
@given(markets(), st.integers(0, 2**32), st.integers(1, 12))
def test_the_final_candles_do_not_depend_on_the_delivery(trades: list[Trade], seed: int, size: int) -> None:
    rng = random.Random(seed)
    end = max(t.event_ms for t in trades) + 120_000
    states = []
    for way in ('in order', 'shuffled', 'with marks'):
        order = trades if way == 'in order' else [*rng.sample(trades, len(trades)), *rng.choices(trades, k=5)]
        fold, told = RustFold(60, 2000, 1_000_000), []
        for i in range(0, len(order), size):
            told += fold.feed(trades_message(order[i : i + size]))
            if way == 'with marks':
                told += fold.feed(
                    mark(
                        START + rng.randrange(end - START),
                        trades[0].trade_id - 1 + len(fold.counts()),
                        rng.random() < 0.5,
                    )
                )
        told += fold.feed(mark(end, trades[-1].trade_id))
        states.append(final_state([decode('candles', raw) for raw in told if b'"close":"' in raw]))
    assert states[0] == states[1] == states[2]


@settings(max_examples=many(200), deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_refused_politely(raw: bytes) -> None:
    for make in FOLDS:
        with pytest.raises(ValueError):
            make(60).feed(raw)


MESSAGE = trades_message(
    [
        Trade(trade_id=1, price='105433.6', quantity='0.1', side='buy', order_type='market', event_ms=START),
        Trade(trade_id=2, price='1', quantity='2', side='sell', order_type='', event_ms=START),
    ]
)


@settings(max_examples=many(200), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255)), max_size=3),
    st.integers(0, len(MESSAGE)),
)
def test_a_damaged_message_is_taken_by_both_or_by_none(changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(MESSAGE)
    for at, byte in changes:
        raw[at] = byte
    raw = bytes(raw[:cut] if len(changes) == 3 else raw)
    outcomes = []
    for make in FOLDS:
        fold = make(60)
        try:
            fold.feed(raw)
            outcomes.append(fold.forming())
        except ValueError:
            outcomes.append(None)
            assert fold.counts()['trades'] == 0
    assert outcomes[0] == outcomes[1]


def test_the_service_killed_on_kafka_tells_each_candle_once(kafka_broker: str, tmp_path: Path) -> None:
    from crypto_rt.bus.reading import tail
    from crypto_rt.bus.sending import open_producer
    from crypto_rt.bus.topics import ensure_topics
    from crypto_rt.core.settings import load_settings, to_env

    where = load_settings(
        kafka={'broker': kafka_broker, 'topic_prefix': 'candles-test.'}, data={'directory': str(tmp_path)}
    )
    ensure_topics(where)
    producer = open_producer(where)
    command = [
        sys.executable,
        '-c',
        'from crypto_rt.services.candles import run_candles; from crypto_rt.core.settings import load_settings; run_candles(load_settings())',
    ]

    def told() -> list[Candle]:
        return [decode('candles', message.value) for message in tail(where, 'candles', 1000)]

    trade_id = 0
    for life in range(1, 4):
        with subprocess.Popen(command, env=os.environ | to_env(where)) as service:
            for minute in range(10 * (life - 1), 10 * life):
                for second in range(0, 60, 7):
                    trade_id += 1
                    ms = START + minute * 60_000 + second * 1000
                    producer.send(
                        'trades',
                        'BTC/USD',
                        trades_message(
                            [
                                Trade(
                                    trade_id=trade_id,
                                    price='100.5',
                                    quantity='0.1',
                                    side='buy',
                                    order_type='limit',
                                    event_ms=ms,
                                )
                            ],
                            'live',
                        ),
                    )
                    producer.send('trades', 'BTC/USD', mark(ms, trade_id, source='live'))
            producer.flush()
            deadline = time.monotonic() + 60
            while len(told()) < 10 * life - 1 and time.monotonic() < deadline:
                time.sleep(0.3)
            service.kill()
    candles = told()
    assert [(c.start_ms - START) // 60_000 for c in candles] == list(range(29))
    assert [c.is_partial for c in candles] == [True] + [False] * 28
    assert {(c.trade_count, c.volume, c.revision) for c in candles} == {(9, '0.9', 0)}


def test_partitions_that_move_between_instances_are_told_the_same(kafka_broker: str, tmp_path: Path) -> None:
    from crypto_rt.bus.reading import tail
    from crypto_rt.bus.sending import open_producer
    from crypto_rt.bus.topics import ensure_topics
    from crypto_rt.core.settings import load_settings, to_env

    kafka = {'broker': kafka_broker, 'topic_prefix': 'moves-test.', 'session_timeout_ms': 1500}
    where = load_settings(kafka=kafka, data={'directory': str(tmp_path)})
    ensure_topics(where)
    producer, symbols = open_producer(where), ('BTC/USD', 'ETH/USD', 'SOL/USD', 'XRP/USD', 'ADA/USD')
    command = [
        sys.executable,
        '-c',
        'from crypto_rt.services.candles import run_candles; from crypto_rt.core.settings import load_settings; run_candles(load_settings())',
    ]

    def told() -> list[Candle]:
        return [decode('candles', message.value) for message in tail(where, 'candles', 2000)]

    def send(first: int, last: int) -> None:
        for second in range(first * 60, last * 60, 10):
            for symbol in symbols:
                ms = START + second * 1000
                trade = Trade(
                    trade_id=second // 10 + 1,
                    price=f'{100 + second % 70}',
                    quantity='0.1',
                    side='buy',
                    order_type='limit',
                    event_ms=ms,
                )
                producer.send('trades', symbol, trades_message([trade], 'live', symbol))
                producer.send('trades', symbol, mark(ms, trade.trade_id, source='live', symbol=symbol))
        producer.flush()
        deadline = time.monotonic() + 40
        while (
            len({(c.symbol, c.start_ms) for c in told()}) < len(symbols) * (last - 1)
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)

    def started(lives: int) -> bool:
        return (
            sum(
                decode('service_events', m.value).kind == 'started' for m in tail(where, 'service_events', 50)
            )
            >= lives
        )

    with subprocess.Popen(command, env=os.environ | to_env(where)) as one:
        send(0, 5)
        with subprocess.Popen(command, env=os.environ | to_env(where)) as two:
            deadline = time.monotonic() + 40
            while not started(2) and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(2)  # until the partitions are shared out
            send(5, 10)
            two.kill()
        send(10, 15)
        one.kill()
    found: dict[tuple[str, int, int], Candle] = {}
    for candle in told():
        assert found.setdefault((candle.symbol, candle.start_ms, candle.revision), candle) == candle
    assert len(found) == len(symbols) * 14
    assert [c for c in found.values() if c.is_partial != (c.start_ms == START)] == []
