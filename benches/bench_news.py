"""How fast is a headline scored, and how much memory does the scorer take? In a process of its own, as the service is one."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time

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


def measure(count: int = 2000, singles: int = 100) -> dict[str, float]:
    "Return headlines per second in batches of 64, milliseconds for a single one, and the resident memory."
    import psutil

    from crypto_rt.core.settings import Settings
    from crypto_rt.news.scorers import open_scorers

    began = time.perf_counter()
    scorers = {scorer.name: scorer for scorer in open_scorers(Settings())}
    loaded, texts = time.perf_counter() - began, headlines(count + singles)
    head = scorers['head']
    head.score(texts[-64:])
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
        'memory_mb': round(memory),
    }


def bench() -> dict[str, float | bool]:
    "Return the figures of a fresh process; `ok` says whether they keep what is promised."
    code = 'import json; from benches.bench_news import measure; print(json.dumps(measure()))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    good = found['headlines_per_second'] >= 250 and found['single_p50_ms'] <= 25 and found['memory_mb'] <= 900
    return {'ok': good, **found}


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
