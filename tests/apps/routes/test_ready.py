"""`/v1/health` and `/v1/ready`."""

from fastapi.testclient import TestClient

from apps.app import create_app
from tests.apps.doubles import HERE, Feed


def test_it_says_that_it_lives_and_when_it_is_ready(settings, tmp_path):
    feed = Feed()
    with TestClient(create_app(settings, feed), base_url=HERE) as client:
        assert client.get('/v1/health').json()['status'] == 'ok'
        late = client.get('/v1/ready')
        assert late.status_code == 503 and late.json()['detail'] == 'there is no feature store yet'
        feed.waiting.put(None)


def test_ready_with_bus_and_store(api):
    assert api.get('/v1/ready') == {'status': 'ready'}
