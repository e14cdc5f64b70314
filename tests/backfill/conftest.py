"""Settings with a store of their own."""

import pytest

from crypto_rt.core.settings import load_settings


@pytest.fixture
def settings(tmp_path):
    return load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD,ETH/USD'))
