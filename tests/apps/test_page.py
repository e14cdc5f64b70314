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
        assert client.get('/favicon.ico').headers['content-type'].startswith('image/')
        feed.waiting.put(None)
