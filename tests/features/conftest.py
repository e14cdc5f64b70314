"""A calm and a wild market with their vectors."""

from __future__ import annotations

import pytest

from crypto_rt.features.indicators import indicators_of
from tests.features.builders import N, walk


@pytest.fixture(scope='module', params=['calm', 'wild'])
def series(request):
    candles = walk(N, 5, wild=request.param == 'wild')
    return candles, indicators_of(candles)
