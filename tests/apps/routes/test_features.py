"""`/v1/features`."""

from fastapi.testclient import TestClient
from msgspec.structs import replace

from apps.app import create_app
from crypto_rt.features.table import TABLE
from tests.apps.builders import indicators
from tests.apps.doubles import HERE, Feed, until


def test_features_are_described_beside_their_values(api):

    assert api.get('/v1/features')['symbols'] == {}
    api.send(
        *(
            replace(
                indicators(i),
                values={**dict.fromkeys(TABLE.names, 0.5), 'rsi_14': None if i == 0 else 50.0 + i},
            )
            for i in range(3)
        )
    )
    body = api.get('/v1/features', symbol='btc/usd')
    rows = {f['name']: f for f in body['features']}
    assert set(TABLE.names) < set(rows) and {'leader_log_return_1', 'news_sum_6h'} < set(rows)
    assert (rows['rsi_14']['low'], rows['rsi_14']['high'], rows['rsi_14']['inputs']) == (
        0,
        100,
        ['close'],
    ) and rows['log_return_1']['low'] is None
    told = body['symbols']['BTC/USD']
    assert told['values']['rsi_14'] == 52 and told['values']['news_sum_6h'] is None and told['rows'] == 3
    assert told['statistics']['rsi_14'] == {
        'count': 2,
        'nulls': 1,
        'mean': 51.5,
        'std': 0.5,
        'min': 51.0,
        'max': 52.0,
    }
    api.send(replace(indicators(2), values={**told['values'], 'rsi_14': 60.0}, revision=1))
    assert api.get('/v1/features')['symbols']['BTC/USD']['values']['rsi_14'] == 60
    assert 'crt-features' in api.client.get('/features').text


def test_statistics_of_the_features_come_from_the_store(settings):
    from crypto_rt.store.embedded.store import open_embedded_store
    from crypto_rt.store.open import open_group, store_dir

    store, feed = open_embedded_store(store_dir(settings)), Feed()
    values = [{**dict.fromkeys(TABLE.names, 0.5), 'rsi_14': 50.0 + i} for i in range(3)]
    open_group(store, 'technical_indicators').insert(
        [replace(indicators(i), values=v, feature_set=TABLE.newest) for i, v in enumerate(values)]
    )
    with TestClient(create_app(settings, feed), base_url=HERE) as client:

        def stored():
            return next(
                f['stored'] for f in client.get('/v1/features').json()['features'] if f['name'] == 'rsi_14'
            )

        until(lambda: stored() is not None, 60)
        assert {name: stored()[name] for name in ('count', 'nulls', 'mean', 'min', 'max')} == {
            'count': 3,
            'nulls': 0,
            'mean': 51,
            'min': 50,
            'max': 52,
        }
        feed.waiting.put(None)
    store.close()
