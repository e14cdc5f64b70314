"""`/v1/predictions`, `/v1/indicators` and `/v1/model`: what was made of the candles."""

import jsonschema

from crypto_rt.core.messages import schema
from tests.apps.builders import START, candle, indicators, prediction


def test_what_rest_returns_fits_the_contracts(api):
    api.send(
        candle(0), indicators(0), prediction(0), prediction(1, status='abstain'), prediction(0, 'ETH/USD')
    )
    for path, name, topic in (
        ('candles', 'candles', 'candles'),
        ('indicators', 'indicators', 'technical_indicators'),
        ('predictions', 'predictions', 'predictions'),
    ):
        rows = api.get(f'/v1/{path}', symbol='BTC/USD')[name]
        assert rows
        for row in rows:
            jsonschema.validate(row, schema(topic))
    assert [(p['symbol'], p['start_ms']) for p in api.get('/v1/predictions')['predictions']] == [
        ('BTC/USD', START),
        ('ETH/USD', START),
        ('BTC/USD', START + 60_000),
    ]
    assert [p['status'] for p in api.get('/v1/predictions/latest')['predictions']] == ['abstain', 'baseline']
    assert {m['symbol']: m['model_version'] for m in api.get('/v1/model')['models']} == {
        'BTC/USD': 'baseline-1',
        'ETH/USD': 'baseline-1',
    }
