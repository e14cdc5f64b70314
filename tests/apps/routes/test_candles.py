"""`/v1/candles`."""

from tests.apps.builders import START, candle


def test_candles_of_store_and_bus_are_one_list_with_the_highest_revision_of_each(api):
    api.send(
        candle(0), candle(-1, close='3', revision=1), candle(0, close='9', revision=1), candle(0, close='0')
    )
    body = api.get('/v1/candles', symbol='btc-usd')
    assert (body['symbol'], body['interval_seconds']) == ('BTC/USD', 60)
    assert [(c['start_ms'], c['close'], c['revision']) for c in body['candles']] == [
        (START - 120_000, '1', 0),
        (START - 60_000, '3', 1),
        (START, '9', 1),
    ]
    assert len(api.get('/v1/candles', symbol='BTC/USD', limit=1)['candles']) == 1
    assert [
        c['start_ms']
        for c in api.get('/v1/candles', symbol='BTC/USD', since=START - 60_000, until=START)['candles']
    ] == [START - 60_000]
    assert api.get('/v1/candles', symbol='BTC/USD', interval=300)['candles'] == []
