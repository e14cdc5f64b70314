"""A candles file as the source of a run: from its rows to stored predictions, and the order in which they come."""

import json
import math
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Candle, encode
from crypto_rt.services.candles_replay import in_order, played, replay_candles
from tests.system.test_system import run

FIRST_MS = 1_704_067_200_000


def candles_file(
    path: Path, symbols: dict[str, list[int]], interval_seconds: int = 900, seed: int = 3
) -> Path:
    "Write a random walk for each symbol; its numbers are the windows that it has."
    rng, parts = np.random.default_rng(seed), []
    for symbol, windows in symbols.items():
        close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(windows)))).round(6)
        start = FIRST_MS + np.array(windows, 'int64') * interval_seconds * 1000
        parts.append(
            pd.DataFrame(
                {
                    'symbol': symbol,
                    'start_ms': start,
                    'open': close,
                    'high': close * 1.001,
                    'low': close * 0.999,
                    'close': close,
                    'volume': 1.0,
                    'interval_seconds': interval_seconds,
                }
            )
        )
    pd.concat(parts).to_parquet(path)
    return path


def replayed(file: Path, folder: Path, *arguments: object) -> dict[str, pd.DataFrame]:
    run(
        'up',
        '--source',
        'replay',
        '--file',
        file,
        '--until-idle',
        '--data-dir',
        folder,
        '--no-browser',
        *arguments,
    )
    return {what: exported(folder, what, 'BTC/USDT') for what in ('candles', 'indicators', 'predictions')}


def exported(folder: Path, what: str, symbol: str) -> pd.DataFrame:
    run('export', what, '--symbol', symbol, '--out', folder / 'out.parquet', '--data-dir', folder)
    return pd.read_parquet(folder / 'out.parquet')


@pytest.fixture
def bus(kafka_broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    "The Kafka of this worker, with topics of the test's own: what is replayed goes over it."
    monkeypatch.setenv('CRYPTO_RT_KAFKA_BROKER', kafka_broker)
    monkeypatch.setenv('CRYPTO_RT_KAFKA_TOPIC_PREFIX', f't{uuid.uuid4().hex[:8]}.')


@pytest.mark.usefixtures('bus')
def test_a_candles_file_flows_through_every_service(tmp_path: Path) -> None:
    file = candles_file(
        tmp_path / 'two.parquet', {'BTC/USDT': [*range(200), *range(203, 400)], 'ETH/USDT': [*range(400)]}
    )
    found = replayed(file, tmp_path / 'data')
    rows = pd.read_parquet(file).query("symbol == 'BTC/USDT'")
    assert found['candles'].start_ms.tolist() == rows.start_ms.tolist(), (
        'a missing row is a hole and stays one'
    )
    assert (
        found['candles'][['open', 'high', 'low', 'close']].round(8).to_numpy()
        == rows[['open', 'high', 'low', 'close']].round(8).to_numpy()
    ).all()
    assert (found['candles'].available_ms == found['candles'].start_ms + 902_000).all()
    assert len(found['indicators']) == len(found['predictions']) == 397
    assert (found['predictions'].horizon_seconds == 900).all(), (
        'the default of 300 s is no multiple of a quarter of an hour'
    )
    assert found['predictions'].status.iloc[-1] == 'baseline'
    assert len(exported(tmp_path / 'data', 'candles', 'ETH/USDT')) == 400
    assert 'sha256' in json.loads((tmp_path / 'data' / 'source.json').read_text())


@pytest.mark.usefixtures('bus')
def test_a_second_run_adds_nothing_and_another_file_is_refused(tmp_path: Path) -> None:
    file = candles_file(tmp_path / 'one.parquet', {'BTC/USDT': [*range(60)]})
    first = replayed(file, tmp_path / 'data')
    second = replayed(file, tmp_path / 'data')
    assert all(first[what].equals(second[what]) for what in first)
    other = candles_file(tmp_path / 'other.parquet', {'BTC/USDT': [*range(61)]})
    refused = run(
        'up', '--source', 'replay', '--file', other, '--data-dir', tmp_path / 'data', '--no-browser', code=2
    )
    assert 'holds data of replay the file one.parquet' in refused.stderr


@pytest.mark.usefixtures('bus')
def test_quarters_of_an_hour_of_a_real_market(shared: Path, tmp_path: Path) -> None:
    whole = pd.read_parquet(shared / 'data/canonical/candles/BTC-USDT_15m_2024-12-30.parquet')
    piece = whole.iloc[-1500:]
    piece.to_parquet(tmp_path / 'piece.parquet')
    found = replayed(tmp_path / 'piece.parquet', tmp_path / 'data')
    assert (
        found['candles'][['close', 'volume']].round(8).to_numpy()
        == piece[['close', 'volume']].round(8).to_numpy()
    ).all()
    assert len(found['predictions']) == 1500 and (found['predictions'].status == 'baseline').sum() > 1000


def test_wrong_wishes_get_one_clear_line(tmp_path: Path) -> None:
    file = candles_file(tmp_path / 'one.parquet', {'BTC/USDT': [*range(5)]})
    for arguments, words in (
        (['--interval', 60], 'has candles of 900 s, --interval asks for 60'),
        (['--symbols', 'ETH/USDT'], 'but not ETH/USDT'),
        (['--speed', '0'], '--speed must be a positive number or max'),
    ):
        done = run(
            'up',
            '--source',
            'replay',
            '--file',
            file,
            '--data-dir',
            tmp_path / 'data',
            '--no-browser',
            *arguments,
            code=2,
        )
        assert words in done.stderr and 'Traceback' not in done.stderr


# --- order and pace, without a broker


@given(
    st.dictionaries(
        st.sampled_from(['A/USD', 'B/USD', 'C/USD']), st.sets(st.integers(0, 30), min_size=3), min_size=1
    )
)
def test_candles_come_in_order_of_time_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, symbols: dict[str, set[int]]
) -> None:
    file = candles_file(
        tmp_path_factory.mktemp('order') / 'f.parquet',
        {symbol: sorted(windows) for symbol, windows in symbols.items()},
    )
    found = list(in_order(file, symbols, 900))
    assert [c.available_ms for c in found] == sorted(c.available_ms for c in found)
    assert sorted((c.symbol, (c.start_ms - FIRST_MS) // 900_000) for c in found) == sorted(
        (s, n) for s, windows in symbols.items() for n in windows
    )


def test_a_restart_goes_on_where_the_earlier_life_ended(tmp_path: Path) -> None:
    file = candles_file(tmp_path / 'f.parquet', {'A/USD': [0, 1, 2, 3], 'B/USD': [0, 1, 2, 3]})
    everything, sent = list(in_order(file, ['A/USD', 'B/USD'], 900)), list[Candle]()
    assert replay_candles(everything, math.inf, sent.append, lambda seconds: len(sent) >= 5) is None
    before = played(
        [
            Received(key=c.symbol, value=encode(c), topic='candles', partition=0, offset=n)
            for n, c in enumerate(sent)
        ],
        900,
    )
    assert [*sent, *(c for c in everything if c.start_ms > before.get(c.symbol, 0))] == everything
