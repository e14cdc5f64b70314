"""What the Hopsworks backend keeps without a cluster or a double: names, keys, and no word of the tests."""

import re
from pathlib import Path

import pytest

from crypto_rt.core.settings import load_settings
from crypto_rt.store.hopsworks import groups as hopsworks_store
from crypto_rt.store.hopsworks.groups import placed
from crypto_rt.store.open import open_feature_store
from crypto_rt.store.schema import GROUPS


def test_every_group_of_ours_has_names_that_hopsworks_takes():
    for group in GROUPS.values():
        there = placed(group)
        assert len(group.name) <= 63 and all(
            len(name) <= 63 and len(words) <= 256 for name, _, words in there.columns
        )
        assert len({name for name, _, _ in there.columns}) == len(there.columns)


def test_a_missing_key_is_said_and_never_asked_for(monkeypatch, tmp_path):
    for name in ('HOPSWORKS_HOST', 'HOPSWORKS_PROJECT', 'HOPSWORKS_API_KEY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('builtins.input', lambda *_: pytest.fail('asked on standard input'))
    with pytest.raises(
        ValueError, match='needs HOPSWORKS_HOST, HOPSWORKS_PROJECT, HOPSWORKS_API_KEY in the environment'
    ):
        open_feature_store(load_settings(store=dict(backend='hopsworks'), data=dict(directory=str(tmp_path))))


def test_the_product_knows_nothing_of_the_double():
    for path in Path(hopsworks_store.__file__).parent.glob('*.py'):
        assert not re.search(r'^\s*(from|import) tests', path.read_text(), re.M), path
