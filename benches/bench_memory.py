"""Does a long replay need more memory than a short one? Resident memory of the fold and its step along 10
million trades."""

from __future__ import annotations

import json
from typing import Any

import psutil

from benches.bench_decode import START
from benches.measuring import Bound, in_fresh_process, judged
from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Watermark, encode
from crypto_rt.core.settings import Settings
from crypto_rt.services.candles import Candles

SYMBOLS = [f'S{i}/USD' for i in range(10)]
TRADES, SIZE, STEP_MS = 10_000_000, 50, 50
ROW = b'{"trade_id":%d,"price":"%d.%d","quantity":"0.%04d","side":"buy","order_type":"limit","event_ms":%d}'


def message(symbol: str, first: int) -> bytes:
    "Return a `Trades` message of `SIZE` consecutive trades; prices go up and down for ever."
    rows = b','.join(
        ROW % (i, 100_000 + i * 7919 % 997, i % 10, 1 + i % 9999, START + STEP_MS * i)
        for i in range(first, first + SIZE)
    )
    return b'{"type":"trades","symbol":"%s","trades":[%s],"ingest_ms":%d,"source":"replay"}' % (
        symbol.encode(),
        rows,
        START,
    )


def replay(trades: int) -> dict[str, Any]:
    "Take the trades through a step; return the resident bytes after each million."
    step, process, resident, candles, offset = Candles(Settings()), psutil.Process(), [], 0, 0
    for first in range(1, trades // len(SYMBOLS) + 1, SIZE):
        last = first + SIZE - 1
        batch = []
        for symbol in SYMBOLS:
            for value in (
                message(symbol, first),
                encode(
                    Watermark(
                        symbol=symbol,
                        exchange_ms=START + STEP_MS * last,
                        contiguous_through=last,
                        connected=True,
                        source='replay',
                        bid='99',
                        ask='101',
                    )
                ),
            ):
                batch.append(Received(key=symbol, value=value, topic='trades', partition=0, offset=offset))
                offset += 1
        candles += sum(out.topic == 'candles' for out in step.take(batch))
        if last * len(SYMBOLS) % 1_000_000 == 0:
            resident.append(process.memory_info().rss)
    return {'resident': resident, 'candles': candles, 'taken': step.counts['trades']}


def bench(trades: int = TRADES) -> dict[str, Any]:
    "Return resident memory after 2 million trades and at the end, measured in a process of its own."
    if trades < 3_000_000:
        raise ValueError(f'--trades must be 3,000,000 or more to see memory grow, was {trades:,}')
    found = in_fresh_process(replay, trades)
    early, late = found['resident'][1], found['resident'][-1]
    figures = {
        'trades': found['taken'],
        'candles': found['candles'],
        'resident_mb_at_2m': round(early / 1e6, 1),
        'resident_mb_at_end': round(late / 1e6, 1),
        'growth_percent': round(100 * (late / early - 1), 2),
    }
    return judged(figures, end_over_2m=(late / early, Bound(at_most=1.05)))


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
