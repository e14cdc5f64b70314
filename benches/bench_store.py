"""The embedded store: inserts, online vectors, the point-in-time training set, size on disk."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benches.measuring import Bound, judged
from benches.store_data import MINUTE, START, candle_frame, indicator_frame, messages
from crypto_rt.features.indicators import indicators_of
from crypto_rt.features.table import FEATURE_NAMES
from crypto_rt.store.conform import conform
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import candle_history, open_group, training_view
from crypto_rt.store.schema import FeatureDef

ROWS_OF_A_MONTH = 20 * 30 * 1440
SIGNAL = [
    FeatureDef('symbol', 'string', False),
    *(FeatureDef(n, 'bigint', False) for n in ('start_ms', 'revision', 'available_ms')),
    FeatureDef('score', 'double'),
]


def spread(
    calls: Iterable[Callable[[], Any]],
) -> dict[str, float]:  # milliseconds
    "Return the median and the 99th percentile of the calls' times."
    times = []
    for call in calls:
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return {'p50_ms': round(statistics.median(times), 4), 'p99_ms': round(float(np.quantile(times, 0.99)), 4)}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    "Return the seconds that a call took, and its result."
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def bench_writes(folder: Path) -> dict[str, Any]:
    "Return what the service's way costs: batches of 1,000 messages, and the ten candles of a minute."
    store, rates = EmbeddedStore(folder), {}
    for name, rows in zip(('candles', 'technical_indicators'), messages(0, 50_000), strict=True):
        group = open_group(store, name)
        parts = [rows[at : at + 1000] for at in range(0, len(rows), 1000)]
        busy = time.process_time()
        seconds, _ = timed(lambda group=group, parts=parts: [group.insert(part) for part in parts])
        busy = time.process_time() - busy
        columns = conform(group.definition, rows[:20_000])
        alone, _ = timed(lambda group=group, columns=columns: group.insert_columns(columns))
        plain = plain_sqlite(folder / f'{name}.db', conform(group.definition, rows))
        rates[name] = {
            'insert_rows_per_s': round(len(rows) / seconds),
            'plain_sqlite_rows_per_s': round(plain['rows_per_s']),
            'over_plain_sqlite': round(len(rows) / seconds / plain['rows_per_s'], 3),
            'insert_rows_per_cpu_s': round(len(rows) / busy),
            'without_checks_rows_per_s': round(20_000 / alone),
            'columns': len(group.definition.names),
        }
    group = open_group(store, 'candles')
    minutes = [messages(10_000 + k, 10)[0] for k in range(300)]
    small = spread([lambda rows=rows: group.insert(rows) for rows in minutes])
    view = training_view(store)
    view.init_serving()
    online = spread(
        [
            lambda k=k: view.get_feature_vector({'symbol': f'S{k % 10}/USD', 'interval_seconds': 60})
            for k in range(20_000)
        ]
    )
    history = spread([lambda: group.history(dict(symbol='S3/USD', interval_seconds=60), last=1000)] * 30)
    sealed, rows = timed(lambda: group.materialize(START + 3 * 86_400_000))
    store.close()
    return {
        **rates,
        'insert_10_rows': small,
        'online_vector_of_2_groups': online,
        'online_over_plain_select': round(online['p50_ms'] / plain['select_p50_ms'], 2),
        'history_1000_candles': history,
        'seal_rows_per_s': round(rows / sealed),
    }


def plain_sqlite(
    file: Path,
    columns: list[list[Any]],  # as the store writes them
) -> dict[str, float]:  # rows per second, and the milliseconds of a row by its key
    """Return what SQLite alone costs: the same columns in batches of 1,000, without check, identity or
    revision.
    """
    database, count = sqlite3.connect(file), len(columns[0])
    names = [f'c{number}' for number in range(len(columns))]
    database.execute('PRAGMA journal_mode = WAL')
    database.execute(f'CREATE TABLE plain (id INTEGER PRIMARY KEY, {", ".join(names)})')
    insert = f'INSERT INTO plain VALUES ({", ".join("?" * (len(names) + 1))})'

    def write() -> None:
        for at in range(0, count, 1000):
            with database:
                database.executemany(
                    insert, zip(*(c[at : at + 1000] for c in [range(count), *columns]), strict=True)
                )

    seconds, _ = timed(write)
    select = spread(
        [
            lambda k=k: database.execute('SELECT * FROM plain WHERE id = ?', [k * 7919 % count]).fetchone()
            for k in range(20_000)
        ]
    )
    database.close()
    return {'rows_per_s': count / seconds, 'select_p50_ms': select['p50_ms']}


def bench_training_set(
    folder: Path,
    rows: int,  # in the left group
) -> dict[str, Any]:
    "Return the point-in-time join of three groups against pandas `merge_asof`, and the size on disk."
    store, each = EmbeddedStore(folder), rows // 20
    groups = candles, indicators = open_group(store, 'candles'), open_group(store, 'technical_indicators')
    signal = store.get_or_create_feature_group('signals', 1, primary_key=['symbol'], schema=SIGNAL)
    sealing = 0.0
    for s in range(20):
        frames = candle_frame(f'S{s:02}/USD', each, s), indicator_frame(f'S{s:02}/USD', each, s)
        for group, frame in zip(groups, frames, strict=True):
            sealing += timed(lambda group=group, frame=frame: group.insert_sealed(frame))[0]
        start = START + 20 * MINUTE * np.arange(each // 20)
        signal.insert(
            pd.DataFrame(
                dict(
                    symbol=f'S{s:02}/USD',
                    start_ms=start,
                    revision=0,
                    available_ms=start + 7 * MINUTE,
                    score=np.sin(start / 1e7),
                )
            )
        )
    query = indicators.select(['close', 'warm_up', *FEATURE_NAMES]).join(
        candles.select(['volume', 'trade_count']), prefix='candle_'
    )
    view = store.get_or_create_feature_view(
        'bench', 1, query=query.join(signal.select(['score']), ['symbol'], 'signal_')
    )
    end = START + each * MINUTE
    seconds, frame = timed(lambda: view.get_batch_data(START, end))
    reading, tables = timed(lambda: [group.read(START, end) for group in (indicators, candles, signal)])
    alone, joined = timed(lambda: merge_asof(*tables))
    same = bool((joined.signal_score.fillna(9).to_numpy() == frame.signal_score.fillna(9).to_numpy()).all())
    store.close()
    return {
        'rows': len(frame),
        'columns': frame.shape[1],
        'seconds': round(seconds, 2),
        'read_seconds': round(reading, 2),
        'merge_asof_seconds': round(alone, 2),
        'by_pandas': round(seconds / (reading + alone), 2),
        'equal': same,
        'seal_rows_per_s': round(2 * rows / sealing),
    }


def bench_size(folder: Path, n: int = 5000) -> dict[str, float]:
    "Return the megabytes of 20 symbols' candles and features of 30 days, from `n` rows with real features."
    store = EmbeddedStore(folder)
    candles = open_group(store, 'candles')
    candles.insert_sealed(candle_frame('S00/USD', n, 1))
    open_group(store, 'technical_indicators').insert_sealed(
        indicators_of(candle_history(store, 'S00/USD', 60, last=n))
    )
    frames = [open_group(store, name).read() for name in ('candles', 'technical_indicators')]
    store.close()
    size = sum(file.stat().st_size for file in folder.rglob('*.parquet'))
    for number, frame in enumerate(frames):
        frame.to_parquet(folder / f'{number}.pandas')
    theirs = sum(file.stat().st_size for file in folder.glob('*.pandas'))
    return {
        'mb': round(size / n * ROWS_OF_A_MONTH / 1e6),
        'over_pandas_parquet': round(size / theirs, 3),
    }


def merge_asof(left: pd.DataFrame, candles: pd.DataFrame, signal: pd.DataFrame) -> pd.DataFrame:
    "Return the same join by pandas, from tables that are in memory already."
    left = left.sort_values('available_ms')
    keys = ['symbol', 'available_ms']
    for right, by, prefix in (
        (candles[[*keys, 'volume', 'trade_count']], ['symbol'], 'candle_'),
        (signal[[*keys, 'score']], ['symbol'], 'signal_'),
    ):
        right = right.rename(columns={name: prefix + name for name in right if name not in keys}).sort_values(
            'available_ms'
        )
        left = pd.merge_asof(left, right, on='available_ms', by=by)
    return left.sort_values(['symbol', 'start_ms'])


def bench_feast(folder: Path, rows: int = 50_000) -> dict[str, Any]:
    """Return the join of two tables beside Feast's, by the Python that FEAST_PYTHON names (it has
    `feast[duckdb]`).
    """
    if not (python := os.environ.get('FEAST_PYTHON')):
        return {'left_out': 'FEAST_PYTHON names no Python with feast[duckdb]'}
    store, each = EmbeddedStore(folder), np.arange(rows // 20)
    left, right = (
        store.get_or_create_feature_group(name, 1, primary_key=['symbol'], schema=SIGNAL)
        for name in ('moments', 'signals')
    )
    for group, late in ((left, 0), (right, MINUTE // 2)):
        group.insert(
            pd.concat(
                [
                    pd.DataFrame(
                        dict(
                            symbol=f'S{s:02}/USD',
                            start_ms=START + MINUTE * each,
                            revision=0,
                            available_ms=START + MINUTE * each + late,
                            score=np.sin(each / 7 + s),
                        )
                    )
                    for s in range(20)
                ]
            )
        )
    view = store.get_or_create_feature_view(
        'feast', 1, query=left.select(['start_ms']).join(right.select(['score']), ['symbol'], 'signal_')
    )
    ours, frame = timed(lambda: view.get_batch_data(START, START + MINUTE * rows))
    for name, group in (('left', left), ('right', right)):
        table = group.read()
        table.assign(event_timestamp=pd.to_datetime(table.available_ms, unit='ms', utc=True))[
            ['symbol', 'event_timestamp', *(['score'] * (name == 'right'))]
        ].to_parquet(folder / f'{name}.parquet')
    store.close()
    done = subprocess.run(
        [python, str(Path(__file__).with_name('feast_join.py')), str(folder), str(rows)],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    return {
        'rows': rows,
        'seconds': round(ours, 3),
        'feast_seconds': theirs['seconds'],
        'times_feast': round(theirs['seconds'] / ours, 1),
        'equal': bool(np.isclose(frame.signal_score.sum(), theirs['sum'], rtol=1e-9, atol=1e-6)),
    }


def bench(rows: int = 1_000_000) -> dict[str, Any]:
    "Return the store's figures."
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            'writes': bench_writes(Path(folder) / 'a'),
            'training_set': bench_training_set(Path(folder) / 'b', rows),
            'month_of_20_symbols': bench_size(Path(folder) / 'c'),
            'feast': bench_feast(Path(folder) / 'd'),
        }
    writes, feast = figures['writes'], figures['feast']
    ratios = {
        **{
            f'insert_{name}_over_plain_sqlite': (writes[name]['over_plain_sqlite'], Bound(at_least=0.2))
            for name in ('candles', 'technical_indicators')
        },
        'online_vector_over_plain_select': (writes['online_over_plain_select'], Bound(at_most=5)),
        'training_set_over_pandas': (figures['training_set']['by_pandas'], Bound(at_most=1)),
        'training_set_equals_pandas': (figures['training_set']['equal'], Bound(at_least=1)),
        'size_over_pandas_parquet': (
            figures['month_of_20_symbols']['over_pandas_parquet'],
            Bound(at_most=1.1),
        ),
    }
    if 'left_out' not in feast:
        ratios |= {
            'feast_over_ours': (feast['times_feast'], Bound(at_least=20)),
            'equals_feast': (feast['equal'], Bound(at_least=1)),
        }
    return judged(figures, **ratios)


if __name__ == '__main__':
    report = bench(*map(int, sys.argv[1:]))
    print(json.dumps(report))
    sys.exit(not report['ok'])
