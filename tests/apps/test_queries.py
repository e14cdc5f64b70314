"""What may be asked, and what a wrong question is told."""

import json

import pytest

from tests.apps.builders import START


@pytest.mark.parametrize(
    ('path', 'query', 'code', 'words'),
    [
        ('candles', {'symbol': 'BTC/UDS'}, 404, 'BTC/USD'),
        ('candles', {'symbol': 'nonsense'}, 422, 'symbol'),
        ('candles', {}, 422, 'symbol'),
        ('candles', {'symbol': 'BTC/USD', 'limit': 10**9}, 422, 'limit'),
        ('candles', {'symbol': 'BTC/USD', 'since': 1_762_795_380}, 422, 'since'),
        ('candles', {'symbol': 'BTC/USD', 'since': '5e22'}, 422, 'since'),
        ('candles', {'symbol': 'BTC/USD', 'since': '²'}, 422, 'plain digits'),
        ('candles', {'symbol': 'BTC/USD', 'since': f'+{START}'}, 422, 'plain digits'),
        ('candles', {'symbol': 'BTC/USD', 'limit': '1_0'}, 422, 'plain digits'),
        ('candles', {'symbol': 'BTC/USD', 'limit': '１０'}, 422, 'plain digits'),
        ('candles', {'symbol': 'BTC/USD', 'interval': ' 60'}, 422, 'plain digits'),
        ('news', {'limit': '5.0'}, 422, 'plain digits'),
        ('candles', {'symbol': 'BTC/USD', 'sinse': START}, 422, 'sinse'),
        ('predictions', {'symbol': 'DOGE/USD'}, 404, 'BTC/USD'),
        ('nothing', {}, 404, 'nothing at this address'),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(api, path, query, code, words):
    assert words in json.dumps(api.get(f'/v1/{path}', code, **query)['detail'])


@pytest.mark.parametrize('path', ['candles', 'gaps', 'indicators', 'news', 'predictions'])
@pytest.mark.parametrize('until', [START, START - 60_000])
def test_nothing_lies_in_a_span_that_ends_where_it_begins_or_before(api, path, until):
    symbol = {} if path in ('gaps', 'news') else {'symbol': 'BTC/USD'}
    body = api.get(f'/v1/{path}', since=START, until=until, **symbol)
    assert body[path] == []


def test_a_wrong_method_is_told_the_right_one(api):
    answer = api.client.post('/v1/candles')
    assert answer.status_code == 405 and answer.headers['allow'] == 'GET, HEAD' and answer.json()['detail']
