"""Targets, splits, intervals, the gate before training, and the honesty of the figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.forecasts.targets import log_returns, walk_forward
from crypto_rt.models.contracts import validate
from crypto_rt.models.prediction_intervals import conformal
from crypto_rt.models.training import (
    choose_interval,
    final_model,
    metrics,
    out_of_fold,
    summary_of_metrics,
    suspicious,
    training_frame,
    with_intervals,
)

ROOT = Path(__file__).parents[2]
FIRST_MS = 1_704_067_200_000
NAMES = ['last_return', 'volatility', 'mood']


@pytest.fixture(scope='module')
def quick() -> Settings:
    "Settings with few trees."
    return load_settings(env={}, training={'trees': 60, 'folds': 4})


def frame_of(
    rows: int,
    seed: int,
    planted: float = 0.0,  # share of the answer that the feature `mood` knows
) -> pd.DataFrame:  # as `training_frame` gives it
    "Return a random walk whose moves come in calm and wild waves."
    rng = np.random.default_rng(seed)
    size = 1e-3 * np.exp(0.7 * np.sin(np.arange(rows + 1) / 50))
    moves = size * rng.standard_t(4, rows + 1) / np.sqrt(2)
    start = FIRST_MS + 300_000 * np.arange(rows)
    mood = rng.normal(size=rows) + planted * moves[1:] / moves.std()
    return pd.DataFrame(
        {
            'symbol': 'SIM/USD',
            'interval_seconds': 300,
            'start_ms': start,
            'available_ms': start + 302_000,
            'close': 100.0,
            'target': moves[1:],
            'last_return': moves[:-1],
            'volatility': size[:-1],
            'mood': mood,
        }
    )


# --- targets


@given(
    steps=st.lists(st.integers(1, 3), min_size=0, max_size=40),
    horizon=st.integers(1, 4),
    partial=st.sets(st.integers(0, 40)),
    seed=st.integers(0, 99),
)
def test_targets_never_cross_a_hole(steps: list[int], horizon: int, partial: set[int], seed: int) -> None:
    "Compare with the definition, read aloud: every candle up to the horizon is there, and whole."
    start = FIRST_MS + 60_000 * np.cumsum([0, *steps])
    close = np.exp(np.random.default_rng(seed).normal(size=len(start)))
    whole = np.array([i not in partial for i in range(len(start))])
    at = {int(s): float(c) for s, c, w in zip(start, close, whole, strict=True) if w}
    found = log_returns(start, close, interval_seconds=60, horizon_seconds=60 * horizon, whole=whole)
    for s, value in zip(start.tolist(), found, strict=True):
        path = [at.get(s + 60_000 * k) for k in range(horizon + 1)]
        if None in path:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(np.log(path[-1] / path[0]), abs=1e-12)


# --- walk forward


@given(
    rows=st.integers(100, 5000),
    folds=st.integers(1, 8),
    purge=st.integers(1, 30),
    embargo=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_no_outcome_of_training_lies_in_its_test(
    rows: int, folds: int, purge: int, embargo: int, seed: int
) -> None:
    "With holes between the rows as well: the last outcome learned from is known before the first prediction is made."
    try:
        split = walk_forward(rows, folds, purge, embargo, least=5)
    except ValueError as error:
        assert f'were {rows}' in str(error)
        return
    start = np.cumsum(np.random.default_rng(seed).choice([1, 1, 1, 7], rows))
    tested = np.concatenate([np.arange(rows)[fold.test] for fold in split])
    assert tested.tolist() == list(range(split[0].test.start, rows))
    for fold in split:
        assert start[fold.train][-1] + purge < start[fold.test][0]
        assert fold.test.start - fold.train.stop == purge + embargo
        assert fold.train.start == 0


# --- intervals


@pytest.mark.parametrize('level', [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize('n', [39, 40, 57, 200])
def test_coverage_is_at_least_the_promise_for_any_shape(level: float, n: int) -> None:
    "The mean over 4,000 samples of fat-tailed, lopsided scores; the finite-sample bound is level to level + 2 / (n + 1)."
    rng = np.random.default_rng(n)
    draws = rng.exponential(size=(4000, n + 1)) ** 2
    cuts = [conformal(row[:n], level) for row in draws]
    share = np.mean([q.lower <= row[n] <= q.upper for q, row in zip(cuts, draws, strict=True)])
    error = 3.5 * np.sqrt(level * (1 - level) / 4000)
    assert level - error <= share <= level + 2 / (n + 1) + error


@given(scores=st.lists(st.floats(-1e6, 1e6), min_size=19, max_size=60), shift=st.floats(-100, 100))
def test_quantiles_are_scores_in_any_order(scores: list[float], shift: float) -> None:
    found = conformal(np.array(scores), 0.9)
    assert found.lower in scores and found.upper in scores and found.lower <= found.upper
    assert conformal(np.array(scores[::-1] + [np.nan]), 0.9) == found


# --- honesty


def test_a_random_walk_shows_no_skill(quick: Settings) -> None:
    "Ten markets without direction: the IC is what chance gives, the error ties with zero, and nothing is suspicious."
    found = []
    for seed in range(10):
        unseen = with_intervals(out_of_fold(frame_of(2500, seed), NAMES, 1, quick), 1, 0.9)
        found.append(metrics(unseen, 1, 0.9))
        assert not suspicious(found[-1])
    ic = np.array([f['ic'] for f in found])
    assert abs(ic.mean()) < 3 * found[0]['ic_error'] / np.sqrt(len(ic))
    assert all(abs(f['mae_bp'] / f['naive_mae_bp'] - 1) < 0.02 for f in found)
    assert np.mean([f['coverage'] for f in found]) == pytest.approx(0.9, abs=0.02)
    assert (
        np.mean([f['width_bp'] / f['naive_width_bp'] for f in found]) < 0.97
    )  # the size of a move can be known, and is used


@pytest.mark.parametrize('planted', [0.6, 3.0])
def test_a_planted_leak_is_suspicious(quick: Settings, planted: float) -> None:
    unseen = with_intervals(out_of_fold(frame_of(2500, 1, planted), NAMES, 1, quick), 1, 0.9)
    found = metrics(unseen, 1, 0.9)
    assert suspicious(found)
    assert 'look for a leak' in summary_of_metrics(found, 0.9, 40)


def test_nothing_after_a_fold_changes_it(quick: Settings) -> None:
    "Prefix invariance: predictions and intervals of a fold are the same, whatever comes later."
    frame = frame_of(2000, 3)
    before = with_intervals(out_of_fold(frame, NAMES, 2, quick), 2, 0.9)
    later = frame.start_ms > before[before.fold == 2].start_ms.max()
    changed = frame.copy()
    changed.loc[later, ['target', *NAMES]] = changed.loc[later, ['target', *NAMES]] * 5 + 1e-3
    after = with_intervals(out_of_fold(changed, NAMES, 2, quick), 2, 0.9)
    pd.testing.assert_frame_equal(before[before.fold <= 2], after[after.fold <= 2])


def test_the_same_data_gives_the_same_bytes(quick: Settings) -> None:
    frame = frame_of(1500, 4)
    made = [final_model(frame, NAMES, out_of_fold(frame, NAMES, 1, quick), quick).save() for _ in range(2)]
    assert made[0] == made[1]


def test_training_frame_leaves_out_what_is_not_known() -> None:
    "Warm-up, partial candles, holes, and a feature that is never there."
    start = FIRST_MS + 60_000 * np.array([0, 1, 2, 4, 5, 6, 7])
    candles = pd.DataFrame(
        {
            'symbol': 'A/B',
            'interval_seconds': 60,
            'start_ms': start,
            'available_ms': start + 62_000,
            'close': np.arange(1.0, 8.0),
        }
    )
    features = pd.DataFrame(
        {
            'start_ms': start,
            'warm_up': [1, 0, 0, 0, 0, 0, 0],
            'is_partial': [False] * 4 + [True, False, False],
            'rsi': 50.0,
            'never': None,
            'seldom': [None] * 5 + [1.0, None],
        }
    )
    frame = training_frame(
        candles, features, interval_seconds=60, horizon_seconds=60, names=('rsi', 'never', 'seldom')
    )
    assert frame.start_ms.tolist() == start[[1, 3, 5]].tolist()
    assert frame.target.tolist() == pytest.approx(np.log([3 / 2, 5 / 4, 7 / 6]))
    assert 'never' not in frame and frame.seldom.isna().tolist() == [True, True, False]


# --- contracts


@pytest.fixture(scope='module')
def candles() -> pd.DataFrame:
    start = FIRST_MS + 60_000 * np.arange(50)
    return pd.DataFrame(
        {
            'symbol': 'BTC/USD',
            'interval_seconds': 60,
            'start_ms': start,
            'end_ms': start + 60_000,
            'open': 10.0,
            'high': 11.0,
            'low': 9.0,
            'close': 10.5,
            'volume': 0.0,
            'is_partial': False,
            'available_ms': start + 62_000,
        }
    )


BAD = {
    'a price of zero': ('low', 0.0, 'column_values_to_be_between(low'),
    'a negative volume': ('volume', -1.0, 'column_values_to_be_between(volume'),
    'a close that is lost': ('close', np.nan, 'column_values_to_not_be_null(close)'),
    'a high below the close': ('high', 10.2, '(high, close)'),
    'a low above the open': ('low', 10.2, '(open, low)'),
    'seconds': ('start_ms', FIRST_MS // 1000, 'column_values_to_be_between(start_ms'),
    'a start twice': ('start_ms', FIRST_MS + 6 * 60_000, 'column_values_to_be_increasing(start_ms)'),
    'another symbol': ('symbol', 'ETH/USD', 'column_unique_value_count_to_be_between(symbol'),
    'a name without a slash': ('symbol', 'BTCUSD', 'column_values_to_match_regex(symbol'),
    'a partial candle': ('is_partial', True, 'column_values_to_be_in_set(is_partial)'),
    'known before its end': ('available_ms', FIRST_MS, '(available_ms, end_ms)'),
}


@pytest.mark.parametrize('fault', BAD)
def test_the_gate_names_the_rule_and_the_row(candles: pd.DataFrame, fault: str) -> None:
    column, value, rule = BAD[fault]
    bad = candles.copy()
    bad[column] = bad[column].astype(object) if column == 'symbol' else bad[column]
    bad.loc[7, column] = value
    with pytest.raises(ValueError, match='nothing was trained') as caught:
        validate('training_candles', bad)
    lines = [line for line in str(caught.value).splitlines() if rule in line]
    assert lines, caught.value
    assert 'unique_value_count' in rule or f'start_ms {bad.start_ms[7]}' in lines[0]


def test_the_gate_lets_good_candles_through(candles: pd.DataFrame) -> None:
    assert validate('training_candles', candles) > 30
    with pytest.raises(ValueError, match=r'row_count_to_be_between.* was 0'):
        validate('training_candles', candles.iloc[:0])


@pytest.mark.parametrize('name', ['training_candles', 'training_frame'])
def test_suite_files_are_plain_and_give_reasons(name: str) -> None:
    "No ids that change with each writing; every rule says why; formatted as this test would write it."
    text = (ROOT / 'data_contracts' / f'{name}.suite.json').read_text(encoding='utf-8')
    suite = json.loads(text)
    assert suite['name'] == name
    assert all(
        set(rule) == {'type', 'kwargs', 'meta'} and rule['meta']['why'] for rule in suite['expectations']
    )
    assert text == json.dumps(suite, indent=2) + '\n'


def test_choose_interval_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match='was 60; there are: 300'):
        choose_interval({300: 10}, 'BTC/USDT', 60)


# --- real prices


def test_real_five_minute_candles_are_honest(shared: Path, quick: Settings) -> None:
    "Simple features of a year's first months: the error ties with the naive one, and the interval keeps its promise."
    candles = pd.read_parquet(shared / 'data/canonical/candles/BTC-USDT_5m_2024-01-01.parquet').iloc[:12_000]
    move = np.log(candles.close).diff()
    frame = (
        pd.DataFrame(
            {
                'start_ms': candles.start_ms,
                'target': log_returns(candles.start_ms, candles.close, 300, 300),
                'last_return': move,
                'volatility': move.rolling(20).std(),
                'mood': np.log(candles.close).diff(12),
            }
        )
        .dropna()
        .reset_index(drop=True)
    )
    found = metrics(with_intervals(out_of_fold(frame, NAMES, 1, quick), 1, 0.9), 1, 0.9)
    assert abs(found['mae_bp'] / found['naive_mae_bp'] - 1) < 0.02
    assert abs(found['ic']) < 0.08
    assert 0.87 < found['coverage'] < 0.95
    assert found['interval_score_bp'] < found['naive_interval_score_bp']
