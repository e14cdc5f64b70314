"""The step of the service: killed anywhere, a silent market, late trades, a wrong clock."""

from __future__ import annotations

import random

import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Trade, decode
from crypto_rt.core.settings import Settings
from crypto_rt.services.candles import Candles, last_candles
from tests.candles.builders import FOLDS, START, mark, trades_message


def run_step(step: Candles, messages: list[Received], until: int | None = None) -> list[bytes]:
    return [
        out.value
        for i in range(0, len(messages[:until]), 7)
        for out in step.take(messages[i : min(i + 7, until or len(messages))])
        if out.topic == 'candles'
    ]


@pytest.mark.parametrize('seed', range(12))
def test_a_killed_service_tells_the_same_candles(seed: int) -> None:
    rng = random.Random(seed)
    at, rows = START, []
    for i in range(1, 600):
        at += int(rng.expovariate(1 / 9_000)) if rng.random() > 0.01 else 400_000
        rows.append(
            Trade(
                trade_id=i,
                price=f'{rng.uniform(99, 101):.2f}',
                quantity=f'{rng.expovariate(9):.8f}',
                side=rng.choice(['buy', 'sell']),
                order_type='limit',
                event_ms=at,
            )
        )
    late = set(rng.sample(range(50, 599), 12))
    values, held = [], []
    for i, trade in enumerate(rows):
        if i in late:
            held.append(trade)
            continue
        values.append(trades_message([trade], 'live'))
        if held and rng.random() < 0.05:
            values.append(trades_message([held.pop()], 'live'))
        if rng.random() < 0.5 and not any(t.event_ms < trade.event_ms - 1_000_000 for t in held):
            values.append(
                mark(
                    trade.event_ms,
                    trade.trade_id if not held else held[0].trade_id - 1,
                    source='live',
                    quotes=(trade.price, None),
                )
            )
    values += [trades_message([trade], 'live') for trade in held] + [mark(at + 200_000, 599, source='live')]
    messages = [
        Received(key='BTC/USD', value=value, topic='trades', partition=0, offset=i)
        for i, value in enumerate(values)
    ]
    whole = run_step(Candles(Settings(), clock=lambda: 0.0), messages)

    told, start = [], 0
    for kill in sorted(rng.sample(range(10, len(messages)), 3)) + [None]:
        history = last_candles([decode('candles', raw) for raw in told], 60)
        step = Candles(Settings(), lambda history=history: history, clock=lambda: 0.0)
        told += run_step(
            step, messages[start:], None if kill is None else kill - start if kill > start else 1
        )
        place = step.open_from('trades', 0)
        start = place if place is not None else start
    assert sorted(set(told)) == sorted(set(whole))
    assert len(told) == len(set(told))


def test_the_quotes_of_a_silent_market_survive_a_kill() -> None:
    hours = [
        mark(START + 30_000 + 60_000 * i, 1, quotes=(f'{100 + i}', '500')) for i in range(300)
    ]  # more silent minutes than are kept
    values = [
        trades_message(
            [Trade(trade_id=1, price='100', quantity='1', side='buy', order_type='', event_ms=START)]
        ),
        *hours,
    ]
    messages = [
        Received(key='BTC/USD', value=value, topic='trades', partition=0, offset=i)
        for i, value in enumerate(values)
    ]
    whole = run_step(Candles(Settings(), clock=lambda: 0.0), messages)
    assert [int(decode('candles', raw).bid or 0) for raw in whole] == list(range(100, 399))
    for kill in (5, 150, 290):
        step = Candles(Settings(), clock=lambda: 0.0)
        told = run_step(step, messages[:kill])
        history = last_candles([decode('candles', raw) for raw in told], 60)
        again = Candles(Settings(), lambda history=history: history, clock=lambda: 0.0)
        assert told + run_step(again, messages[step.open_from('trades', 0) :]) == whole


def test_a_late_trade_becomes_a_letter() -> None:
    step = Candles(Settings(), clock=lambda: 0.0)
    rows = [
        Trade(trade_id=1, price='1', quantity='1', side='buy', order_type='', event_ms=START),
        Trade(trade_id=2, price='1', quantity='1', side='buy', order_type='', event_ms=START + 10_000_000),
    ]
    values = [
        trades_message(rows),
        mark(START + 10_100_000, 2),
        trades_message(
            [Trade(trade_id=3, price='1', quantity='1', side='buy', order_type='', event_ms=START)]
        ),
        b'x',
    ]
    outs = list(
        step.take(
            [
                Received(key='BTC/USD', value=value, topic='trades', partition=0, offset=i)
                for i, value in enumerate(values)
            ]
        )
    )
    letters = [decode('dead_letters', out.value) for out in outs if out.topic == 'dead_letters']
    assert sorted(letter.id for letter in letters) == ['trades/0/2/3', 'trades/0/3']
    assert any('too late' in letter.reason for letter in letters)
    assert step.counts['too_late'] == 1


def test_a_wrong_clock_writes_no_year_of_candles() -> None:
    for make in FOLDS:
        fold = make(60)
        fold.feed(
            trades_message(
                [Trade(trade_id=1, price='1', quantity='1', side='buy', order_type='', event_ms=START)]
            )
        )
        assert len(fold.feed(mark(9_999_999_999_999, 1))) == 1
