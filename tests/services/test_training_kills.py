"""A training that is killed at any moment, a second one, and the whole of it on a fresh system."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from apps.cli import main
from crypto_rt.core.settings import Settings, TrainingSettings, to_env
from crypto_rt.models.forecasters import ZeroForecaster
from crypto_rt.models.promotion import promote
from crypto_rt.models.registry import champion, experiment_id, mlflow_client, models, register, versions_of
from crypto_rt.models.training_runs import training_lock
from crypto_rt.services.training import TrainingService, train_in_process, training_command
from tests.models.test_pipelines import candles_of, store_candles
from tests.services.trainings import KEY, NAME, ROOT, settings_in, wait_for

# --- killed while it writes into the registry

STUB = """
import json, sys, time
from pathlib import Path
import mlflow, numpy as np
from crypto_rt.core.settings import TrainingSettings, load_settings
from crypto_rt.models import training_runs
from crypto_rt.models.forecasters import ZeroForecaster
from crypto_rt.models.registry import register

where, flag = sys.argv[1], Path(sys.argv[2])

def train(settings, symbol, interval, horizon, progress):
    model = ZeroForecaster.fit(np.zeros((2, 1), np.float32), np.ones(2), ['mood'], TrainingSettings())
    model.about = dict(level=0.9, lower=-2.0, upper=2.0, floor_bp=1.0)
    name = f'{symbol.replace("/", "-")}_{interval}s_{horizon}s'
    version, run_id = register(settings, model, name=name, parameters={}, figures={}, tags={'verdict': 'better'})
    key = {'interval_seconds': interval, 'horizon_seconds': horizon}
    gate = {'promote': True, 'why': 'CRPS lower, e-value 31'}
    return {'model': name, 'version': version, 'verdict': 'better', **key, **gate}

when, _, call = where.partition(' ')
original = getattr(mlflow.MlflowClient, call, None)

def hang(*given, **named):
    if when == 'after':
        original(*given, **named)
    flag.touch()
    time.sleep(600)

training_runs.train = train
if where:
    setattr(mlflow.MlflowClient, call, hang)
print(json.dumps(training_runs.train_alone(load_settings(), 'BTC/USDT', 300, 600)))
"""


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder whose registry has a champion."
    folder = tmp_path_factory.mktemp('served')
    settings = settings_in(folder)
    model = ZeroForecaster.fit(np.zeros((2, 1), np.float32), np.ones(2), ['mood'], TrainingSettings())
    model.about = {'level': 0.9, 'lower': -1.0, 'upper': 1.0, 'floor_bp': 1.0}
    register(settings, model, name=NAME, parameters={}, figures={}, tags={})
    promote(settings, *KEY, why='first')
    return folder


@pytest.fixture
def stub(served: Path, tmp_path: Path) -> tuple[Settings, Callable[[str], list[str]]]:
    "Settings on a copy of that registry, and the command of a training that hangs at a call of MLflow's client."
    shutil.copytree(served / 'data', tmp_path / 'data')
    (tmp_path / 'stub.py').write_text(STUB)
    return settings_in(tmp_path), lambda where: [
        sys.executable,
        str(tmp_path / 'stub.py'),
        where,
        str(tmp_path / 'flag'),
    ]


def kill_at_flag(process: subprocess.Popen, flag: Path) -> None:
    "Kill a training as soon as it has come so far; it imports MLflow first, which takes its time."
    try:
        wait_for(lambda: flag.exists() or process.poll() is not None, 300)
        assert process.poll() is None, 'it ended before it came so far'
    finally:
        process.kill()
        process.wait()


def statuses(settings: Settings) -> list[str]:
    "What MLflow says of its runs, oldest first."
    client = mlflow_client(settings)
    runs = client.search_runs([experiment_id(settings, client)], order_by=['attributes.start_time'])
    return [run.info.status for run in runs]


@pytest.mark.timeout(900)
def test_a_training_killed_at_any_moment_leaves_nothing_by_half(
    stub: tuple[Settings, Callable[[str], list[str]]], tmp_path: Path
) -> None:
    """Before it registers, and right after the call that makes the version; the champion serves on.

    MLflow says RUNNING of the dead until the next training looks.
    """
    settings, command = stub
    env = {**os.environ, **to_env(settings), 'PYTHONPATH': str(ROOT)}
    for where in ('before log_batch', 'after create_model_version'):
        flag = tmp_path / 'flag'
        flag.unlink(missing_ok=True)
        kill_at_flag(subprocess.Popen(command(where), env=env, cwd=ROOT), flag)
        assert all(row['digest'] and 'half' not in row['verdict'] for row in models(settings)), where
        assert versions_of(settings, NAME) == (['1', '2'] if where.startswith('after') else ['1'])
        serves = champion(settings, *KEY)
        assert serves is not None and serves.version == '1'
        if where == 'before log_batch':
            assert statuses(settings) == ['FINISHED', 'RUNNING']
    assert statuses(settings) == ['FINISHED', 'KILLED', 'FINISHED']
    end = train_in_process(settings, command(''), threading.Event())
    assert end.outcome == 'trained' and end.summary['promoted'], end
    assert statuses(settings) == ['FINISHED', 'KILLED', 'FINISHED', 'FINISHED']
    now = champion(settings, *KEY)
    assert now is not None and now.version == versions_of(settings, NAME)[-1] == '3'


def test_a_second_training_is_refused_by_the_name_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = settings_in(tmp_path)
    with training_lock(settings):
        assert main(['train', '--symbols', 'BTC/USDT', '--data-dir', settings.data.directory]) == 2
    assert f'process {os.getpid()} is training a model' in capsys.readouterr().err.splitlines()[-1]


# --- the whole of it


@pytest.mark.timeout(900)
def test_a_fresh_system_trains_its_first_model_and_says_why_another_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    "The real command, notebook and registry, on a made-up market; the second symbol has too few rows."
    settings = settings_in(tmp_path, 'BTC/USDT, ETH/USDT')
    assert main(['models', '--data-dir', settings.data.directory]) == 0
    out, err = capsys.readouterr()
    assert not out and 'no model is registered' in err and 'crypto-rt train' in err and 'none yet' in err
    store_candles(settings, candles_of(900))
    store_candles(settings, candles_of(90, symbol='ETH/USDT'))
    service = TrainingService(settings, threading.Event(), training_command)
    service.step()
    first, other = (service.status.last[f'{s}-USDT_300s_600s'] for s in ('BTC', 'ETH'))
    assert (first.outcome, first.version) == ('trained', '1') and 'MAE' in first.verdict, first
    assert other.outcome == 'failed' and 'expected at least' in other.verdict, other
    assert [row['model'] for row in models(settings)] == [NAME]
    assert statuses(settings) == ['FINISHED', 'FAILED']
    client = mlflow_client(settings)
    runs = client.search_runs([experiment_id(settings, client)], order_by=['attributes.start_time'])
    assert all(any(f.path.endswith('.ipynb') for f in client.list_artifacts(run.info.run_id)) for run in runs)
    assert 'expected at least' in runs[1].data.tags['why']
    service.step()
    assert statuses(settings) == ['FINISHED', 'FAILED']
    assert main(['models', '--data-dir', settings.data.directory]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)['version'] == '1' and 'scheduled training: last' in err and 'next' in err
