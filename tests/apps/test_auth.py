"""Who may ask."""

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from apps.app import create_app
from apps.auth import origin_allowed
from crypto_rt.core.settings import load_settings
from tests.apps.doubles import HERE, Feed


@pytest.mark.parametrize(
    ('origin', 'host', 'fine'),
    [
        (None, '127.0.0.1:8000', True),
        ('http://127.0.0.1:8000', '127.0.0.1:8000', True),
        ('http://localhost:3000', '127.0.0.1:8000', True),
        ('https://rt.example.org', 'rt.example.org', True),
        ('https://evil.example', '127.0.0.1:8000', False),
        ('https://127.0.0.1.evil.example', '127.0.0.1:8000', False),
        ('null', '127.0.0.1:8000', False),
    ],
)
def test_origins(origin, host, fine):
    assert origin_allowed(origin, host) is fine


def test_others_are_let_in_with_a_key_only(settings, monkeypatch):
    monkeypatch.delenv('CRYPTO_RT_API_KEYS', raising=False)
    open_to_all = load_settings(
        '/dev/null', {}, data={'directory': settings.data.directory}, api={'host': '0.0.0.0'}
    )
    with pytest.raises(ValueError, match='CRYPTO_RT_API_KEYS'):
        create_app(open_to_all)
    monkeypatch.setenv('CRYPTO_RT_API_KEYS', 'one,two')
    feed = Feed()
    with TestClient(create_app(open_to_all, feed), base_url=HERE) as client:
        assert client.get('/v1/health').status_code == 200
        refused = client.get('/v1/status')
        assert refused.status_code == 401 and 'X-API-Key' in refused.json()['detail']
        assert client.get('/').status_code == 401
        assert client.get('/v1/status', headers={'X-API-Key': 'three'}).status_code == 401
        assert client.get('/v1/status', headers={'X-API-Key': 'two'}).status_code == 200
        with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect('/v1/stream'):
            pass
        assert closed.value.code == 1008
        assert client.get('/?key=one').status_code == 200
        assert client.get('/v1/status').status_code == 200, 'the page has left a cookie'
        with client.websocket_connect('ws://127.0.0.1/v1/stream') as socket:
            assert socket.receive_json()['type'] == 'snapshot'
        feed.waiting.put(None)
