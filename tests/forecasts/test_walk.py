"""Forecasts out of fold: nobody knows what follows, and promises are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crypto_rt.core.settings import TrainingSettings
from crypto_rt.forecasts.path import CandleSeries
from crypto_rt.forecasts.quantiles import AdaptiveShape, walk_of_quantiles
from crypto_rt.forecasts.walk import forecasts_digest, out_of_fold_forecasts
from tests.forecasts.markets import clustered_market, null_market, rows_of, with_columns

TRAINING = TrainingSettings(folds=4, trees=60)
HORIZONS = (1, 12)
SAID = ['q05', 'q10', 'q25', 'q50', 'q75', 'q90', 'q95', 'probability_up', 'volatility']
KEYS = ['horizon_seconds', 'model', 'start_ms']


@pytest.fixture(scope='module')
def market() -> CandleSeries:
    return clustered_market(4000)


@pytest.fixture(scope='module')
def forecasts(market: CandleSeries) -> pd.DataFrame:
    return out_of_fold_forecasts(market, HORIZONS, TRAINING)


def said_before(frame: pd.DataFrame, until_ms: int) -> pd.DataFrame:
    "Return what was said at the ends of candles that start before `until_ms`."
    return frame[frame.start_ms < until_ms].set_index(KEYS)[SAID]


def test_nobody_peeks(market: CandleSeries, forecasts: pd.DataFrame) -> None:
    "Poison everything from a candle on: what was said before it stays the same to the last bit."
    at = 2900
    poisoned = out_of_fold_forecasts(with_columns(market, slice(at, None), 7.0), HORIZONS, TRAINING)
    honest, other = (said_before(frame, market.start_ms[at]) for frame in (forecasts, poisoned))
    both = honest.index.intersection(other.index)
    assert len(both) == len(honest) > 5000
    pd.testing.assert_frame_equal(honest.loc[both], other.loc[both], check_exact=True)
    after = forecasts[forecasts.start_ms >= market.start_ms[at]].set_index(KEYS)[SAID]
    assert not after.equals(poisoned.set_index(KEYS)[SAID].reindex(after.index))


def test_twice_the_same(market: CandleSeries, forecasts: pd.DataFrame) -> None:
    again = out_of_fold_forecasts(market, HORIZONS, TRAINING)
    assert forecasts_digest(again) == forecasts_digest(forecasts)
    again.loc[7, 'q95'] = np.nextafter(again.q95[7], 1)
    assert forecasts_digest(again) != forecasts_digest(forecasts)


def test_quantiles_rise_and_probabilities_are_some(forecasts: pd.DataFrame) -> None:
    quantiles = forecasts[SAID[:7]].to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert forecasts.probability_up.between(0, 1).all()
    assert (forecasts.volatility > 0).all() and np.isfinite(quantiles).all()


def test_only_matured_outcomes_teach_the_shape() -> None:
    "An outcome twelve rows ahead that is wrong by far must not be felt before it is known."
    rng = np.random.default_rng(5)
    outcome, scale = rng.normal(size=3000), np.ones(3000)
    known = np.arange(3000) + 12
    wild = outcome.copy()
    wild[2000:] = 100.0
    found = [
        walk_of_quantiles(scale, each, known_from=known, first=1000, shape=AdaptiveShape(12))[0]
        for each in (outcome, wild)
    ]
    differs = np.flatnonzero((found[0] != found[1]).any(1) & np.isfinite(found[0]).all(1))
    assert 2012 <= differs[0] < 2300


def test_no_forecast_s_outcome_crosses_a_hole(market: CandleSeries) -> None:
    holed = rows_of(market, np.r_[0:2500, 2600:4000])
    frame = out_of_fold_forecasts(holed, HORIZONS, TRAINING)
    edge = market.start_ms[2500]
    for horizon, part in frame.groupby('horizon_seconds'):
        ends = part.start_ms + 1000 * horizon
        assert not ((part.start_ms < edge) & (ends >= edge)).any()
        assert ((part.start_ms < edge).any()) and (part.start_ms > edge).any()
    assert np.isfinite(frame.select_dtypes('number').to_numpy()).all()


@pytest.mark.parametrize('seed', [1, 2])
def test_on_a_market_without_anything_to_know_promises_are_kept(seed: int) -> None:
    frame = out_of_fold_forecasts(null_market(6000, seed=seed), HORIZONS, TRAINING)
    inside = (frame.realised_log_return >= frame.q05) & (frame.realised_log_return <= frame.q95)
    covered = inside.groupby([frame.horizon_seconds, frame.model]).mean()
    assert covered.loc[300].between(0.88, 0.92).all(), covered
    error = np.sqrt(0.09 / (3600 / 12))  # of the forecasts that do not overlap
    assert (covered.loc[3600] - 0.9).abs().max() < 3 * error, covered


def test_a_price_that_never_moves_gets_a_clear_verdict() -> None:
    still = null_market(3000)._replace(
        **{name: np.full(3000, 5.0) for name in ('open', 'high', 'low', 'close')}
    )
    with pytest.raises(ValueError, match='expected a price that moves'):
        out_of_fold_forecasts(still, HORIZONS, TRAINING)


def test_too_few_rows_get_a_clear_verdict() -> None:
    with pytest.raises(ValueError, match='expected at least 1110 rows for 4 folds'):
        out_of_fold_forecasts(null_market(600), HORIZONS, TRAINING)


def test_half_of_the_candles_without_movement() -> None:
    quiet = null_market(4000)
    kept = np.random.default_rng(2).random(4000) < 0.5
    move = np.where(kept, np.r_[0.0, np.diff(np.log(quiet.close))], 0)
    close = 1e4 * np.exp(np.cumsum(move))
    opens = np.r_[1e4, close[:-1]]
    flat = quiet._replace(
        open=opens, close=close, high=np.maximum(opens, close), low=np.minimum(opens, close)
    )
    frame = out_of_fold_forecasts(flat, (1,), TRAINING)
    learned = frame[frame.model == 'combined']
    assert learned.probability_up.mean() == pytest.approx(0.25, abs=0.03)
    assert (np.abs(learned.realised_log_return) <= learned.q95).mean() == pytest.approx(0.9, abs=0.02)
