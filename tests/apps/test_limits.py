"""How much one client may ask."""

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from apps.app import create_app
from apps.limits import RequestBudget, network_of
from crypto_rt.core.settings import load_settings
from tests.apps.doubles import HERE, Feed


@pytest.mark.parametrize(
    ('address', 'network'),
    [
        ('192.0.2.7', '192.0.2.7'),
        ('::ffff:192.0.2.7', '192.0.2.7'),
        ('2001:db8:1:2:3::4', '2001:db8:1:2::/64'),
        ('::1', '::1'),
        ('unix', 'unix'),
    ],
)
def test_what_counts_as_one_client(address, network):
    assert network_of(address) == network


def test_a_bucket_fills_again_and_each_client_has_its_own():
    now = [0.0]
    budget = RequestBudget(per_second=2, burst=3, clock=lambda: now[0])
    assert [budget.wait('a') for _ in range(4)] == [0, 0, 0, 0.5]
    assert budget.wait('b') == 0
    now[0] = 0.5
    assert budget.wait('a') == 0 and budget.wait('a') == 0.5
    now[0] = 100.0
    assert [budget.wait('a') for _ in range(4)] == [0, 0, 0, 0.5], 'never more than the burst'


def test_the_table_of_clients_does_not_grow_for_ever(monkeypatch):
    monkeypatch.setattr('apps.limits.MAX_CLIENTS', 10)
    budget = RequestBudget(per_second=1, burst=1)
    for number in range(1000):
        budget.wait(str(number))
    assert len(budget.buckets) == 10


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    "An API with the keys one and two, for which three requests at once are the most."
    monkeypatch.setenv('CRYPTO_RT_API_KEYS', 'one,two')
    limits = {'requests_per_second': 0.01, 'request_burst': 3}
    settings = load_settings('/dev/null', {}, data={'directory': str(tmp_path)}, api=limits)
    feed = Feed()
    with TestClient(create_app(settings, feed), base_url=HERE) as client:
        yield client
        feed.waiting.put(None)


def statuses(client, number, **headers):
    return [client.get('/v1/symbols', headers=headers).status_code for _ in range(number)]


def test_each_key_has_a_budget_and_who_has_none_shares_that_of_the_address(guarded):
    assert statuses(guarded, 5, **{'X-API-Key': 'one'}) == [200, 200, 200, 429, 429]
    assert statuses(guarded, 4, **{'X-API-Key': 'two'}) == [200, 200, 200, 429]
    guesses = [guarded.get('/v1/symbols', headers={'X-API-Key': f'guess {n}'}).status_code for n in range(5)]
    assert guesses == [401, 401, 401, 429, 429], 'who guesses keys is soon refused'
    refused = guarded.get('/v1/symbols')
    assert refused.json()['status'] == 429 and int(refused.headers['retry-after']) > 1
    assert guarded.get('/v1/health').status_code == 200, 'a probe is not counted'
    with pytest.raises(WebSocketDenialResponse) as denied, guarded.websocket_connect('/v1/stream'):
        pass
    assert denied.value.status_code == 429


def test_without_keys_this_machine_is_not_counted(tmp_path, monkeypatch):
    monkeypatch.delenv('CRYPTO_RT_API_KEYS', raising=False)
    limits = {'requests_per_second': 0.01, 'request_burst': 1}
    settings = load_settings('/dev/null', {}, data={'directory': str(tmp_path)}, api=limits)
    feed = Feed()
    with TestClient(create_app(settings, feed), base_url=HERE, client=('127.0.0.1', 1)) as client:
        assert statuses(client, 5) == [200] * 5
        feed.waiting.put(None)


@pytest.mark.parametrize('body', [b'x' * 65_537, iter([b'x' * 40_000, b'x' * 40_000])])
def test_a_long_body_is_refused(api, body):
    answer = api.client.post('/v1/symbols', content=body)
    assert answer.status_code == 413 and '65536' in answer.json()['detail']
