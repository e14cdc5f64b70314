"""Settings with a data directory of their own."""

import pytest

from crypto_rt.core.settings import load_settings


@pytest.fixture
def here(tmp_path):
    return load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD'))
