"""How fast is a headline scored, and how much memory does the scorer take? In a process of its own, as the
service is one."""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import Any

from benches.measuring import Bound, in_fresh_process, judged

WORDS = [
    'bitcoin',
    'ether',
    'exchange',
    'regulator',
    'fund',
    'record',
    'falls',
    'rises',
    'hack',
    'bank',
    'token',
    'court',
    'approves',
    'halts',
    'raises',
    'million',
    'network',
    'upgrade',
    'miners',
    'wallet',
    'users',
    'sue',
    'launch',
    'stablecoin',
    'market',
    'price',
    'lawsuit',
    'treasury',
    'custody',
    'broker',
]


def headlines(count: int) -> list[str]:
    "Return made-up headlines of 6 to 14 words, all different."
    rng = random.Random(5)
    return [' '.join(rng.choices(WORDS, k=rng.randint(6, 14))) + f' {i}' for i in range(count)]


def measure(count: int, singles: int = 100) -> dict[str, float]:
    "Return headlines per second in batches of 64, milliseconds for a single one, and the resident memory."
    import psutil

    from crypto_rt.core.settings import Settings
    from crypto_rt.news.scorers import open_scorers

    began = time.perf_counter()
    scorers = {scorer.name: scorer for scorer in open_scorers(Settings())}
    loaded, texts = time.perf_counter() - began, headlines(count + singles)
    head = scorers['head']
    head.score(texts[-64:])
    warm = psutil.Process().memory_info().rss / 2**20
    began = time.perf_counter()
    for at in range(0, count, 64):
        head.score(texts[at : min(at + 64, count)])
    per_second, took = count / (time.perf_counter() - began), []
    for text in texts[count:]:
        began = time.perf_counter()
        head.score([text])
        took.append((time.perf_counter() - began) * 1000)
    memory = psutil.Process().memory_info().rss / 2**20
    return {
        'headlines_per_second': round(per_second),
        'single_p50_ms': round(statistics.median(took), 2),
        'load_seconds': round(loaded, 1),
        'memory_mb_after_64': round(warm),
        'memory_mb': round(memory),
    }


def bench(count: int = 2000) -> dict[str, Any]:
    "Return the figures of a fresh process, as the service is one."
    found = in_fresh_process(measure, count)
    singles_per_second = 1000 / found['single_p50_ms']
    return judged(
        found,
        batches_over_singles=(found['headlines_per_second'] / singles_per_second, Bound(at_least=1.5)),
        memory_at_end_over_after_64=(found['memory_mb'] / found['memory_mb_after_64'], Bound(at_most=1.25)),
    )


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
