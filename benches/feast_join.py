"""Feast's offline point-in-time join of two tables, timed; run by a Python that has Feast (`bench_store`,
FEAST_PYTHON).

Arguments: a folder with left.parquet (symbol, event_timestamp) and right.parquet (also score). Prints
    one JSON object.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType


def join(folder: Path, rows: int) -> tuple[float, pd.DataFrame]:
    "Return the seconds that the join of the first `rows` left rows takes, and what it gives."
    left = pd.read_parquet(folder / 'left.parquet').head(rows)
    symbol = Entity(name='symbol', join_keys=['symbol'], value_type=ValueType.STRING)
    source = FileSource(path=str(folder / 'right.parquet'), timestamp_field='event_timestamp')
    view = FeatureView(
        name='signals',
        entities=[symbol],
        ttl=timedelta(days=3650),
        schema=[Field(name='score', dtype=Float64)],
        source=source,
    )
    store = FeatureStore(
        config=RepoConfig(
            project='bench',
            registry=str(folder / f'registry{rows}.db'),
            provider='local',
            offline_store={'type': 'duckdb'},
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    store.apply([symbol, view])
    began = time.perf_counter()
    frame = store.get_historical_features(entity_df=left, features=['signals:score']).to_df()
    return time.perf_counter() - began, frame.sort_values(['symbol', 'event_timestamp'])


def main() -> None:
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    join(folder, 100)  # imports and caches
    seconds, frame = join(folder, rows)
    print(json.dumps({'seconds': round(seconds, 3), 'sum': float(frame.score.sum())}))


if __name__ == '__main__':
    main()
