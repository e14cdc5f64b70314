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
        ('candles', {'symbol': 'BTC/USD', 'since': START, 'until': START}, 422, 'before'),
        ('candles', {'symbol': 'BTC/USD', 'sinse': START}, 422, 'sinse'),
        ('predictions', {'symbol': 'DOGE/USD'}, 404, 'BTC/USD'),
        ('nothing', {}, 404, 'nothing at this address'),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(api, path, query, code, words):
    assert words in json.dumps(api.get(f'/v1/{path}', code, **query)['detail'])


def test_a_wrong_method_is_told_the_right_one(api):
    answer = api.client.post('/v1/candles')
    assert answer.status_code == 405 and answer.headers['allow'] == 'GET, HEAD' and answer.json()['detail']
