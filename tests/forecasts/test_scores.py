"""Scores against formulas and integrals that are worked out in another way."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm, spearmanr, t

from crypto_rt.forecasts.quantiles import QUANTILES
from crypto_rt.forecasts.scores import (
    coverage_by_bin,
    crps_of_quantiles,
    decile_of,
    hour_of,
    interval_scores,
    least_variance,
    level_weights,
    location_gain,
    log_variance_r2,
    pinball_losses,
    pit_histogram,
    qlike,
    quantile_name,
    rank_correlation,
    score_rows,
    score_table,
)
from crypto_rt.models.prediction_intervals import interval_metrics
from tests.repeat import many

FINE = tuple((np.arange(2000) + 0.5) / 2000)


@pytest.mark.parametrize('outcome', [-2.5, -0.3, 0.0, 1.1, 4.0])
def test_crps_of_many_quantiles_is_the_integral_over_the_squared_distance(outcome: float) -> None:
    "The other definition: the integral of (F(x) - 1{x >= y})^2, and its closed form for a normal (Gneiting 2007)."
    by_quantiles = crps_of_quantiles(np.array([outcome]), norm.ppf(FINE)[None], FINE)[0]
    below, _ = quad(lambda x: norm.cdf(x) ** 2, -40, outcome)
    above, _ = quad(lambda x: norm.sf(x) ** 2, outcome, 40)
    closed = outcome * (2 * norm.cdf(outcome) - 1) + 2 * norm.pdf(outcome) - 1 / np.sqrt(np.pi)
    assert by_quantiles == pytest.approx(below + above, rel=2e-3)
    assert closed == pytest.approx(below + above, rel=1e-6)


@pytest.mark.parametrize('law', [norm(), t(4), t(3)])
def test_seven_quantiles_are_near_the_whole_distribution(law: object) -> None:
    outcome = law.ppf(FINE)  # type: ignore[attr-defined]
    seven, whole = (
        crps_of_quantiles(outcome, np.tile(law.ppf(levels), (2000, 1)), levels).mean()  # type: ignore[attr-defined]
        for levels in (QUANTILES, FINE)
    )
    assert 0.975 < seven / whole < 1.0


@settings(max_examples=many(30), deadline=None)
@given(st.floats(-0.8, 0.8), st.floats(0.3, 3.0))
def test_no_other_forecast_scores_better_than_the_truth(shift: float, stretch: float) -> None:
    outcome = t(4).ppf(FINE)
    told = t(4).ppf(QUANTILES)
    truth, lie = (
        crps_of_quantiles(outcome, np.tile(q, (2000, 1))).mean() for q in (told, shift + stretch * told)
    )
    assert truth <= lie + 1e-9
    band, other = (interval_scores(outcome, q[0], q[-1], 0.9).mean() for q in (told, shift + stretch * told))
    assert band <= other + 1e-3


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 0.99))
def test_pinball_is_the_integral_of_what_was_missed(outcome: float, quantile: float, level: float) -> None:
    found = pinball_losses(np.array([outcome]), np.array([[quantile]]), (level,))[0, 0]
    share = level if outcome > quantile else 1 - level
    assert found == pytest.approx(share * abs(outcome - quantile))


def test_weights_are_what_lies_nearer_to_each_level() -> None:
    grid = (np.arange(200_000) + 0.5) / 200_000
    nearest = np.argmin(np.abs(grid[:, None] - np.array(QUANTILES)), axis=1)
    assert level_weights() == pytest.approx(np.bincount(nearest) / len(grid), abs=1e-4)


def test_interval_score_is_that_of_its_two_quantiles_and_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    outcome, lower, upper = rng.normal(size=500), rng.normal(-1.5, 0.2, 500), rng.normal(1.5, 0.2, 500)
    losses = pinball_losses(outcome, np.c_[lower, upper], (0.1, 0.9))
    scores = interval_scores(outcome, lower, upper, 0.8)
    assert scores == pytest.approx(10 * losses.sum(1))
    assert interval_metrics(outcome, lower, upper, 0.8)['interval_score'] == pytest.approx(scores.mean())


def test_qlike_ranks_by_a_noisy_proxy_as_by_the_truth() -> None:
    "Patton (2011): whatever the noise, the true variance has the least mean loss."
    rng = np.random.default_rng(4)
    truth = np.exp(rng.normal(size=200_000))
    proxy = truth * rng.chisquare(1, len(truth))
    losses = {k: qlike(proxy, k * truth, 1e-12).mean() for k in (0.5, 0.8, 1.0, 1.25, 2.0)}
    assert min(losses, key=losses.__getitem__) == 1.0
    assert losses[2.0] - losses[1.0] == pytest.approx(
        np.log(2) - 0.5, abs=0.02
    )  # the expected excess, by hand


def test_still_candles_cost_no_more_than_the_floor_lets_them() -> None:
    realised = np.array([0.0, 1e-8, 4e-8, np.nan])
    floor = least_variance(realised)
    assert floor == 1e-8
    assert np.isfinite(qlike(np.zeros(1), np.ones(1), floor)).all()
    assert qlike(np.array([2.0, 0.0]), np.array([2.0, 0.0]), floor).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match='floor must be above 0, was 0'):
        qlike(np.ones(1), np.ones(1), 0.0)


def test_r2_of_log_variance_forgives_a_constant_and_no_more() -> None:
    rng = np.random.default_rng(2)
    seen = np.exp(rng.normal(size=5000))
    assert log_variance_r2(seen, 7 * seen, 1e-9) == pytest.approx(1)
    assert log_variance_r2(seen, np.ones(5000), 1e-9) == pytest.approx(0)
    assert log_variance_r2(seen, seen**2, 1e-9) == pytest.approx(0)  # error = -log seen: as bad as a constant
    assert np.isnan(log_variance_r2(np.ones(5), np.ones(5), 1e-9))


def test_coverage_by_bin_counts_and_allows_for_overlap() -> None:
    covered, bins = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool), np.array([1, 1, 1, 1, 2, 2, 2, 2])
    found = coverage_by_bin(covered, bins, horizon_candles=2)
    assert found.coverage.tolist() == [0.75, 0.5]
    assert found.error.tolist() == pytest.approx([np.sqrt(0.75 * 0.25 / 2), np.sqrt(0.5 * 0.5 / 2)])


def test_deciles_and_hours() -> None:
    volatility = np.random.default_rng(0).permutation(1000).astype(float)
    assert np.bincount(decile_of(volatility))[1:].tolist() == [100] * 10
    assert volatility[decile_of(volatility) == 10].min() > volatility[decile_of(volatility) == 9].max()
    ms = pd.date_range('2024-03-01', periods=48, freq='h', tz='UTC')
    assert hour_of(ms.as_unit('ms').asi8).tolist() == ms.hour.tolist()


def test_pit_of_the_truth_is_flat_and_of_a_shifted_forecast_is_not() -> None:
    rng = np.random.default_rng(5)
    outcome = rng.normal(size=40_000)
    quantiles = np.tile(norm.ppf(QUANTILES), (len(outcome), 1))
    assert pit_histogram(outcome, quantiles) == pytest.approx(np.ones(8), abs=0.06)
    shifted = pit_histogram(outcome, quantiles - 0.5)
    assert shifted[-1] > 1.8 and shifted[0] < 0.5
    still = pit_histogram(np.zeros(1), np.array([[-1.0, 0.0, 0.0, 1.0]]), (0.1, 0.3, 0.6, 0.9))
    assert still == pytest.approx([0, 1.25, 1.25, 1.25, 0])  # spread evenly from 0.1 to 0.9
    width = np.diff([0, *QUANTILES, 1])
    assert (shifted * width).sum() == pytest.approx(1)


def test_location_gain_and_rank_correlation() -> None:
    rng = np.random.default_rng(6)
    a, b, s = rng.normal(size=300), rng.normal(size=300), rng.uniform(0.5, 2, 300)
    assert location_gain(a, np.zeros(300), s) == pytest.approx(np.zeros(300))
    assert location_gain(a, a, s) == pytest.approx((a / s) ** 2)
    assert rank_correlation(np.round(a), b) == pytest.approx(spearmanr(np.round(a), b).statistic)
    assert rank_correlation(np.ones(3), np.arange(3.0)) == 0.0


def forecasts_of(model: str, scale: np.ndarray, outcome: np.ndarray, **keys: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        scale[:, None] * norm.ppf(QUANTILES), columns=[quantile_name(level) for level in QUANTILES]
    )
    about = {'symbol': 'BTC/USD', 'interval_seconds': 300, 'horizon_seconds': 300, 'fold': 1} | keys
    return frame.assign(
        start_ms=1_704_067_200_000 + 300_000 * np.arange(len(outcome)),
        model=model,
        volatility=scale,
        realised_log_return=outcome,
        realised_variance=outcome**2,
        **about,
    )


def test_rows_of_one_symbol_do_not_set_the_floor_of_another() -> None:
    rng = np.random.default_rng(7)
    big, small = rng.normal(0, 1e-2, 400), rng.normal(0, 1e-5, 400)
    both = pd.concat(
        [
            forecasts_of('naive', np.full(400, 1e-2), big, symbol='A/USD'),
            forecasts_of('naive', np.full(400, 1e-5), small, symbol='B/USD'),
        ]
    )
    scored = score_rows(both)
    alone = score_rows(both[both.symbol == 'B/USD'])
    assert scored[scored.symbol == 'B/USD'].qlike.to_numpy() == pytest.approx(alone.qlike.to_numpy())
    floors = scored.groupby('symbol').variance_floor.agg(['min', 'max'])
    assert (floors['min'] == floors['max']).all()
    assert floors['min']['A/USD'] == least_variance(big**2) > 1000 * floors['min']['B/USD']
    ratio = alone.realised_variance / alone.volatility**2
    assert alone.qlike.to_numpy() == pytest.approx((ratio - np.log(ratio) - 1).to_numpy())


def test_the_table_has_a_row_for_each_horizon_and_model() -> None:
    rng = np.random.default_rng(8)
    scale = np.exp(rng.normal(size=3000))
    outcome = scale * rng.normal(size=3000)
    rows = [
        forecasts_of('known', scale, outcome),
        forecasts_of('naive', np.full(3000, outcome.std()), outcome),
    ]
    table = score_table(score_rows(pd.concat(rows)))
    known, naive = table.loc[(300, 'known')], table.loc[(300, 'naive')]
    assert known.crps_bp < naive.crps_bp and known.qlike < naive.qlike
    assert known.interval_score_bp < naive.interval_score_bp and known.log_variance_r2 > naive.log_variance_r2
    assert 0.85 < known.least_coverage <= known.coverage <= known.most_coverage < 0.95
