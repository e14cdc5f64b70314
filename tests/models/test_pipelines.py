"""The training pipeline as `crypto-rt train` runs it: store in, registered model and executed notebook out."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import nbformat
import numpy as np
import pytest

from crypto_rt.core.messages import Candle
from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.features.indicators import indicators_of
from crypto_rt.features.vectors import NEWEST, vector_names, vector_of
from crypto_rt.models.pipelines import run_pipeline
from crypto_rt.models.promotion import promote
from crypto_rt.models.registry import champion, database
from crypto_rt.models.training import columns_sha256, stored_features, train
from crypto_rt.store.open import open_feature_store, open_group

ROOT = Path(__file__).parents[2]
FIRST_MS = 1_704_067_200_000


def candles_of(rows: int, interval: int = 300, seed: int = 5, symbol: str = 'BTC/USDT') -> list[Candle]:
    "Return a seeded random walk as final candles, in waves of calm and storm."
    rng = np.random.default_rng(seed)
    size = 1e-3 * np.exp(0.7 * np.sin(np.arange(rows) / 50))
    path = 60_000 * np.exp(np.cumsum(size * rng.standard_t(4, rows) / np.sqrt(2)))
    reach = size * np.abs(rng.normal(size=rows)) * path
    made, before = [], 60_000.0
    for i in range(rows):
        start, close = FIRST_MS + i * interval * 1000, float(path[i])
        o, h, low, c = (
            f'{v:.2f}' for v in (before, max(before, close) + reach[i], min(before, close) - reach[i], close)
        )
        made.append(
            Candle(
                symbol=symbol,
                interval_seconds=interval,
                start_ms=start,
                revision=0,
                end_ms=start + interval * 1000,
                open=o,
                high=h,
                low=low,
                close=c,
                volume=f'{1 + reach[i]:.4f}',
                quote_volume='0',
                vwap='0',
                trade_count=0,
                buy_volume='0',
                first_trade_id=-1,
                last_trade_id=-1,
                bid=None,
                ask=None,
                is_empty=False,
                is_partial=False,
                source='exchange',
                available_ms=start + interval * 1000 + 2000,
            )
        )
        before = float(c)
    return made


def store_candles(settings: Settings, candles: list[Candle]) -> None:
    store = open_feature_store(settings)
    open_group(store, 'candles').insert(candles)
    open_group(store, 'technical_indicators').insert(indicators_of(candles))
    store.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_in(folder: Path, **training_values: object) -> Settings:
    data = {
        'directory': str(folder / 'data'),
        'symbols': 'BTC/USDT',
        'interval_seconds': 300,
        'horizon_seconds': 600,
    }
    return load_settings(env={}, data=data, training={'folds': 3, 'trees': 20} | training_values)


def test_train_registers_a_challenger_and_keeps_its_report(here: Path) -> None:
    settings = settings_in(here)
    store_candles(settings, candles_of(1500))
    done = train(settings, progress=False)
    assert done['model'] == 'BTC-USDT_300s_600s' and done['version'] == '1'
    assert 'beside' in done['verdict'] and 'for no change' in done['verdict']
    assert done['suspicious'] == []
    assert {
        'mae_bp',
        'naive_mae_bp',
        'r2',
        'ic',
        'direction',
        'coverage',
        'naive_coverage',
        'width_bp',
        'naive_width_bp',
    } <= set(done['figures'])

    executed = nbformat.read(here / done['executed'], 4)
    assert (here / done['executed']).parent == here / 'runs'
    assert any(
        'image/png' in out.get('data', {}) for cell in executed.cells for out in cell.get('outputs', [])
    )
    kept = list((here / 'data' / 'mlartifacts').rglob(Path(done['executed']).name))
    assert len(kept) == 1 and kept[0].read_bytes() == (here / done['executed']).read_bytes()

    assert champion(settings, 'BTC/USDT', 300, 600) is None
    promote(settings, 'BTC/USDT', 300, 600)
    model = champion(settings, 'BTC/USDT', 300, 600)
    assert (
        model is not None
        and model.digest == done['digest']
        and model.about['training_sha256'] == done['training_sha256']
    )
    last = indicators_of(candles_of(1600))[-1]
    expected, lower, upper = model.predict(last.values)
    assert lower < expected < upper and upper - lower < 0.1


def test_another_kind_of_model_is_a_setting(here: Path) -> None:
    "From the store through the pipeline into the registry and out again, with no edit anywhere."
    settings = settings_in(here, forecaster='ridge')
    store_candles(settings, candles_of(1500))
    done = train(settings, progress=False)
    promote(settings, 'BTC/USDT', 300, 600)
    model = champion(settings, 'BTC/USDT', 300, 600)
    assert model is not None and (model.forecaster.kind, model.digest) == ('ridge', done['digest'])
    assert list(model.feature_names) == done['columns'] and done['suspicious'] == []
    expected, lower, upper = model.predict(indicators_of(candles_of(1600))[-1].values)
    assert lower < expected < upper and upper - lower < 0.1


def test_a_model_learns_from_the_leader_as_it_is_served(here: Path) -> None:
    "Its columns are those of a vector; of the leader itself they are null and left out, and so without any leader."
    settings = settings_in(here)
    settings = msgspec.structs.replace(
        settings, features=msgspec.structs.replace(settings.features, leader='BTC/USDT')
    )
    ether, bitcoin = candles_of(1500, seed=6, symbol='ETH/USDT'), candles_of(1500)
    store_candles(settings, ether)
    alone = train(settings, 'ETH/USDT', progress=False)
    store_candles(settings, bitcoin)
    led, leader = (train(settings, symbol, progress=False) for symbol in ('ETH/USDT', 'BTC/USDT'))
    of_leader = {
        f'leader_{name}'
        for name in ('log_return_1', 'log_return_5', 'log_return_15', 'realised_volatility_15')
    }  # nobody says who bought
    assert set(led['columns']) - set(alone['columns']) == of_leader and set(leader['columns']) == set(
        alone['columns']
    )
    assert (
        led['columns_sha256'] == columns_sha256(led['columns']) != alone['columns_sha256']
        and led['feature_set'] == NEWEST
    )

    promote(settings, 'ETH/USDT', 300, 600)
    model = champion(settings, 'ETH/USDT', 300, 600)
    assert model is not None and list(model.feature_names) == led['columns'] and model.feature_set == NEWEST
    assert model.about['columns_sha256'] == led['columns_sha256'] and of_leader <= set(
        vector_names(model.feature_set)
    )
    x, before = indicators_of(ether)[-1], indicators_of(bitcoin)[-2]
    store = open_feature_store(settings)
    frame = stored_features(store, 'ETH/USDT', 300, 'BTC/USDT').iloc[-1]
    store.close()
    vector = vector_of(x, before, ())
    assert [vector[name] for name in model.feature_names] == [frame[name] for name in model.feature_names]
    assert model.predict(vector) != model.predict(vector_of(x, None, ()))


def test_too_little_data_says_how_much_is_needed(here: Path) -> None:
    settings = settings_in(here)
    store_candles(settings, candles_of(600))
    with pytest.raises(
        ValueError,
        match=r'expected at least 248 rows with features and target for 3 folds, were \d+ of 600 candles',
    ):
        train(settings, 'BTC/USDT', progress=False)
    assert not database(settings).exists()


def test_what_to_train_is_never_guessed(here: Path) -> None:
    settings = settings_in(here)
    with pytest.raises(
        ValueError, match='expected candles of BTC/USDT in the store, found none; run crypto-rt backfill'
    ):
        train(settings, progress=False)
    store_candles(settings, candles_of(30))
    store_candles(settings, candles_of(40, interval=60))
    with pytest.raises(
        ValueError,
        match=r'several intervals of BTC/USDT: 60 \(40 candles\), 300 \(30 candles\); choose one with --interval',
    ):
        train(settings, progress=False)
    with pytest.raises(ValueError, match=r'expected an interval of BTC/USDT that is stored, was 900'):
        train(settings, interval_seconds=900, progress=False)
    with pytest.raises(
        ValueError, match=r'horizon_seconds must be a multiple of interval_seconds \(300\), was 450'
    ):
        train(settings, interval_seconds=300, horizon_seconds=450, progress=False)


def test_an_unknown_parameter_is_an_error(here: Path) -> None:
    "Papermill itself would log a warning and train with the default."
    with pytest.raises(
        ValueError,
        match=r'train.ipynb has no parameter horizon; there are: environment, horizon_seconds, interval_seconds, symbol',
    ):
        run_pipeline(ROOT / 'pipelines/train.ipynb', here / 'out.ipynb', {'horizon': 300}, progress=False)
    assert not (here / 'out.ipynb').exists()


def test_a_failing_pipeline_fails_with_its_own_words(here: Path) -> None:
    "A canary: a notebook that must fail does, in one line, and the executed copy is kept."
    kernel = {'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'python3'}}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("raise ValueError('2 rules are broken')")], metadata=kernel
    )
    nbformat.write(notebook, here / 'canary.ipynb')
    with pytest.raises(ValueError, match=r'2 rules are broken \(the executed notebook is'):
        run_pipeline(here / 'canary.ipynb', here / 'runs' / 'canary.ipynb', {}, progress=False)
    assert (here / 'runs' / 'canary.ipynb').exists()


def test_pipeline_notebooks_are_stored_without_outputs() -> None:
    "With a kernelspec that papermill understands and one cell of parameters, literals only."
    for file in (ROOT / 'pipelines').glob('*.ipynb'):
        notebook = json.loads(file.read_text(encoding='utf-8'))
        assert notebook['metadata']['kernelspec']['language'] == 'python'
        assert sum('parameters' in cell['metadata'].get('tags', []) for cell in notebook['cells']) == 1
        assert not any(cell.get('outputs') for cell in notebook['cells'])
