"""What lies at `/`."""

import time

from fastapi.testclient import TestClient

from apps.app import create_app
from crypto_rt.core.settings import load_settings
from tests.apps.doubles import Feed, until


def test_the_live_page_is_there_at_once_and_gradio_follows(tmp_path):
    feed = Feed()
    settings = load_settings('/dev/null', {}, data={'directory': str(tmp_path)})
    with TestClient(create_app(settings, feed, dashboard=True), base_url='http://127.0.0.1') as client:
        began = time.monotonic()
        page = client.get('/')
        assert (
            page.status_code == 200
            and 'data-plain' in page.text
            and 'crt-chart' in page.text
            and time.monotonic() - began < 1
        )
        assert client.get('/v1/health').status_code == 200
        until(lambda: client.app.state.context.hub.dashboard == 'ready', 90)
        page = client.get('/')
        assert (
            'data-plain' not in page.text
            and 'gradio' in page.text
            and client.get('/config').status_code == 200
        )
        assert client.get('/v1/health').status_code == 200 and client.get('/v1/nothing').status_code == 404
        closed = (
            'upload',
            'file=/etc/passwd',
            'info',
            'app_id',
            'startup-events',
            'proxy=http://127.0.0.1/',
            'login',
        )
        for name in closed:
            assert client.get(f'/gradio_api/{name}').status_code == 404, name
            files = {'files': ('x.bin', b'x' * 1000)}
            assert client.post(f'/gradio_api/{name}', files=files).status_code == 404, name
        for path in ('/upload', '/file=/etc/passwd', '/monitoring', '/assets/../../app.py', '/run/predict'):
            assert client.get(path).status_code == 404, path
        other = client.get('/gradio_api/run/predict')
        assert (other.status_code, other.headers['allow']) == (405, 'POST')
        tick = {'data': [], 'fn_index': 0, 'session_hash': 'x'}
        assert client.post('/gradio_api/run/predict', json=tick).status_code == 200
        foreign = {'Origin': 'https://evil.example'}
        assert client.post('/gradio_api/run/predict', json=tick, headers=foreign).status_code == 403
        policy = page.headers['content-security-policy']
        assert 'sha256-' in policy and "'unsafe-inline'" not in policy.partition('style-src')[0]
        assert client.get('/favicon.ico').headers['content-type'].startswith('image/')
        feed.waiting.put(None)
