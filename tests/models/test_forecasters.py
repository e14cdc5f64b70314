"""Every kind of model keeps the form: one row is as many, saved is as fitted, and what is missing is allowed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crypto_rt.core.settings import TrainingSettings, load_settings
from crypto_rt.models.forecasters import FORECASTERS, Forecaster, ZeroForecaster, clipped_labels
from crypto_rt.models.training import final_model, metrics, out_of_fold, with_intervals
from tests.models.test_training import NAMES, frame_of


def market(rows: int = 900, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    "Return features, some missing and one that never changes, and a target in basis points."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    target = 3 * x[:, 0].astype(float) + np.exp(x[:, 1]) * rng.standard_t(4, rows)
    x[::7, 1] = np.nan
    x[:, 3] = 5.0
    return x, target


@pytest.fixture(params=FORECASTERS)
def model(request: pytest.FixtureRequest) -> Forecaster:
    x, target = market()
    cls = FORECASTERS[request.param]
    return cls.fit(x, target, ['a', 'b', 'c', 'd'], TrainingSettings(trees=40))


def test_a_row_alone_gives_the_bits_of_many(model: Forecaster) -> None:
    "Training predicts in bulk, the service row by row; a model is certified by its bits."
    x, _ = market(300, seed=5)
    many = model.predict(x)
    alone = np.concatenate([model.predict(x[i : i + 1]) for i in range(len(x))])
    assert many.shape == (300, 2) and many.dtype == np.float64 and np.isfinite(many).all()
    assert many.tobytes() == alone.tobytes()


def test_what_is_saved_is_what_was_fitted(model: Forecaster) -> None:
    x, _ = market(100, seed=6)
    model.about = {'level': 0.9, 'symbol': 'A/B', 'lower': -1.5}
    again = type(model).load(model.save())
    assert again.save() == model.save() and again.digest == model.digest
    assert (again.feature_names, again.about, again.kind) == (model.feature_names, model.about, model.kind)
    assert again.predict(x).tobytes() == model.predict(x).tobytes()
    before = model.digest
    model.about = model.about | {'lower': -1.6}
    assert model.digest != before


def test_the_same_rows_give_the_same_bytes(model: Forecaster) -> None:
    x, target = market()
    twice = type(model).fit(x, target, ['a', 'b', 'c', 'd'], TrainingSettings(trees=40))
    assert twice.save() == model.save()


def test_all_values_missing_is_no_error(model: Forecaster) -> None:
    assert np.isfinite(model.predict(np.full((1, 4), np.nan, np.float32))).all()


def test_what_learns_finds_the_return_and_the_size() -> None:
    "And says which feature told it."
    x, target = market(3000)
    y, later = market(1000, seed=8)
    for kind in ('ridge', 'xgboost'):
        model = FORECASTERS[kind].fit(x, target, ['a', 'b', 'c', 'd'], TrainingSettings(trees=300))
        expected, size = model.predict(y).T
        assert np.corrcoef(expected, later)[0, 1] > 0.35, kind
        assert np.corrcoef(size[np.isfinite(y[:, 1])], np.exp(y[np.isfinite(y[:, 1]), 1]))[0, 1] > 0.3, kind
        importance = model.importance()
        assert set(importance) == {'a', 'b', 'c', 'd'} and importance['d'] == 0.0
        assert max(importance, key=importance.get) == 'a', kind


def test_a_crash_does_not_turn_what_is_learned() -> None:
    labels = clipped_labels(np.r_[np.linspace(-10, 10, 1000), -5000.0])
    assert labels.min() > -11 and labels[:, 1].max() <= 11 and labels[-1, 1] == -labels[-1, 0]


def test_the_zero_model_is_the_naive_forecast() -> None:
    "Its figures are the naive ones, by the same examination."
    settings = load_settings(env={}, training={'folds': 4, 'forecaster': 'zero'})
    found = metrics(with_intervals(out_of_fold(frame_of(2000, 1), NAMES, 1, settings), 1, 0.9), 1, 0.9)
    for key in ('mae_bp', 'coverage', 'width_bp', 'interval_score_bp'):
        assert found[key] == pytest.approx(found[f'naive_{key}'], rel=1e-12), key
    assert found['ic'] == 0.0


@pytest.mark.parametrize('kind', FORECASTERS)
def test_training_asks_every_kind_the_same(kind: str) -> None:
    settings = load_settings(env={}, training={'folds': 3, 'trees': 20, 'forecaster': kind})
    frame = frame_of(900, 3)
    unseen = out_of_fold(frame, NAMES, 1, settings)
    model = final_model(frame, NAMES, unseen, settings, symbol='SIM/USD')
    assert model.kind == kind and model.about['symbol'] == 'SIM/USD' and model.about['level'] == 0.9
    assert (unseen['size'] > 0).all() and not unseen.isna().any(axis=None)
    assert isinstance(unseen, pd.DataFrame) and ZeroForecaster.kind in FORECASTERS
