"""The store takes and gives back the same rows, under SIGKILL, with several processes, and with what is broken."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import decode, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.features.table import FEATURE_NAMES
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.store.conform import PROVENANCE, canonical_digest, conform, to_frame
from crypto_rt.store.embedded.sqlite import plain_error
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import candle_history, open_feature_store, open_group
from crypto_rt.store.schema import GROUPS, FeatureDef, struct_of
from tests.store.builders import DAY, KEY, NOON, SCHEMA, candle, indicators, prediction

# --- what goes in comes out


@pytest.mark.parametrize('sealed', [False, True])
def test_every_message_comes_back_equal(store, sealed):
    for name, rows in (
        ('candles', [candle(n) for n in range(5)]),
        ('technical_indicators', [indicators(n) for n in range(5)]),
        ('predictions', [prediction(n) for n in range(5)]),
    ):
        group = open_group(store, name)
        group.insert(rows)
        before = group.read()
        assert (group.materialize() if sealed else 0) in (0, 5)
        assert group.history(KEY) == rows
        pd.testing.assert_frame_equal(group.read(), before)
        pd.testing.assert_frame_equal(to_frame(name, rows), before)
        assert canonical_digest(group.read()) == canonical_digest(to_frame(name, rows))


def test_inserting_twice_is_inserting_once(store):
    group = open_group(store, 'candles')
    rows = [candle(n) for n in range(100)]
    group.insert(rows)
    digest = canonical_digest(group.read())
    group.insert(rows[40:])
    group.materialize(NOON + 50 * 60_000)
    group.insert(rows)
    group.insert_sealed(rows)
    assert canonical_digest(group.read()) == digest and group.history(KEY) == rows


def test_history_takes_the_latest_revision_and_the_newest_rows(store):
    group = open_group(store, 'candles')
    group.insert_sealed([candle(n) for n in range(3000)])
    group.insert([candle(n, '101', revision=1) for n in (5, 2990)] + [candle(n) for n in range(3000, 3010)])
    past = candle_history(store, **KEY, last=100)
    assert [(c.start_ms - NOON) // 60_000 for c in past] == list(range(2910, 3010))
    assert {(c.start_ms - NOON) // 60_000: c.close for c in past if c.revision} == {2990: '101'}
    assert len(candle_history(store, **KEY, before_ms=NOON + 6 * 60_000)) == 6
    assert candle_history(store, **KEY, before_ms=NOON + 6 * 60_000)[-1].close == '101'
    assert candle_history(store, 'ETH/USD', 60) == []


def test_digest_without_provenance_sees_values_only():
    a, b = to_frame('candles', [candle(1)]), to_frame('candles', [candle(1, revision=2, source='exchange')])
    assert canonical_digest(a) != canonical_digest(b) and canonical_digest(a, PROVENANCE) == canonical_digest(
        b, PROVENANCE
    )
    assert canonical_digest(a, PROVENANCE) != canonical_digest(
        to_frame('candles', [candle(1, '100.1')]), PROVENANCE
    )


# --- killed, shared, broken

WRITER = """
import sys
import pandas  # loaded before the first line is printed: the time after it is for writing
from crypto_rt.store.open import open_group
from crypto_rt.store.embedded.store import EmbeddedStore
from tests.store.builders import candle
store, first = EmbeddedStore(sys.argv[1]), int(sys.argv[2])
group = open_group(store, 'candles')
for n in range(first, 10**9, 20):
    group.insert([candle(6 * k, str(k)) for k in range(n, n + 20)])
    print(n + 20, flush=True)
    if n % 100 == 0: group.materialize((1_762_776_000_000 + 6 * n * 60_000) // 86_400_000 * 86_400_000)
"""


def test_kill_9_while_inserting_and_sealing_loses_nothing_acknowledged(tmp_path):
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    acknowledged = 0
    for wait in (0.05, 0.11, 0.19, 0.32):
        writer = subprocess.Popen(
            [sys.executable, '-c', WRITER, str(tmp_path), str(acknowledged)],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        acknowledged = int(writer.stdout.readline())
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().splitlines() if line)])
        writer.wait()
        writer.stdout.close()
        store = EmbeddedStore(tmp_path)
        found = open_group(store, 'candles').read()
        numbers = ((found.start_ms - NOON) // 360_000).tolist()
        assert numbers[:acknowledged] == list(range(acknowledged)), (
            'an acknowledged row is lost, or one is there twice'
        )
        assert len(numbers) % 20 == 0 and found.close.astype(int).tolist() == numbers, (
            'a batch is half stored'
        )
        assert store.database.here().execute('PRAGMA integrity_check').fetchone() == ('ok',)
        store.close()


def test_other_processes_read_and_write_at_once(tmp_path):
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    writers = [
        subprocess.Popen(
            [sys.executable, '-c', WRITER, str(tmp_path), str(first)],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, -50_000)
    ]
    done = [int(writer.stdout.readline()) for writer in writers]
    store, seen = EmbeddedStore(tmp_path), 0
    group = open_group(store, 'candles')
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        rows = group.history(KEY, last=1 << 40)
        starts = [row.start_ms for row in rows]
        assert len(rows) % 20 == 0 and len(rows) >= seen and len(set(starts)) == len(starts)
        seen = len(rows)
    for writer in writers:
        assert writer.poll() is None, 'a writer has failed'
        writer.terminate()
        writer.communicate()
    assert seen > 40 and done == [20, -50_000 + 20]
    store.close()


def test_the_service_takes_a_batch_twice_and_sets_aside_what_does_not_fit(tmp_path):
    chosen = load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path)))
    store = open_feature_store(chosen)
    step = StoreWriter(store, chosen, seal_every_seconds=0)
    future = msgspec.structs.replace(candle(3), available_ms=NOON)
    values = {name: value for name, value in indicators(1).values.items() if name != FEATURE_NAMES[0]}
    sent = [
        Received(key='BTC/USD', value=raw, topic='candles', partition=0, offset=n)
        for n, raw in enumerate([encode(candle(0)), b'nonsense', encode(future), encode(candle(4 * 1440))])
    ]
    letters = [step.take(sent), step.take(sent)]
    assert [decode('dead_letters', out.value).id for out in letters[0]] == ['candles/0/1', 'candles/0/2']
    assert [out.value[:60] for out in letters[0]] == [out.value[:60] for out in letters[1]]
    bad = step.take(
        [
            Received(
                key='BTC/USD',
                value=encode(msgspec.structs.replace(indicators(1), values=values)),
                topic='technical_indicators',
                partition=1,
                offset=5,
            )
        ]
    )
    assert (
        f"missing ['{FEATURE_NAMES[0]}']" in decode('dead_letters', bad[0].value).reason
        and step.open_from('candles', 0) is None
    )
    group = open_group(store, 'candles')
    assert group.history(KEY) == [candle(0), candle(4 * 1440)]
    store.upkeep.join(30)
    assert store.upkeep.exitcode == 0
    hot = store.database.here().execute('SELECT count(*) FROM candles_1_hot').fetchone()
    assert (
        group.history(KEY) == [candle(0), candle(4 * 1440)]
        and hot == (1,)
        and step.counts == {'stored': 4, 'dead_letters': 5}
    )
    store.close()


def test_a_full_disk_leaves_the_store_as_it_was(store):
    group = open_group(store, 'candles')
    group.insert([candle(0)])
    store.database.here().execute(
        f'PRAGMA max_page_count = {store.database.here().execute("PRAGMA page_count").fetchone()[0] + 2}'
    )
    with pytest.raises(OSError, match=r'no space is left to write .*store\.sqlite'):
        group.insert([candle(n) for n in range(1, 2000)])
    assert group.history(KEY) == [candle(0)]


def test_a_damaged_file_is_named_and_the_rest_stays_readable(store, tmp_path):
    group = open_group(store, 'candles')
    group.insert([candle(0), candle(1440)])
    group.materialize()
    first = store.database.here().execute('SELECT path FROM _segments ORDER BY first_ms').fetchone()[0]
    (store.directory / first).write_bytes(b'PAR1 torn')
    for read in (group.read, lambda: group.history(KEY)):
        with pytest.raises(OSError, match=f'segment .*{Path(first).name} cannot be read'):
            read()
    assert (
        group.history(KEY, since_ms=NOON + DAY // 2) == [candle(1440)]
        and len(group.read(NOON + DAY // 2)) == 1
    )
    (store.directory / first).unlink()
    with pytest.raises(OSError, match=f'segment .*{Path(first).name} cannot be read'):
        group.read()
    store.close()
    (store.directory / 'store.sqlite').write_bytes(b'x' * 8192)
    for extra in ('-wal', '-shm'):
        (store.directory / f'store.sqlite{extra}').unlink(missing_ok=True)
    with pytest.raises(OSError, match=r'store\.sqlite is damaged'):
        EmbeddedStore(store.directory)


def test_no_permission_and_a_file_in_the_way_are_said_plainly(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(PermissionError, match='choose another --data-dir'):
        EmbeddedStore(tmp_path / 'file' / 'store')
    for words in ('attempt to write a readonly database', 'unable to open database file'):
        error = plain_error(sqlite3.OperationalError(words), tmp_path / 'store.sqlite')
        assert isinstance(error, PermissionError) and 'check who owns it' in str(error)
    with pytest.raises(PermissionError, match=r'store\.sqlite cannot be opened'):
        (tmp_path / 'store.sqlite').mkdir()
        EmbeddedStore(tmp_path)


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('start_ms', NOON // 1000, 'seconds'),
        ('start_ms', NOON * 1000, 'microseconds'),
        ('available_ms', NOON, 'known before it had ended'),
        ('close', 100.5, 'must be string'),
        ('close', None, 'not null'),
        ('trade_count', 1.0, 'must be bigint'),
        ('trade_count', True, 'must be bigint'),
        ('is_empty', 1, 'must be boolean'),
        ('symbol', None, 'not null'),
    ],
)
def test_rows_that_do_not_fit_are_named_and_none_of_their_batch_is_stored(store, name, value, words):
    group = open_group(store, 'candles')
    rows = [msgspec.structs.asdict(candle(n)) for n in range(4)]
    rows[2][name] = value
    with pytest.raises(ValueError, match=f'candles: row 2 .*{name} .*{words}'):
        group.insert(rows)
    with pytest.raises(ValueError, match='candles: row 2'):
        group.insert(
            pd.DataFrame({key: pd.Series([row[key] for row in rows], dtype=object) for key in rows[0]})
        )
    assert group.read().empty


def test_nan_becomes_null_and_infinity_is_refused(store):
    group = open_group(store, 'technical_indicators')
    group.insert([indicators(1, float('nan'))])
    assert group.history(KEY)[0].values[FEATURE_NAMES[1]] is None
    with pytest.raises(ValueError, match=f'row 0 .*{FEATURE_NAMES[1]} must be finite, was inf'):
        group.insert([indicators(2, float('inf'))])


def test_another_schema_needs_another_version(store):
    store.get_or_create_feature_group('g', 1, primary_key=['symbol'], schema=SCHEMA)
    with pytest.raises(ValueError, match=r'stored with another schema \(value differ\): use version 2'):
        store.get_or_create_feature_group(
            'g', 1, primary_key=['symbol'], schema=[*SCHEMA[:-1], FeatureDef('value', 'bigint')]
        )
    with pytest.raises(ValueError, match='stored with another schema'):
        store.get_or_create_feature_group('g', 1, primary_key=['symbol', 'value'], schema=SCHEMA)
    store.get_or_create_feature_group(
        'g', 2, primary_key=['symbol'], schema=[*SCHEMA[:-1], FeatureDef('value', 'bigint')]
    )
    assert store.get_feature_group('g', 3) is None and store.get_feature_view('v', 1) is None
    with pytest.raises(ValueError, match="lower case letters, digits and _, were 'G'"):
        store.get_or_create_feature_group('G', 1, primary_key=['symbol'], schema=SCHEMA)


def test_conform_keeps_the_last_of_a_key():
    columns = conform(GROUPS['candles'], [candle(0, '1'), candle(1, '2'), candle(0, '3')])
    assert [struct_of(GROUPS['candles'], row).close for row in zip(*columns, strict=True)] == ['2', '3']


def test_the_writer_needs_no_heavy_library(tmp_path):
    code = f"""
import json, sys
from crypto_rt.store.open import candle_history, open_group
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.core.messages import Candle
group = open_group(store := EmbeddedStore({str(tmp_path)!r}), 'candles')
group.insert([Candle('BTC/USD', 60, {NOON}, 0, {NOON + 60000}, *['1'] * 7, 0, '0', 7, 7, None, None, True, False, 'trades', {NOON + 62000})])
assert len(candle_history(store, 'BTC/USD', 60)) == 1
print(json.dumps([name for name in ('pandas', 'duckdb', 'pyarrow', 'talib', 'quixstreams') if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_frames_of_the_benches_are_rows_of_the_store(tmp_path):
    from benches.store_data import candle_frame, indicator_frame

    store = open_feature_store(load_settings('/dev/null', env={}, data={'directory': str(tmp_path)}))
    for name, frame in (('candles', candle_frame), ('technical_indicators', indicator_frame)):
        open_group(store, name).insert(frame('BTC/USD', 50, 1))
        assert len(open_group(store, name).read()) == 50
    store.close()
