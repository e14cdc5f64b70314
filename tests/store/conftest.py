"""A store of the embedded kind in a folder of its own."""

import pytest

from crypto_rt.store.embedded.store import EmbeddedStore


@pytest.fixture
def store(tmp_path):
    store = EmbeddedStore(tmp_path / 'store')
    yield store
    store.close()
