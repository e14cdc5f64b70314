"""Candles of a made-up past, and what a store holds of a group."""

import math

from crypto_rt.core.messages import Candle, Trade
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.store.open import open_feature_store, open_group

NOON = 1_762_776_000_000
KEY = dict(symbol='BTC/USD', interval_seconds=60)


def candle(n, symbol='BTC/USD', **other):
    start, price = NOON + n * 60_000, 100 + 10 * math.sin(n / 30) + (n * 7919 % 31) / 10
    values = dict(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=0,
        end_ms=start + 60_000,
        open=f'{price:.2f}1',
        high=f'{price + 1:.2f}1',
        low=f'{price - 1:.2f}1',
        close=f'{price + 0.3:.2f}1',
        volume='1.5',
        quote_volume='150',
        vwap=f'{price:.2f}1',
        trade_count=3,
        buy_volume='1',
        first_trade_id=-1,
        last_trade_id=-1,
        bid=None,
        ask=None,
        is_empty=False,
        is_partial=False,
        source='exchange',
        available_ms=start + 62_000,
    )
    return Candle(**values | other)


class Newest:
    "Its newest 720 candles, as the REST client gives them."

    def __init__(self, until):
        self.until, self.asked = until, []

    limits = Kraken.limits

    def candles(self, symbol, interval_seconds):
        self.asked.append(symbol)
        return [candle(n, symbol) for n in range(self.until - 720, self.until)]


def stored(settings, name):
    store = open_feature_store(settings)
    frame = open_group(store, name).read()
    store.close()
    return frame


def trades_between(first, last, every_ms=7_300, silent=()):
    "Trades with ids that follow each other, at a steady pace but for a silence."
    at = [n for n in range(first, last) if n not in silent]
    return [
        Trade(
            trade_id=5000 + n,
            price=f'{100 + k * 7 % 13}.{k % 10}1',
            quantity=f'0.{k % 97 + 1:04}1234',
            side='buy' if k % 3 else 'sell',
            order_type='limit',
            event_ms=NOON + k * every_ms,
        )
        for n, k in enumerate(at)
    ]
