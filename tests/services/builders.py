"""A clock that stands still, messages, a join with a leader, and made-up trades with their candles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from crypto_rt.bus.steps import Received
from crypto_rt.candles.aggregation import candles_of_trades
from crypto_rt.core.messages import NewsSignal, NewsWatermark, TechnicalIndicators, Trade, Trades, encode
from crypto_rt.services.context import ContextJoin, ContextRow, LeaderContext


class Clock:
    "A clock that stands where it is put."

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def message(x: TechnicalIndicators, offset: int = 0, partition: int = 0) -> Received:
    return Received(
        key=x.symbol, value=encode(x), topic='technical_indicators', partition=partition, offset=offset
    )


def signal(m: NewsSignal | NewsWatermark) -> Received:
    return Received(key='', value=encode(m), topic='news_signals', partition=0, offset=0)


def led(
    earlier: Callable[[int, int], Iterable[TechnicalIndicators]] = lambda seconds, since_ms: (), **how: Any
) -> ContextJoin:
    "Return a join with a leader and no news."
    return ContextJoin(LeaderContext('BTC/USD', earlier), **how)


def complete(join: ContextJoin, x: TechnicalIndicators, offset: int = 0) -> list[ContextRow]:
    "Offer one row and return what may go."
    join.offer(message(x, offset))
    return join.ready()


def vector_and_late(join: ContextJoin, x: TechnicalIndicators) -> tuple[dict[str, float | None], list[str]]:
    (found,) = complete(join, x)
    return found.vector, found.late


NOON = 1_762_776_000_000


def trades_of(ids):
    return [
        Trade(
            trade_id=n,
            price=str(100 + n * 7 % 13),
            quantity='0.5',
            side='buy',
            order_type='',
            event_ms=NOON + n * 7_300,
        )
        for n in ids
    ]


def folded(ids):
    return list(candles_of_trades([Trades('BTC/USD', trades_of(ids), NOON, 'replay')], 60, 2000))
