"""The registry: what we read beside what MLflow says, promotion, the way back, damage."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_rt.core.settings import Settings, TrainingSettings, load_settings
from crypto_rt.models.forecasters import FORECASTERS, Forecaster, ZeroForecaster, forecaster_of
from crypto_rt.models.promotion import champions_before, promote, promotions, rollback
from crypto_rt.models.registry import (
    _LOADED,
    RegisteredModel,
    champion,
    champion_version,
    database,
    load,
    mlflow_client,
    models,
    register,
)

KEY = ('BTC/USDT', 300, 600)
NAME = 'BTC-USDT_300s_600s'


ABOUT_IT = {'level': 0.9, 'lower': -2.0, 'upper': 2.0, 'floor_bp': 0.1}


def small_forest(seed: int) -> Forecaster:
    "Return a small model with an interval inside."
    return fitted('xgboost', seed)


def fitted(kind: str, seed: int) -> Forecaster:
    "Return a small model of a kind, with an interval inside."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    model = forecaster_of(kind).fit(
        x, x[:, 0].astype(float), ['a', 'b'], TrainingSettings(trees=5, seed=seed)
    )
    model.about = dict(ABOUT_IT)
    return model


@pytest.fixture(scope='module')
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A data directory with three versions of one model and one of another."
    folder = tmp_path_factory.mktemp('registry') / 'data'
    settings = load_settings(env={}, data={'directory': str(folder)})
    for seed in range(3):
        register(
            settings,
            small_forest(seed),
            name=NAME,
            parameters={'seed': seed},
            figures={'mae_bp': 9.7 + seed, 'naive_mae_bp': 9.67},
            tags={'verdict': f'number {seed}'},
        )
    register(settings, small_forest(9), name='ETH-USD_60s_300s', parameters={}, figures={}, tags={})
    return folder


@pytest.fixture
def settings(filled: Path, tmp_path: Path) -> Settings:
    "Settings on a copy of that directory: moved, so every absolute path in MLflow's database points elsewhere."
    shutil.copytree(filled, tmp_path / 'moved')
    return load_settings(env={}, data={'directory': str(tmp_path / 'moved')})


def test_what_we_read_is_what_mlflow_says(settings: Settings) -> None:
    client = mlflow_client(settings)
    promote(settings, *KEY, version=2)
    assert (
        champion_version(settings, *KEY)
        == str(client.get_model_version_by_alias(NAME, 'champion').version)
        == '2'
    )
    for row in models(settings):
        theirs = client.get_model_version(row['model'], row['version'])
        assert row['digest'] == theirs.tags['digest']
        assert row['verdict'] == theirs.tags.get('verdict', '')
        assert set(row['aliases']) == {
            a
            for a, v in client.get_registered_model(row['model']).aliases.items()
            if str(v) == row['version']
        }
    assert [(row['model'], row['version']) for row in models(settings)] == [
        (NAME, '1'),
        (NAME, '2'),
        (NAME, '3'),
        ('ETH-USD_60s_300s', '1'),
    ]
    assert next(row for row in models(settings) if row['version'] == '2')['mae_bp'] == 10.7


def test_mlflow_itself_loads_the_same_model(filled: Path) -> None:
    "Whoever comes with MLflow's own tools gets the same bytes and the same numbers."
    import mlflow

    settings = load_settings(env={}, data={'directory': str(filled)})
    mlflow_client(settings)
    theirs = mlflow.xgboost.load_model(f'models:/{NAME}@challenger')
    ours = load(settings, NAME, '3')
    assert bytes(theirs.save_raw('ubj')) == ours.forecaster.save()
    expected, lower, upper = ours.predict({'a': 0.5, 'b': -1.0})
    both = theirs.inplace_predict(np.array([[0.5, -1.0]], np.float32), validate_features=False)[0].astype(
        float
    )
    assert (expected, upper - expected) == pytest.approx((both[0] * 1e-4, 2 * both[1] * 1e-4))
    assert expected - lower == pytest.approx(upper - expected)


@pytest.mark.parametrize('kind', FORECASTERS)
def test_every_kind_is_registered_promoted_and_served(kind: str, tmp_path: Path) -> None:
    "The same bytes and the same numbers come back, and MLflow says the kind."
    settings, model = load_settings(env={}, data={'directory': str(tmp_path)}), fitted(kind, 4)
    version, _ = register(settings, model, name=NAME, parameters={'x': 1}, figures={'mae_bp': 1.0}, tags={})
    promote(settings, *KEY)
    served = champion(settings, *KEY)
    assert served is not None and (served.version, served.digest) == (version, model.digest)
    expected, size = model.predict(np.array([[0.5, np.nan]], np.float32))[0] * 1e-4
    assert served.predict({'a': 0.5, 'b': None, 'more': 1.0}) == (
        expected,
        expected - 2 * max(size, 1e-5),
        expected + 2 * max(size, 1e-5),
    )
    theirs = mlflow_client(settings).get_model_version(NAME, version)
    assert theirs.tags['kind'] == kind and theirs.tags['digest'] == model.digest


def test_a_kind_of_ones_own_needs_an_entry_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Half(ZeroForecaster):
        kind = 'half'

        def predict(self, features: np.ndarray) -> np.ndarray:
            return np.tile([0.5, 1.0], (len(features), 1))

    monkeypatch.setitem(FORECASTERS, 'half', Half)
    settings = load_settings(env={}, data={'directory': str(tmp_path)})
    register(settings, fitted('half', 1), name=NAME, parameters={}, figures={}, tags={})
    promote(settings, *KEY)
    served = champion(settings, *KEY)
    assert served is not None and served.predict({'a': 1.0, 'b': 1.0})[0] == pytest.approx(0.5e-4)
    _LOADED.clear()
    monkeypatch.delitem(FORECASTERS, 'half')
    with pytest.raises(ValueError, match="was 'half'; there are: " + ', '.join(FORECASTERS)):
        champion(settings, *KEY)


def test_a_model_registered_before_there_were_kinds_is_a_forest(settings: Settings) -> None:
    import sqlite3

    with sqlite3.connect(database(settings)) as there:
        there.execute("DELETE FROM model_version_tags WHERE key = 'kind'")
    _LOADED.clear()
    assert load(settings, NAME, '1').forecaster.kind == 'xgboost'


def test_promotion_and_rollback_are_logged(settings: Settings) -> None:
    assert champion(settings, *KEY) is None
    assert promote(settings, *KEY, why='first')['version'] == '3'  # the challenger
    promote(settings, *KEY, version=1, why='simpler')
    assert rollback(settings, *KEY, why='worse')['version'] == '3'
    model = champion(settings, *KEY)
    assert model is not None and model.version == '3'
    rollback(settings, *KEY)
    assert champion(settings, *KEY) is None
    log = promotions(settings, NAME)
    assert [(line['action'], line['previous'], line['version'], line['why']) for line in log] == [
        ('promote', None, '3', 'first'),
        ('promote', '3', '1', 'simpler'),
        ('rollback', '1', '3', 'worse'),
        ('rollback', '3', None, 'by hand'),
    ]
    assert promotions(settings, 'ETH-USD_60s_300s') == []


def test_a_torn_log_line_costs_one_line(settings: Settings) -> None:
    "A power cut in the middle of writing: the line before and the line after stay readable."
    promote(settings, *KEY, version=1)
    file = Path(settings.data.directory) / 'promotions.jsonl'
    with file.open('a') as out:
        out.write('{"at_ms": 17')
    promote(settings, *KEY, version=2)
    assert [line['version'] for line in promotions(settings)] == ['1', '2']
    assert file.read_text().count('\n') == 3


@given(st.lists(st.sampled_from(['1', '2', '3', 'back']), max_size=30))
def test_rollback_undoes_the_last_promotion(moves: list[str]) -> None:
    "Compare with a stack kept by hand."
    stack, lines = [None], []
    for move in moves:
        if move == 'back' and len(stack) > 1:
            stack.pop()
            lines.append({'action': 'rollback', 'version': stack[-1]})
        elif move != 'back':
            stack.append(move)
            lines.append({'action': 'promote', 'version': move})
    assert champions_before(lines) == stack


def test_a_changed_file_does_not_serve(settings: Settings) -> None:
    promote(settings, *KEY, version=2)
    for file in Path(settings.data.directory).rglob('model.ubj'):
        changed = RegisteredModel(file.read_bytes(), '0').forecaster
        changed.about |= {'lower': 0, 'upper': 0}
        file.write_bytes(changed.save())
    _LOADED.clear()
    with pytest.raises(ValueError, match='it was changed'):
        champion(settings, *KEY)


def test_errors_name_what_there_is(settings: Settings) -> None:
    with pytest.raises(ValueError, match='was 9; there are: 1, 2, 3'):
        promote(settings, *KEY, version=9)
    with pytest.raises(ValueError, match='there are: BTC-USDT_300s_600s, ETH-USD_60s_300s; train one first'):
        promote(settings, 'BTC/USDT', 60, 600)
    with pytest.raises(ValueError, match='no promotion to take back'):
        rollback(settings, *KEY)
    promote(settings, *KEY, version=1)
    with pytest.raises(ValueError, match='is the champion already'):
        promote(settings, *KEY, version='1')


def test_another_database_is_an_error_not_a_silent_no(settings: Settings) -> None:
    import sqlite3

    with sqlite3.connect(database(settings)) as there:
        there.execute('ALTER TABLE registered_model_aliases RENAME COLUMN alias TO nickname')
    with pytest.raises(RuntimeError, match=r'is not what MLflow 3\.17\.2 makes'):
        champion_version(settings, *KEY)


def test_asking_for_the_champion_is_cheap(settings: Settings) -> None:
    "Under 50 ms a question, so that it can be asked for each candle; the model is loaded once."
    promote(settings, *KEY)
    first = champion(settings, *KEY)
    began = time.perf_counter()
    assert all(champion(settings, *KEY) is first for _ in range(50))
    assert (time.perf_counter() - began) / 50 < 0.05


def test_reading_imports_no_mlflow(settings: Settings, tmp_path: Path) -> None:
    "Neither where there is no database, nor where there is one."
    promote(settings, *KEY)
    for folder, version in ((str(tmp_path / 'nothing'), 'None'), (settings.data.directory, '3')):
        code = f"""
import sys
from crypto_rt.models import registry
from crypto_rt.core.settings import load_settings
settings = load_settings(env={{}}, data=dict(directory={folder!r}))
model = registry.champion(settings, *{KEY!r})
registry.models(settings)
print(model and model.version, 'mlflow' in sys.modules)
"""
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [version, 'False']
    assert not (tmp_path / 'nothing').exists()
