"""Features and targets: what a row may know, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt.forecasts.path import realised_variance, uniqueness
from crypto_rt.forecasts.scale_features import scale_features, usual_course
from crypto_rt.forecasts.targets import log_returns
from tests.forecasts.markets import clustered_market, rows_of, with_columns

HORIZONS = (1, 3, 12, 36)
MARKET = clustered_market(3000)
FEATURES = scale_features(MARKET, HORIZONS)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(2, 2999))
def test_a_row_of_features_needs_nothing_that_follows(cut: int) -> None:
    prefix = scale_features(rows_of(MARKET, slice(0, cut)), HORIZONS)
    assert np.array_equal(prefix.values, FEATURES.values[:cut])
    assert np.array_equal(prefix.squares, FEATURES.squares[:cut])
    assert np.array_equal(prefix.ranges, FEATURES.ranges[:cut])


def test_a_poisoned_future_changes_no_row_before_it_and_every_one_after() -> None:
    poisoned = scale_features(with_columns(MARKET, slice(2000, 3000), 50.0), HORIZONS)
    assert np.array_equal(poisoned.values[:2000], FEATURES.values[:2000])
    assert (poisoned.values[2000:] != FEATURES.values[2000:]).any(1).all()


def test_with_holes_a_row_still_needs_nothing_that_follows() -> None:
    kept = np.flatnonzero(np.random.default_rng(1).random(3000) > 0.1)
    holed = rows_of(MARKET, kept)
    whole = scale_features(holed, HORIZONS).values
    for cut in (50, 700, 1999):
        assert np.array_equal(scale_features(rows_of(holed, slice(0, cut)), HORIZONS).values, whole[:cut])
    assert np.isfinite(whole).all()


def test_a_jump_across_a_hole_is_nobody_s_variance() -> None:
    jump = with_columns(MARKET, slice(1500, 3000), 2.0)
    holed = rows_of(jump, np.r_[0:1490, 1500:3000])
    squares = scale_features(holed, HORIZONS).squares
    assert squares.max() < np.log(2) ** 2 / 100 < scale_features(jump, HORIZONS).squares.max()


def test_candles_without_movement_have_a_floor() -> None:
    still = MARKET._replace(
        **{
            name: np.where(np.arange(3000) < 1500, getattr(MARKET, name), MARKET.close[1499])
            for name in ('open', 'high', 'low', 'close')
        }
    )
    features = scale_features(still, HORIZONS)
    least = np.quantile(np.diff(np.log(MARKET.close[:1500])) ** 2, 0.05)
    assert features.squares[1600:] == pytest.approx(least, rel=0.05)
    assert np.isfinite(features.values).all()


@pytest.mark.parametrize('steps', HORIZONS)
def test_the_variance_of_a_path_is_that_of_its_candles_and_crosses_no_hole(steps: int) -> None:
    kept = np.r_[0:100, 103:200]
    start_ms, close = MARKET.start_ms[kept], MARKET.close[kept]
    found = realised_variance(start_ms, close, 300, steps * 300)
    at = dict(zip(start_ms.tolist(), close.tolist(), strict=True))
    for i, start in enumerate(start_ms.tolist()):
        path = [at.get(start + 300_000 * k) for k in range(steps + 1)]
        if None in path:
            assert np.isnan(found[i])
        else:
            assert found[i] == pytest.approx(np.sum(np.diff(np.log(path)) ** 2))
    assert np.array_equal(np.isnan(found), np.isnan(log_returns(start_ms, close, 300, steps * 300)))


def test_weights_of_overlapping_targets_add_up_to_the_time_they_cover() -> None:
    there = np.r_[np.ones(500, bool), np.zeros(36, bool)]
    assert uniqueness(there, 36).sum() == pytest.approx((500 + 35) / 36)
    assert uniqueness(np.zeros(50, bool), 36).sum() == 0


def test_the_usual_course_counts_only_windows_that_had_ended() -> None:
    "A horizon longer than a day: the window of yesterday is still open."
    market = clustered_market(400, interval_seconds=3600)
    variance = scale_features(market, (36,)).ranges
    whole = usual_course(variance, market, 36, 5)
    for cut in (100, 251, 333):
        part = usual_course(variance[:cut], rows_of(market, slice(0, cut)), 36, 5)
        assert np.array_equal(part, whole[:cut])
    assert whole[60:].any()
