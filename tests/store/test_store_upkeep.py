"""Merging, retention and figures; kills at chosen places and at random ones; several processes at once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crypto_rt.store.catalogue import catalogue, catalogue_entry, catalogue_text
from crypto_rt.store.conform import canonical_digest
from crypto_rt.store.embedded import group as group_module
from crypto_rt.store.embedded.compaction import retention_of, sweep_files
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import open_group
from tests.store.builders import DAY, KEY, NOON, candle, indicators

MINUTE = 60_000


@pytest.fixture
def store(tmp_path):
    store = EmbeddedStore(tmp_path / 'store')
    yield store
    store.close()


def filled(store, seed):
    "Insert, replace, revise and seal in a seeded order; return the candles' group and what it must hold."
    chance, group, held = random.Random(seed), open_group(store, 'candles'), {}
    for _ in range(30):
        rows = [
            candle(
                chance.randrange(6) * 720 + chance.randrange(3),
                str(chance.randrange(1, 1000)),
                chance.randrange(2),
            )
            for _ in range(chance.randrange(1, 6))
        ]
        way = chance.choice((group.insert, group.insert, group.insert_sealed))
        way(rows)
        held |= {(row.start_ms, row.revision): row.close for row in rows}
        if chance.random() < 0.4:
            group.materialize(chance.choice((None, NOON + 2 * DAY)))
        if chance.random() < 0.2:
            store.compact()
    return group, held


@pytest.mark.parametrize('seed', range(6))
def test_merging_changes_nothing_that_is_read(store, seed):
    group, held = filled(store, seed)
    pasts = [
        group.read(as_of=as_of, all_revisions=every)
        for as_of in (None, NOON + DAY)
        for every in (False, True)
    ]
    digests = [canonical_digest(frame) for frame in pasts]
    assert (
        dict(zip(zip(pasts[1].start_ms, pasts[1].revision, strict=True), pasts[1].close, strict=True)) == held
    )
    store.compact()
    assert [
        canonical_digest(group.read(as_of=as_of, all_revisions=every))
        for as_of in (None, NOON + DAY)
        for every in (False, True)
    ] == digests
    assert store.compact()['merged'] == 0


def test_an_old_revision_stays_readable_as_of_its_time(store):
    group = open_group(store, 'candles')
    first, second = (
        candle(0, '100', available_ms=NOON + 62_000),
        candle(0, '101', 1, available_ms=NOON + 5 * MINUTE),
    )
    group.insert([first])
    group.materialize()
    group.insert([second])
    for _ in range(3):
        assert group.read(as_of=NOON + 61_999).empty
        assert group.read(as_of=NOON + 5 * MINUTE - 1).close.tolist() == ['100']
        assert group.read(as_of=NOON + 5 * MINUTE).close.tolist() == [
            '101'
        ] and group.read().close.tolist() == ['101']
        group.materialize()
        store.compact()
    assert catalogue(store)[0]['segments'] == 1


# --- killed


POSITIONS = {
    'before the file is written': 'Segments.write = kill',
    'after the file is written': 'after(Segments, "write")',
    'while the file is written': 'import pyarrow.parquet as pq; after(pq, "write_table")',
    'after the manifest changed': 'after(Compaction, "_replace")',
    'after the segment is listed': 'after(Segments, "enter")',
    'while old files are deleted': 'after(Path, "unlink")',
}
KILLED = """
import os, signal, sys
from pathlib import Path
from crypto_rt.store.embedded.compaction import Compaction
from crypto_rt.store.embedded.segments import Segments
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import open_group
def kill(*args, **options): os.kill(os.getpid(), signal.SIGKILL)
def after(place, name):
    real = getattr(place, name)
    setattr(place, name, lambda *args, **options: (real(*args, **options), kill()))
store = EmbeddedStore(Path(sys.argv[1]))
exec(sys.argv[3])
open_group(store, 'candles').materialize() if sys.argv[2] == 'seal' else store.compact(grace_ms=-1)
"""
ENV = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('what', ['seal', 'compact'])
def test_kill_9_at_a_chosen_place_loses_and_doubles_nothing(store, what, position):
    group = open_group(store, 'candles')
    for n in range(3):
        group.insert([candle(5 * n + k) for k in range(7)])
        if what == 'compact':
            group.materialize()
    digest = canonical_digest(group.read())
    run = subprocess.run(
        [sys.executable, '-c', KILLED, str(store.directory), what, POSITIONS[position]], env=ENV, check=False
    )
    reached = (
        (what == 'seal') != position.startswith(('while old', 'after the manifest'))
        if 'listed' not in position
        else what == 'seal'
    )
    reached = reached or (what == 'compact' and 'listed' not in position)
    assert run.returncode == (-signal.SIGKILL if reached else 0)
    assert canonical_digest(group.read()) == digest and len(group.history(KEY)) == 17
    group.materialize()
    store.compact(grace_ms=-1)
    for file in store.directory.glob('segments/*/*'):
        os.utime(file, (0, 0))
    sweep_files(store.database)
    assert canonical_digest(group.read()) == digest
    assert len(list(store.directory.glob('segments/*/*'))) == catalogue(store)[0]['segments'] == 1


WRITER = """
import sys
import pandas  # loaded before the first line is printed: the time after it is for writing
from crypto_rt.store.open import open_group
from crypto_rt.store.embedded.store import EmbeddedStore
from tests.store.builders import candle
store, first = EmbeddedStore(sys.argv[1]), int(sys.argv[2])
group = open_group(store, 'candles')
for n in range(first, 10**9, 20):
    group.insert([candle(k, str(k)) for k in range(n, n + 20)])
    print(n + 20, flush=True)
    if n % 40 == 0: group.materialize()
    if n % 80 == 0: store.compact(grace_ms=-1)
"""


def test_kill_9_at_random_loses_nothing_acknowledged(tmp_path):
    chance, acknowledged = random.Random(5), 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, '-c', WRITER, str(tmp_path), str(acknowledged)],
            env=ENV,
            stdout=subprocess.PIPE,
            text=True,
        )
        acknowledged = int(writer.stdout.readline())
        time.sleep(chance.uniform(0.05, 1))
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().splitlines() if line)])
        writer.wait()
        writer.stdout.close()
        store = EmbeddedStore(tmp_path)
        found = open_group(store, 'candles').read()
        numbers = ((found.start_ms - NOON) // 60_000).tolist()
        assert (
            numbers[:acknowledged] == list(range(acknowledged))
            and len(numbers) == len(set(numbers))
            and len(numbers) % 20 == 0
        )
        assert store.database.here().execute('PRAGMA integrity_check').fetchone() == ('ok',)
        store.close()


def test_reading_goes_on_while_another_process_merges(tmp_path):
    store = EmbeddedStore(tmp_path)
    writer = subprocess.Popen(
        [sys.executable, '-c', WRITER.replace('grace_ms=-1', ''), str(tmp_path), '0'],
        env=ENV,
        stdout=subprocess.PIPE,
        text=True,
    )
    writer.stdout.readline()
    seen, until = 0, time.monotonic() + 4
    while time.monotonic() < until:
        numbers = (open_group(store, 'candles').read().start_ms - NOON) // 60_000
        assert numbers.tolist() == list(range(len(numbers))) and len(numbers) >= seen
        seen = len(numbers)
    assert writer.poll() is None and seen > 20
    writer.kill()
    writer.wait()
    writer.stdout.close()
    store.close()


# --- retention


def test_retention_is_off_until_asked_for_and_says_what_is_lost(store):
    group = open_group(store, 'candles')
    for day in range(6):
        group.insert([candle(day * 1440 + n) for n in range(3)])
        if day < 4:
            group.materialize()
    assert store.compact() == {'merged': 0, 'expired_rows': 0, 'warnings': [], 'files_deleted': 0}
    dry = store.compact('candles=3', dry=True)
    assert dry['expired_rows'] == 6 and len(group.read()) == 18
    done = store.compact('candles=3')
    assert done['expired_rows'] == 6 and len(group.read()) == 12
    assert (
        'candles: 6 rows before 2025-11-12' in done['warnings'][0]
        and 'features cannot be computed again' in done['warnings'][0]
    )
    assert group.compaction.expire(3) == (0, NOON // DAY * DAY + 2 * DAY, '')
    assert group.entities() == [('BTC/USD', 60)], 'what is served online stays'


@pytest.mark.parametrize('text', ['x', 'candles=', 'candles=0', '-3', 'nix=4'])
def test_a_wrong_retention_is_named(text):
    with pytest.raises(ValueError, match=re.escape(f'was {text!r}')):
        retention_of(text)


# --- figures


def test_figures_equal_pandas_over_hot_and_sealed_and_are_remembered(store, monkeypatch):
    group, rng = open_group(store, 'technical_indicators'), np.random.default_rng(3)
    for part in range(2):
        group.insert([indicators(100 * part + n, float(rng.normal())) for n in range(100)])
        if not part:
            group.materialize()
    figures, frame = group.statistics(), group.read()
    for name in group.definition.names[10:14]:
        x, found = frame[name].astype(float), figures[name]
        assert (found['count'], found['nulls']) == (x.count(), x.isna().sum())
        if x.count():
            assert [found[k] for k in ('min', 'max', 'mean', 'std', 'q05', 'q50', 'q95')] == pytest.approx(
                [x.min(), x.max(), x.mean(), x.std(), *x.quantile([0.05, 0.5, 0.95])]
            )
    monkeypatch.setattr(group_module, 'column_figures', None)
    assert group.statistics() == figures
    monkeypatch.undo()
    group.insert([indicators(500)])
    assert group.statistics()['warm_up']['count'] == 201
    assert group.statistics(NOON, NOON + 50 * MINUTE)['warm_up']['count'] == 50


def test_the_catalogue_tells_what_features_mean(store):
    open_group(store, 'technical_indicators').insert([indicators(0)])
    found = catalogue_entry(store, 'technical_indicators', statistics=True)
    assert all(f['meaning'] for f in found['features'][10:]) and found['rows_hot'] == 1
    text = catalogue_text(store, 'technical_indicators', statistics=True)
    assert (
        'q50' in text
        and 'log_return_1' in text
        and json.loads(catalogue_text(store, None, as_json=True))[0]['primary_key']
        == ['symbol', 'interval_seconds']
    )
    with pytest.raises(KeyError, match="no feature group 'nix'; there are technical_indicators"):
        catalogue_entry(store, 'nix')
    with pytest.raises(KeyError, match='version 99; there are'):
        catalogue_entry(store, 'technical_indicators', 99)
