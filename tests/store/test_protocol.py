"""The protocol of the feature store: both backends have every method, with the same parameters."""

import inspect

import pytest

from crypto_rt.store import interface
from crypto_rt.store.embedded.group import EmbeddedGroup
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.embedded.views import EmbeddedView
from crypto_rt.store.hopsworks.groups import HopsworksGroup
from crypto_rt.store.hopsworks.store import HopsworksStore
from crypto_rt.store.hopsworks.view import HopsworksView

PROTOCOLS = [
    (interface.FeatureStore, EmbeddedStore, HopsworksStore),
    (interface.FeatureGroup, EmbeddedGroup, HopsworksGroup),
    (interface.FeatureView, EmbeddedView, HopsworksView),
]


@pytest.mark.parametrize('protocol, embedded, hopsworks', PROTOCOLS)
def test_both_backends_have_every_method_with_its_parameters(protocol, embedded, hopsworks):
    methods = {name: value for name, value in vars(protocol).items() if inspect.isfunction(value)}
    methods = {name: value for name, value in methods.items() if not name.startswith('_')}
    assert len(methods) >= 5
    for name, wanted in methods.items():
        for kind in (embedded, hopsworks):
            own = getattr(kind, name)
            assert own.__name__ == name and own.__qualname__ == f'{kind.__name__}.{name}'
            given = inspect.signature(own).parameters
            assert [*inspect.signature(wanted).parameters] == [*given][
                : len(inspect.signature(wanted).parameters)
            ]
            assert inspect.getdoc(own), f'{kind.__name__}.{name} says nothing'
