"""A training earns what it can show: nothing for noise, quantiles that hold, and the right to serve by counted trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_rt.core.settings import Settings, TrainingSettings, load_settings
from crypto_rt.forecasts.gate import GateRules, TrialLog
from crypto_rt.forecasts.path import CandleSeries
from crypto_rt.models.forecasters import RidgeForecaster
from crypto_rt.models.judgement import (
    beside_baseline,
    beside_champion,
    judge_training,
    location_of,
    spoken,
)
from crypto_rt.models.registry import RegisteredModel, registry_dir

ROWS, FIRST_MS, STEP_MS = 20_000, 1_704_067_200_000, 300_000
RULES = GateRules()


class Told:
    "A market, and what a training has said of it."

    def __init__(self, knows_size: float = 1.0, seed: int = 4):
        rng = np.random.default_rng(seed)
        size = 1e-3 * np.exp(0.8 * np.sin(np.arange(ROWS) / 200))
        step = size * rng.standard_t(5, ROWS) / np.sqrt(5 / 3)
        close = 100 * np.exp(np.cumsum(step))
        start_ms = FIRST_MS + np.arange(ROWS) * STEP_MS
        before = np.r_[100.0, close[:-1]]
        ones = np.ones(ROWS)
        high, low = np.maximum(before, close), np.minimum(before, close)
        self.series = CandleSeries('A/B', 300, start_ms, before, high, low, close, ones, ones)
        fields = {
            'start_ms': start_ms[:-1],
            'fold': 1 + np.arange(ROWS - 1) * 4 // ROWS,
            'target': step[1:] * 1e4,
            'expected': rng.normal(0, 1, ROWS - 1),
            'size': 10 * (size[1:] / 1e-3) ** knows_size,
        }
        self.unseen = pd.DataFrame(fields)

    def rivals(self) -> pd.DataFrame:
        return beside_baseline(spoken(self.unseen, 1, 300, 0.0).pairs, self.series, 1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(env={}, data={'directory': str(tmp_path)})


def test_quantiles_hold_in_every_decile_and_use_nothing_that_came_later() -> None:
    told = Told()
    pairs = spoken(told.unseen, 1, 300, 0.0).pairs
    inside = pairs.realised_log_return.between(pairs.q05, pairs.q95)
    shares = inside.groupby(pd.qcut(pairs.volatility, 10, duplicates='drop'), observed=True).mean()
    assert shares.between(0.86, 0.94).all(), shares
    cut = 15_000
    changed = told.unseen.copy()
    changed.loc[cut:, 'target'] *= -7
    again = spoken(changed, 1, 300, 0.0).pairs
    known = pairs.start_ms <= told.unseen.start_ms[cut]
    names = ['q05', 'q25', 'q50', 'q75', 'q95']
    assert pairs[known][names].equals(again[known][names])
    assert not pairs[~known][names].equals(again[~known][names])


def test_a_centre_moves_all_quantiles_by_the_share_that_is_believed() -> None:
    told = Told()
    around, moved = (spoken(told.unseen, 1, 300, share).pairs for share in (0.0, 1.0))
    expected = told.unseen.expected.to_numpy()[-len(moved) :] * 1e-4
    assert np.allclose(moved.q50, expected) and np.allclose(around.q50, 0)


def test_noise_is_no_skill_and_too_little_tells_nothing() -> None:
    told = Told()
    found = location_of(told.unseen, told.series, 1)
    assert found is not None and found.word == 'no skill'
    few = told.series._replace(**{f: getattr(told.series, f)[:40] for f in told.series._fields[2:]})
    assert location_of(told.unseen[:40], few, 1) is None


def test_the_first_model_needs_no_weeks_and_every_later_one_does(settings: Settings) -> None:
    rivals = Told().rivals()
    few = rivals[:1500].reset_index(drop=True)
    first = judge_training(settings, few, ('a', 'one', 'baseline'), RULES, is_first=True, at_ms=1)
    assert first.promote and first.why.startswith('First model, the gate has not spoken yet')
    later = judge_training(settings, few, ('a', 'two', 'one'), RULES, is_first=False, at_ms=2)
    assert not later.promote and later.why.startswith('Kept the champion')
    sure = judge_training(settings, rivals, ('b', 'one', 'baseline'), RULES, is_first=False, at_ms=3)
    assert sure.promote and sure.gate is not None and sure.gate.evidence >= sure.gate.needed
    trials = [
        line for line in TrialLog(registry_dir(settings) / 'trials.jsonl').lines() if line['kind'] == 'trial'
    ]
    assert [(line['stream'], line['number']) for line in trials] == [('a', 1), ('a', 2), ('b', 1)]


def test_what_is_no_better_than_the_baseline_does_not_serve(settings: Settings) -> None:
    rivals = Told().rivals()
    names = [name for name in rivals if name[:1] == 'q']
    chance = np.random.default_rng(1).lognormal(0, 0.3, len(rivals))
    for name in names:  # the baseline's own, made worse by noise in its width
        rivals[name] = rivals[f'champion_{name}'] * chance
    judged = judge_training(settings, rivals, ('a', 'one', 'baseline'), RULES, is_first=True, at_ms=1)
    assert not judged.promote and 'not better' in judged.why
    empty = judge_training(settings, rivals[:0], ('a', 'two', 'one'), RULES, is_first=False)
    assert not empty.promote and empty.gate is None


def test_a_champion_speaks_only_of_what_it_has_not_learned_from() -> None:
    told = Told()
    pairs, shape = spoken(told.unseen, 1, 300, 0.0)
    frame = pd.DataFrame({'start_ms': told.unseen.start_ms, 'a': 0.0})
    x, y = np.zeros((100, 1), np.float32), np.ones(100)
    forecaster = RidgeForecaster.fit(x, y, ['a'], TrainingSettings())
    last_ms = int(told.unseen.start_ms.iloc[8000])
    common = {'level': 0.9, 'lower': -2.0, 'upper': 2.0, 'floor_bp': 0.1, 'last_ms': last_ms}
    forecaster.about = common | shape
    rivals = beside_champion(pairs, frame, RegisteredModel(forecaster.save(), '1', 'ridge'), 300)
    assert len(rivals) and rivals.start_ms.min() > last_ms + 300_000
    assert (rivals.champion_q05 < rivals.champion_q95).all()
    forecaster.about = common
    assert not len(beside_champion(pairs, frame, RegisteredModel(forecaster.save(), '1', 'ridge'), 300))
