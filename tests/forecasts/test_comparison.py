"""A test of equal skill that keeps its size, an interval that holds, and pairs of the same rows."""

import numpy as np
import pandas as pd
import pytest

from crypto_rt.forecasts.comparison import (
    block_bootstrap,
    comparison_table,
    diebold_mariano,
    hac_lag,
    newey_west_variance,
    paired_differences,
)
from tests.repeat import many


def autoregressive(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    noise = rng.standard_t(5, n + 200)
    out = np.zeros(n + 200)
    for t in range(1, n + 200):
        out[t] = share * out[t - 1] + noise[t]
    return out[200:]


def overlapping(rng: np.random.Generator, n: int, horizon: int) -> np.ndarray:
    return np.convolve(rng.standard_t(5, n + horizon - 1), np.full(horizon, horizon**-0.5), 'valid')


def test_the_variance_is_the_double_sum_of_weighted_products() -> None:
    "By definition, term by term (Newey and West 1987)."
    x = np.random.default_rng(0).normal(size=40)
    centred, n, lag = x - x.mean(), 40, 6
    total = sum(
        (1 - abs(i - j) / (lag + 1)) * centred[i] * centred[j]
        for i in range(n)
        for j in range(n)
        if abs(i - j) <= lag
    )
    assert newey_west_variance(x, lag) == pytest.approx(total / n**2)
    assert newey_west_variance(x, 0) == pytest.approx(x.var() / n)


@pytest.mark.parametrize(
    ('horizon', 'share'), [(1, 0.0), (1, 0.3), (3, None), (12, None), (36, None)], ids=str
)
def test_equals_are_told_apart_about_as_often_as_chance_has_it(horizon: int, share: float | None) -> None:
    "Size at 5 %, n = 10,000: with overlap, and with autoregressive differences."
    tries, wrong = many(300), 0
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        x = overlapping(rng, 10_000, horizon) if share is None else autoregressive(rng, 10_000, share)
        wrong += diebold_mariano(x, horizon).p < 0.05
    allowed = 3 * np.sqrt(0.05 * 0.95 / tries)
    assert 0.05 - allowed < wrong / tries < 0.07 + allowed


def test_a_naive_t_test_would_not_keep_it() -> None:
    "The same differences, taken for independent ones: what the lag is for."
    wrong = 0
    for seed in range(100):
        x = overlapping(np.random.default_rng(seed), 3000, 12)
        wrong += diebold_mariano(x, 1, lag=0).p < 0.05
    assert wrong > 40


def test_a_difference_that_is_there_is_found_with_its_sign() -> None:
    x = overlapping(np.random.default_rng(1), 10_000, 3)
    worse, better = diebold_mariano(x + 0.3, 3), diebold_mariano(x - 0.3, 3)
    assert better.t < -3 and worse.t > 3 and better.p < 0.003
    assert better.mean == pytest.approx(x.mean() - 0.3)


def test_small_samples_are_shrunk_as_harvey_says() -> None:
    x = np.random.default_rng(2).normal(0.5, 1, 40)
    found, h, n = diebold_mariano(x, 3, lag=2), 3, 40
    plain = x.mean() / np.sqrt(newey_west_variance(x, 2))
    assert found.t == pytest.approx(plain * np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n))


@pytest.mark.parametrize('horizon', [1, 3, 12, 36])
def test_the_lag_spans_the_horizon(horizon: int) -> None:
    assert hac_lag(5000, horizon) >= horizon - 1
    with pytest.raises(ValueError, match='lag must be 11 or more, was 10'):
        diebold_mariano(np.ones(1000), 12, lag=10)


def test_the_bootstrap_interval_holds_under_overlap() -> None:
    tries = many(200)
    held = 0
    for seed in range(tries):
        found = block_bootstrap(overlapping(np.random.default_rng(seed), 3000, 6), 12, draws=400)
        held += found.lower <= 0 <= found.upper
    assert held / tries > 0.88


def rows(model: str, crps: np.ndarray, start: np.ndarray, symbol: str = 'BTC/USD') -> pd.DataFrame:
    about = {'symbol': symbol, 'interval_seconds': 300, 'horizon_seconds': 300, 'model': model}
    return pd.DataFrame({'start_ms': start, 'crps': crps}).assign(**about)


def test_only_rows_that_both_have_are_compared_and_symbols_share_a_moment() -> None:
    start = 300_000 * np.arange(100)
    scored = pd.concat(
        [
            rows('har', np.full(90, 1.0), start[10:]),
            rows('naive', np.full(80, 3.0), start[:80]),
            rows('har', np.full(100, 5.0), start, 'ETH/USD'),
            rows('naive', np.full(100, 6.0), start, 'ETH/USD'),
        ]
    ).sample(frac=1, random_state=0)
    found = paired_differences(scored, 'har', 'naive')
    assert found.index.is_monotonic_increasing and len(found) == 100
    assert found.iloc[:10].tolist() == [-1.0] * 10 and found.iloc[10:80].tolist() == [-1.5] * 70


def test_the_table_has_each_other_that_is_there_and_says_who_is_better() -> None:
    rng = np.random.default_rng(3)
    start, base = 300_000 * np.arange(3000), np.exp(rng.normal(size=3000))
    scored = pd.concat(
        [rows('har', 0.9 * base, start), rows('naive', base, start), rows('ewma', 0.8 * base, start)]
    )
    table = comparison_table(scored, 'har')
    assert list(table.index) == [(300, 'naive'), (300, 'ewma')]
    assert table.difference_percent.tolist() == pytest.approx([-10, 12.5])
    assert table.t.iloc[0] < -10 and table.t.iloc[1] > 10
    assert table.upper_percent.iloc[0] < 0 < table.lower_percent.iloc[1]
