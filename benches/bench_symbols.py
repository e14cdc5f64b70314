"""Does a trade cost more when 200 symbols share a process? The step of the candle service, one symbol
against 200."""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import Any

from benches.bench_decode import market, messages
from benches.measuring import Bound, judged
from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Trades, decode
from crypto_rt.core.settings import Settings
from crypto_rt.services.candles import Candles

ROUNDS, BATCH, STEP_MS = 5, 1000, 500  # each symbol trades twice a second, alone or among 200


def received(symbols: int, trades: int, size: int) -> list[Received]:
    """Return the trades of some symbols, `trades` over all, mixed as they would arrive; marks of each
    symbol among them.
    """
    rng = random.Random(3)
    names = [f'S{i}/USD' for i in range(symbols)]
    rows = market(trades // symbols, step_ms=STEP_MS)
    queues = [list(reversed(messages(rows, size, name))) for name in names]
    order = [i for i, queue in enumerate(queues) for _ in queue]
    rng.shuffle(order)
    return [
        Received(key=names[i], value=queues[i].pop(), topic='trades', partition=0, offset=offset)
        for offset, i in enumerate(order)
    ]


def seconds(batches: list[list[Received]]) -> float:
    "Return the CPU seconds of a fresh step that takes all batches."
    step = Candles(Settings())
    began = time.process_time()
    for batch in batches:
        for _ in step.take(batch):
            pass
        step.open_from('trades', 0)
    return time.process_time() - began


def bench(trades: int = 400_000) -> dict[str, Any]:
    "Return the microseconds of CPU per trade with one symbol and with 200, and their ratio."
    out, ratios = {}, {}
    for size in (1, 50):
        cost = {}
        for symbols in (1, 200):
            rows = received(symbols, trades, size)
            batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
            held = sum(
                len(found.trades) for row in rows if isinstance(found := decode('trades', row.value), Trades)
            )
            cost[symbols] = statistics.median(seconds(batches) for _ in range(ROUNDS)) / held * 1e6
            out[f'us_per_trade_{symbols}_symbols_{size}_per_message'] = round(cost[symbols], 3)
        ratios[f'cost_of_200_symbols_over_1_at_{size}_per_message'] = cost[200] / cost[1], Bound(at_most=3)
    return judged(out, **ratios)


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
