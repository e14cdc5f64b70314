"""What does not fit, and a disk that is full: a clear error, nothing half stored, and the store stays readable."""

import errno
import os
import subprocess
import sys

import msgspec
import pytest

from crypto_rt.core.messages import TechnicalIndicators
from crypto_rt.core.times import now_ms
from crypto_rt.store.conform import to_frame
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import open_group
from tests.store.builders import NOON, candle, indicators
from tests.store.test_store_upkeep import ENV


@pytest.fixture
def store(tmp_path):
    store = EmbeddedStore(tmp_path / 'store')
    yield store
    store.close()


def test_a_row_from_the_future_is_named_and_none_of_its_batch_is_stored(store):
    group, ahead = open_group(store, 'candles'), (now_ms() // 60_000 + 40 * 1440) * 60_000
    with pytest.raises(
        ValueError, match=r"row 1 \(symbol='BTC/USD'.*available_ms \d+ is more than a month after this clock"
    ):
        group.insert([candle(0), candle(1, available_ms=ahead)])
    assert group.read().empty
    group.insert([candle(0), candle(1, available_ms=ahead - 20 * 86_400_000)])


@pytest.mark.parametrize(
    'wrong',
    [
        dict(values={'nope': 1.0}),
        dict(values=dict.fromkeys(indicators(0).values, 1.0) | {'log_return_1': float('inf')}),
        dict(start_ms=NOON // 1000),
        dict(start_ms=NOON * 1000),
        dict(close='100'),
    ],
)
def test_a_wrong_indicator_among_a_thousand_is_named(store, wrong):
    group = open_group(store, 'technical_indicators')
    rows: list[TechnicalIndicators] = [indicators(n) for n in range(1000)]
    rows[700] = msgspec.structs.replace(rows[700], **wrong)
    with pytest.raises(ValueError, match=r'row 700|other columns: missing'):
        group.insert(rows)
    assert group.read().empty


def test_values_without_a_finite_sum_are_stored(store):
    group = open_group(store, 'technical_indicators')
    group.insert([indicators(n, 1.7e308) for n in range(3)])
    group.insert([indicators(3, float('nan'))])
    assert group.read().log_return_5.tolist()[:3] == [
        1.7e308
    ] * 3 and group.read().log_return_5.isna().tolist() == [False] * 3 + [True]


def test_twice_in_one_batch_keeps_the_last_and_an_unknown_group_is_told(store):
    group = open_group(store, 'candles')
    assert group.insert([candle(0, '100'), candle(0, '101')]).rows == 1 and group.read().close.tolist() == [
        '101'
    ]
    with pytest.raises(KeyError, match="no feature group 'nix'; there are candles"):
        open_group(store, 'nix')
    assert store.get_feature_group('candles', 99) is None
    with pytest.raises(ValueError, match='other columns: missing'):
        group.insert(to_frame('candles', [candle(0)]).drop(columns='vwap'))


@pytest.mark.parametrize('what', ['materialize', 'insert_sealed', 'compact'])
def test_a_disk_that_fills_while_a_segment_is_written(store, monkeypatch, what):
    group = open_group(store, 'candles')
    for n in range(2):
        group.insert([candle(2 * n), candle(2 * n + 1)])
        if what == 'compact':
            group.materialize()

    def full(*args, **options):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patched:
        patched.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match=r'segment .*parquet cannot be written .No space left'):
            {
                'materialize': group.materialize,
                'insert_sealed': lambda: group.insert_sealed([candle(n) for n in range(9)]),
                'compact': store.compact,
            }[what]()
    assert len(group.read()) == 4
    group.materialize()
    store.compact()
    assert len(group.read()) == 4


FILLED = """
import resource, signal, sys
from crypto_rt.store.open import open_group
from crypto_rt.store.embedded.store import EmbeddedStore
from tests.store.builders import candle
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
group = open_group(EmbeddedStore(sys.argv[1]), 'candles')
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
for n in range(0, 10**6, 500):
    group.insert([candle(k) for k in range(n, n + 500)])
    print(n + 500, flush=True)
"""


def test_a_file_that_may_not_grow_ends_the_writer_and_keeps_what_was_acknowledged(tmp_path):
    run = subprocess.run(
        [sys.executable, '-c', FILLED, str(tmp_path)], env=ENV, capture_output=True, text=True, check=False
    )
    assert run.returncode and 'store.sqlite' in run.stderr.splitlines()[-1]
    store = EmbeddedStore(tmp_path)
    assert len(open_group(store, 'candles').read()) == int(run.stdout.splitlines()[-1])
    store.close()


def test_a_damaged_segment_is_named_by_statistics_and_by_compaction(store):
    group = open_group(store, 'candles')
    for n in range(2):
        group.insert([candle(n)])
        group.materialize()
    file = sorted(store.directory.glob('segments/*/*'))[0]
    file.write_bytes(b'nothing')
    for ask in (group.statistics, store.compact):
        with pytest.raises(OSError, match=r'segment .*\.parquet cannot be read.*restore it from a copy'):
            ask()
    group.insert([candle(9)])
    assert open_group(store, 'candles').entities() == [('BTC/USD', 60)]
