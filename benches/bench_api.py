"""A small request to the API while large ones are made, beside the same request alone."""

from __future__ import annotations

import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benches.measuring import Bound, judged
from benches.store_data import candle_frame, indicator_frame
from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.store.open import open_feature_store, open_group

SYMBOL, ROWS = 'BTC/USD', 20_000
LARGE = '/v1/indicators?symbol=BTC/USD&limit={}'
SMALL = {
    'latest': '/v1/predictions/latest',
    'status': '/v1/status',
    'candles': '/v1/candles?symbol=BTC/USD&limit=50',
}
ROUNDS = 60  # of all small requests, while nothing else is asked for
LONGEST_SECONDS = 90.0  # after so long the large requests are given up
PAUSE_SECONDS = 0.02  # between two small requests, as a person's page leaves them
SERVE = 'from benches.bench_api import serve; import sys; serve(sys.argv[1])'


def filled_settings(folder: str) -> Settings:
    "Return settings whose store has candles and features of one symbol."
    settings = load_settings('/dev/null', env={}, data={'directory': folder, 'symbols': SYMBOL})
    store = open_feature_store(settings)
    open_group(store, 'candles').insert(candle_frame(SYMBOL, ROWS, 1))
    open_group(store, 'technical_indicators').insert(indicator_frame(SYMBOL, ROWS, 1))
    store.close()
    return settings


def serve(folder: str) -> None:
    "Serve the API of a folder without a bus; print the port, and go on until this process is ended."
    from apps.app import create_app
    from apps.serve import listening_socket, make_server

    settings = load_settings('/dev/null', env={}, data={'directory': folder, 'symbols': SYMBOL})
    bound = listening_socket('127.0.0.1', 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again when it has ended
    print(bound.getsockname()[1], flush=True)
    make_server(create_app(settings, iter(())), settings).run(sockets=[bound])


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, float]:
    "Return the status of an answer, and the milliseconds until it was read."
    began = time.perf_counter()
    connection.request('GET', path)
    answer = connection.getresponse()
    answer.read()
    return answer.status, (time.perf_counter() - began) * 1000


def ask_at_once(port: int, paths: list[str]) -> list[tuple[int, float]]:
    "Ask for all paths at once, each on a connection of its own; for a process of its own."

    def one(path: str) -> tuple[int, float]:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=LONGEST_SECONDS)
        try:
            return ask(connection, path)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(one, paths))


def small_times(port: int, rounds: int, until: threading.Event | None = None) -> dict[str, list[float]]:
    "Return the milliseconds of small requests: so many rounds, or until something is over."
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=LONGEST_SECONDS)
    times: dict[str, list[float]] = {name: [] for name in SMALL}
    for _ in range(rounds):
        for name, path in SMALL.items():
            if until is not None and until.is_set():
                connection.close()
                return times
            status, took = ask(connection, path)
            if status != 200:
                raise ConnectionError(f'{path}: expected 200, was {status}')
            times[name].append(took)
            time.sleep(PAUSE_SECONDS)
    connection.close()
    return times


def measured(port: int, large: int) -> dict[str, Any]:
    "Return the medians alone and beside large requests, and what came of those."
    over = threading.Event()
    paths = [LARGE.format(5000 - n) for n in range(large)]  # no two are the same
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        pool.submit(ask_at_once, port, [LARGE.format(600), *SMALL.values()]).result()  # all is imported now
        small_times(port, 5)
        quiet = small_times(port, ROUNDS)
        asked = pool.submit(ask_at_once, port, paths)
        asked.add_done_callback(lambda _: over.set())
        began = time.perf_counter()
        busy = small_times(port, 100_000, over)
        seconds, answers = time.perf_counter() - began, asked.result()
    return {
        'quiet_ms': {name: round(statistics.median(times), 2) for name, times in quiet.items()},
        'busy_ms': {name: round(statistics.median(times), 2) for name, times in busy.items()},
        'busy_worst_ms': {name: round(max(times), 1) for name, times in busy.items()},
        'small_requests': {name: len(times) for name, times in busy.items()},
        'large_answers': dict(Counter(str(status) for status, _ in answers)),
        'large_median_s': round(statistics.median(took for _, took in answers) / 1000, 2),
        'large_seconds': round(seconds, 1),
    }


def bench(large: int = 32) -> dict[str, Any]:
    "Measure on a server of this run, on 127.0.0.1; small requests may take three times as long as alone."
    with tempfile.TemporaryDirectory() as folder:
        filled_settings(folder)
        root = Path(__file__).parents[1]
        server = subprocess.Popen(
            [sys.executable, '-c', SERVE, folder], cwd=root, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            wait_for(port)
            figures = measured(port, large)
        finally:
            server.terminate()
            server.wait(20)
    ratios = {name: figures['busy_ms'][name] / quiet for name, quiet in figures['quiet_ms'].items()}
    return judged(figures, **{name: (ratio, Bound(at_most=3)) for name, ratio in ratios.items()})


def wait_for(port: int, seconds: float = 60.0) -> None:
    "Wait until the server answers."
    deadline = time.monotonic() + seconds
    while True:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
        try:
            ask(connection, '/v1/health')
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        finally:
            connection.close()


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
