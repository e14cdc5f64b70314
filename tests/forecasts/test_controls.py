"""Controls ring for what is wrong, and only for that."""

from pathlib import Path

import numpy as np
import pytest

from crypto_rt.core.settings import load_settings
from crypto_rt.forecasts.controls import (
    POISONS,
    information_coefficient,
    judge_location,
    lag_profile,
    location_outcomes,
    looks_ahead,
    null_market,
    poisoned,
)
from crypto_rt.forecasts.evaluation import read_markets
from crypto_rt.forecasts.path import CandleSeries
from crypto_rt.forecasts.scale_features import one_candle_returns
from crypto_rt.forecasts.targets import walk_forward
from crypto_rt.verify.lag import planted_locations, served_location, verify_lag, with_bounce
from crypto_rt.verify.leaks import FOLDS, HORIZON, LEAKS, honest_signals, plant_leak, verify_leaks, walked
from tests.forecasts.markets import candles_file, clustered_market, rows_of
from tests.repeat import many

RIDGE = load_settings(env={}, training={'forecaster': 'ridge'})
COLUMNS = ('open', 'high', 'low', 'close', 'volume', 'trade_count')


@pytest.mark.parametrize('poison', POISONS)
def test_poison_leaves_the_past_alone_and_is_a_market(poison: str) -> None:
    series = clustered_market(500)
    other = poisoned(series, 300, poison)
    assert (other.start_ms == series.start_ms).all()
    for name in COLUMNS:
        assert (getattr(other, name)[:301] == getattr(series, name)[:301]).all()
    assert (other.close[301:] != series.close[301:]).all()
    assert (other.low <= np.minimum(other.open, other.close) * (1 + 1e-12)).all()
    assert (other.high >= np.maximum(other.open, other.close) * (1 - 1e-12)).all()
    assert (other.low > 0).all()


@pytest.mark.parametrize('leak', LEAKS, ids=lambda leak: leak.__name__)
def test_every_kind_of_leak_is_found_at_any_reach_and_share(leak) -> None:
    series = clustered_market(1500, seed=11)
    starts = [fold.test.start for fold in walk_forward(1500, FOLDS, HORIZON)]
    for seed in range(many(3)):
        signal, about = plant_leak(series, leak, np.random.default_rng(seed))
        assert looks_ahead(signal, series, starts, seed=seed) is not None, about


@pytest.mark.parametrize('name', sorted(honest_signals(clustered_market(200))))
def test_no_honest_signal_is_accused(name: str) -> None:
    for seed in range(many(3)):
        series = clustered_market(1500, seed=seed)
        signal = honest_signals(series)[name]
        starts = [fold.test.start for fold in walk_forward(1500, FOLDS, HORIZON)]
        assert looks_ahead(signal, series, starts, seed=seed) is None


def test_an_offence_is_named() -> None:
    series = clustered_market(400)

    def second_column_leaks(candles: CandleSeries) -> np.ndarray:
        return np.c_[candles.close, np.append(candles.close[1:], 0.0)]

    found = looks_ahead(second_column_leaks, series)
    assert found is not None and found.column == 1 and found.row == found.cut and found.was != found.became


def test_a_gap_that_is_too_small_shows_where_a_fold_begins() -> None:
    series = clustered_market(1500)
    starts = [fold.test.start for fold in walk_forward(1500, FOLDS, HORIZON)]
    assert looks_ahead(lambda c: walked(c, HORIZON), series, starts) is None
    assert looks_ahead(lambda c: walked(c, HORIZON - 2), series, starts) is not None


def test_a_null_market_keeps_how_far_and_loses_where_to() -> None:
    series = with_bounce(clustered_market(6000), 1)
    returns, null = one_candle_returns(series), one_candle_returns(null_market(series, 5))
    assert np.abs(null) == pytest.approx(np.abs(returns))
    shuffled = one_candle_returns(null_market(series, 5, shuffle=True))
    assert np.sort(np.abs(shuffled)) == pytest.approx(np.sort(np.abs(returns)))

    def neighbours(x: np.ndarray) -> float:
        return float(np.corrcoef(x[1:], x[:-1])[0, 1])

    assert neighbours(returns) < -0.1 and abs(neighbours(null)) < 0.04
    assert neighbours(np.abs(null)) > 0.1 and abs(neighbours(np.abs(shuffled))) < 0.04


def test_the_ic_is_that_of_all_ranks_and_has_no_bias_on_a_random_walk() -> None:
    "Ranked day by day, a momentum on a random walk would seem to be punished: t of -4 on nine months."
    tries, wrong, total = many(60), 0, 0.0
    for seed in range(tries):
        series = null_market(clustered_market(4000, seed=seed), seed)
        returns = one_candle_returns(series)
        momentum = np.convolve(returns, np.ones(12))[:4000]
        found = information_coefficient(momentum, np.append(returns[1:], np.nan), 200)
        wrong += not found.low <= 0 <= found.high
        total += found.t
    assert wrong / tries < 0.05 + 3 * np.sqrt(0.05 * 0.95 / tries)
    assert abs(total / tries) < 3 / np.sqrt(tries) + 0.15


def test_outcomes_never_cross_a_hole() -> None:
    whole = clustered_market(300)
    series = rows_of(whole, np.r_[0:100, 150:300])
    found = location_outcomes(series, 3)
    assert np.isnan(found['claimed'][97:100]).all() and np.isfinite(found['claimed'][:97]).all()
    assert np.isnan(found['skipped'][96:100]).all() and np.isfinite(found['skipped'][:96]).all()
    assert found['skipped'][5] == pytest.approx(np.log(series.close[9] / series.close[6]))
    typical = (series.high + series.low + series.close) / 3
    assert found['traded'][5] == pytest.approx(np.log(typical[9] / typical[6]))
    mid = location_outcomes(series, 3, mid=series.open)['traded']
    assert mid[5] == pytest.approx(np.log(series.open[9] / series.open[6]))


@pytest.mark.parametrize('seed', range(3))
def test_each_planted_location_gets_its_word(seed: int) -> None:
    found = {
        name: judge_location(expected, candles, 1)
        for name, (candles, expected) in planted_locations(clustered_market(8000, seed=seed), seed).items()
    }
    assert found['bounce'].word == 'bounce' and 'Bounce, not skill' in found['bounce'].sentence
    assert found['skill'].word == 'skill'
    assert found['echo'].is_echo and found['echo'].best_lag <= 0 and found['echo'].word != 'skill'


def test_a_forecast_of_no_change_claims_nothing() -> None:
    verdict = judge_location(np.zeros(3000), clustered_market(3000), 1)
    assert verdict.word == 'none' and not verdict.is_echo and verdict.claimed.ic == 0.0


def test_the_profile_peaks_at_the_return_that_is_known() -> None:
    series = clustered_market(2000)
    returns = one_candle_returns(series)
    for lag in (-2, 0, 1, 3):
        known = np.roll(returns, -lag)
        profile = lag_profile(known, series)
        assert max(profile, key=lambda k: profile[k]) == lag and profile[lag] > 0.98


def test_the_commands_figures(tmp_path: Path) -> None:
    file = candles_file(tmp_path / 'candles.parquet', clustered_market(3000))
    leaks = verify_leaks(file, 20, seed=4)
    assert leaks['ok'] and leaks['planted_found'] == leaks['planted'] == 20 and leaks['false_alarms'] == 0
    lag = verify_lag(file, RIDGE)
    assert lag['ok'] and lag['echo_flagged'] and lag['bounce_flagged'] and not lag['champion_flagged']


def test_what_would_be_served_is_flagged_when_it_is_bounce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bouncing = with_bounce(clustered_market(3000), 1)
    file = candles_file(tmp_path / 'candles.parquet', bouncing)
    believed = -0.1 * one_candle_returns(bouncing)
    monkeypatch.setattr('crypto_rt.verify.lag.served_location', lambda *_: (bouncing, believed))
    figures = verify_lag(file, RIDGE)
    assert figures['champion_flagged'] and figures['champion']['word'] == 'bounce' and not figures['ok']


def test_the_controls_see_the_first_half_and_what_is_served_is_the_second(tmp_path: Path) -> None:
    file = candles_file(tmp_path / 'candles.parquet', with_bounce(clustered_market(3000), 1))
    series, served = served_location(read_markets(file)[0], 1, RIDGE)
    assert len(served) == len(series.close) and np.isnan(served[: len(served) // 2]).all()
    assert np.isfinite(served).sum() > 800 and not np.nan_to_num(served).any(), 'bounce is served as zero'


@pytest.mark.parametrize(
    'name', ['BTC-USDT_5m_2024-01-01', 'ETH-USDT_5m_2024-01-01', 'BTC-USD_1m_kraken_2023-03']
)
def test_twenty_of_twenty_on_real_candles(shared: Path, name: str) -> None:
    figures = verify_leaks(shared / f'data/canonical/candles/{name}.parquet', 20, seed=1)
    assert figures['planted_found'] == 20 and figures['accused'] == []


def test_a_price_that_never_moves_is_refused_before_it_is_judged(tmp_path: Path) -> None:
    series = clustered_market(600)
    pegged = series._replace(**dict.fromkeys(('open', 'high', 'low', 'close'), np.ones(600)))
    file = candles_file(tmp_path / 'candles.parquet', pegged)
    with pytest.raises(ValueError, match='expected a price that moves, was 1 in all 600 candles'):
        verify_leaks(file, 20)
    with pytest.raises(ValueError, match='expected a price that moves, was 1 in all 600 candles'):
        verify_lag(file, RIDGE)
