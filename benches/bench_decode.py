"""How fast frames are decoded and trades folded in one process, beside a plain Python loop and the
definition in Python."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from benches.measuring import Bound, judged
from crypto_rt._core import CandleFold as RustFold
from crypto_rt._core import decode_trade_frame
from crypto_rt.candles.fold import CandleFold
from crypto_rt.core.messages import Trade, Trades, Watermark, encode
from crypto_rt.core.times import iso

START = 1_762_795_380_000
ROUNDS = 5


def market(
    count: int,  # trades
    first: int = 0,
    step_ms: int = 50,  # between two of them
) -> list[Trade]:  # consecutive ids
    "Return seeded trades of one symbol."
    rng = random.Random(first)
    return [
        Trade(
            trade_id=i + 1,
            price=f'{rng.gauss(105_000, 50):.1f}',
            quantity=f'{rng.expovariate(20):.8f}',
            side=rng.choice(['buy', 'sell']),
            order_type='limit',
            event_ms=START + step_ms * i,
        )
        for i in range(first, first + count)
    ]


def messages(
    trades: list[Trade],
    size: int,  # trades in each message
    symbol: str = 'BTC/USD',
) -> list[bytes]:  # with a mark after each second of exchange time
    "Return the trades as they lie in the topic."
    out, marked = [], trades[0].event_ms
    for i in range(0, len(trades), size):
        part = trades[i : i + size]
        out.append(encode(Trades(symbol, part, START, 'replay')))
        if part[-1].event_ms >= marked + 1000:
            marked = part[-1].event_ms
            out.append(
                encode(
                    Watermark(
                        symbol=symbol,
                        exchange_ms=marked,
                        contiguous_through=part[-1].trade_id,
                        connected=True,
                        source='replay',
                    )
                )
            )
    return out


def frames(
    trades: list[Trade],
    size: int,  # trades in each frame
) -> list[bytes]:
    "Return the trades as Kraken sends them."
    row = (
        '{{"symbol":"BTC/USD","side":"{}","price":{},"qty":{},'
        '"ord_type":"{}","trade_id":{},"timestamp":"{}"}}'
    )
    rows = [
        row.format(
            t.side,
            t.price,
            t.quantity,
            t.order_type,
            t.trade_id,
            iso(t.event_ms)[:19] + f'.{t.event_ms % 1000:03}000Z',
        )
        for t in trades
    ]
    return [
        f'{{"channel":"trade","type":"update","data":[{",".join(rows[i : i + size])}]}}'.encode()
        for i in range(0, len(rows), size)
    ]


def rate(
    count: int,  # trades in a round
    run: Callable[[], object],
    rounds: int = ROUNDS,
) -> int:  # trades per second of CPU, the median
    "Return how fast `run` is."
    rates = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        rates.append(count / (time.process_time() - began))
    return round(statistics.median(rates))


def feed(fold: CandleFold | RustFold, raws: list[bytes]) -> int:
    "Feed everything; return how many candles came out."
    return sum(len(fold.feed(raw, place)) for place, raw in enumerate(raws))


def plain_loop(raws: list[bytes]) -> dict[tuple[str, int], list[float]]:
    "Fold frames as one would without thinking of it: dicts and floats, no check, no duplicate, no order."
    decode, candles = msgspec.json.Decoder().decode, {}
    for raw in raws:
        for trade in decode(raw)['data']:
            at, price, quantity = trade['timestamp'][:16], trade['price'], trade['qty']
            candle = candles.get((trade['symbol'], at))
            if candle is None:
                candles[trade['symbol'], at] = [price, price, price, price, quantity]
            else:
                candle[1], candle[2] = max(candle[1], price), min(candle[2], price)
                candle[3] = price
                candle[4] += quantity
    return candles


def bench(count: int = 200_000) -> dict[str, Any]:
    "Return trades per second of CPU for each way."
    trades, out = market(count), dict[str, int]()
    for size in (1, 50):
        raws = frames(trades, size)
        out[f'frames_of_{size}_rust_decode_and_fold'] = rate(
            count, lambda raws=raws: [fold.feed_frame(raw) for fold in [RustFold(60)] for raw in raws]
        )
        out[f'frames_of_{size}_plain_python_loop'] = rate(count, lambda raws=raws: plain_loop(raws))
        out[f'frames_of_{size}_decoded_to_python'] = rate(
            count, lambda raws=raws: [decode_trade_frame(raw) for raw in raws]
        )
    for size in (1, 50):
        raws = messages(trades, size)
        out[f'messages_of_{size}_rust_fold'] = rate(count, lambda raws=raws: feed(RustFold(60), raws))
    raws = messages(trades[: count // 20], 50)
    out['messages_of_50_python_definition'] = rate(count // 20, lambda: feed(CandleFold(60), raws), 3)
    over_plain = out['frames_of_50_rust_decode_and_fold'] / out['frames_of_50_plain_python_loop']
    over_definition = out['messages_of_50_rust_fold'] / out['messages_of_50_python_definition']
    return judged(
        out,
        rust_over_plain_python=(over_plain, Bound(at_least=2)),
        rust_over_the_definition_in_python=(over_definition, Bound(at_least=5)),
    )


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
