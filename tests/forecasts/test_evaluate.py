"""The command `evaluate --candles`, from a file to a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.cli import main
from tests.forecasts.markets import candles_file, clustered_market, rows_of

COLUMNS = [
    'symbol', 'interval_seconds', 'start_ms', 'horizon_seconds', 'model', 'fold', 'q05', 'q10', 'q25', 'q50', 'q75',
    'q90', 'q95', 'probability_up', 'volatility', 'realised_log_return', 'realised_variance',
]  # fmt: skip
OPTIONS = ['--horizons', '1,3', '--folds', '3']


def evaluate(*arguments: object) -> int:
    return main(['evaluate', *map(str, arguments)])


def test_every_forecast_is_written_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    market, out = clustered_market(2500), tmp_path / 'forecasts.parquet'
    file = candles_file(tmp_path / 'candles.parquet', market)
    assert evaluate('--candles', file, *OPTIONS, '--out', out) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out.strip().splitlines()[-1])
    frame = pd.read_parquet(out)
    assert list(frame) == COLUMNS and report['ok'] and report['reports'][0]['rows'] == len(frame)
    assert set(frame.model) == {'naive', 'ewma', 'har', 'xgboost', 'combined'}
    assert set(frame.horizon_seconds) == {300, 900} and set(frame.fold) == {2, 3}
    place = {start: i for i, start in enumerate(market.start_ms.tolist())}
    for row in frame.sample(50, random_state=1).itertuples():
        i, steps = place[row.start_ms], row.horizon_seconds // 300
        path = np.diff(np.log(market.close[i : i + steps + 1]))
        assert row.realised_log_return == pytest.approx(path.sum(), abs=1e-9)
        assert row.realised_variance == pytest.approx((path**2).sum(), abs=1e-12)
    figures = {(row['horizon_seconds'], row['model']): row for row in report['reports'][0]['figures']}
    part = frame[(frame.horizon_seconds == 900) & (frame.model == 'har')]
    y = part.realised_log_return
    missed = 20 * (np.maximum(part.q05 - y, 0) + np.maximum(y - part.q95, 0))
    score = 1e4 * (part.q95 - part.q05 + missed).mean()
    assert figures[900, 'har']['interval_score_bp'] == pytest.approx(score)
    assert 'combined' in printed.err and 'by CRPS' in printed.err


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'few': True}, 'expected at least'),
        ({'still': True}, 'expected a price that moves'),
        ({'nan': True}, 'column close'),
        ({'unproven': True}, 'expected candles seen whole and proven'),
        ({'two': True}, 'name them with --symbols'),
        ({'horizons': '1,x'}, "--horizons: expected numbers of candles such as 1,3,12,36, was 'x'"),
        ({'horizons': '0'}, '--horizons: expected numbers of candles'),
    ],
    ids=lambda value: '' if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_evaluated_is_one_line(
    change: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    market, file = clustered_market(2500), tmp_path / 'candles.parquet'
    if 'few' in change:
        market = rows_of(market, slice(0, 300))
    if 'still' in change:
        market = market._replace(**{name: np.full(2500, 5.0) for name in ('open', 'high', 'low', 'close')})
    if 'nan' in change:
        market.close[1000] = np.nan
    candles_file(file, market, *([market._replace(symbol='ETH/USD')] if 'two' in change else []))
    if 'unproven' in change:
        table = pq.read_table(file)
        pq.write_table(table.append_column('is_unproven', pa.array([True] * table.num_rows)), file)
    options = ['--horizons', change.get('horizons', '1,3'), '--folds', 3]
    assert evaluate('--candles', file, *options, '--out', tmp_path / 'out.parquet') == 2
    printed = capsys.readouterr()
    assert words in printed.err.strip().splitlines()[-1] and not printed.out
    assert not (tmp_path / 'out.parquet').exists()


def test_one_of_several_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    market = clustered_market(2000)
    file = candles_file(tmp_path / 'candles.parquet', market, market._replace(symbol='ETH/USD'))
    out = tmp_path / 'out.parquet'
    assert (
        evaluate('--candles', file, '--horizons', 1, '--folds', 3, '--symbols', 'eth/usd', '--out', out) == 0
    )
    assert set(pd.read_parquet(out).symbol) == {'ETH/USD'}
    capsys.readouterr()


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--candles', 'F', '--horizon', '600'], '--candles goes with --horizons'),
        (['--out', 'P.parquet'], '--out and --folds go with --candles'),
        (['--candles', 'no_such_file.parquet'], 'no_such_file.parquet'),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*options) == 2
    printed = capsys.readouterr()
    assert words in printed.err.strip().splitlines()[-1] and not printed.out
