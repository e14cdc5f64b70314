"""Forecasts of a recorded market, through the days when banks failed."""

from __future__ import annotations

from pathlib import Path

from crypto_rt.core.settings import TrainingSettings
from crypto_rt.forecasts.evaluation import evaluation_tables, series_of_file
from crypto_rt.forecasts.walk import out_of_fold_forecasts


def test_promises_are_kept_through_march_2023(shared: Path) -> None:
    file = shared / 'data/canonical/candles/BTC-USD_1m_kraken_2023-03.parquet'
    frame = out_of_fold_forecasts(series_of_file(file)[0], (1,), TrainingSettings())
    figures, compared = evaluation_tables(frame)
    row = figures.set_index('model').loc['combined']
    assert row.n > 20_000
    assert 0.88 <= row.coverage <= 0.92
    assert row.least_coverage >= 0.85 and row.most_coverage <= 0.95
    ours = compared[compared.model == 'combined']
    assert (ours.t <= -3).all() and set(ours.other) == {'naive', 'ewma'}, ours
