"""An API without a broker: messages come from a queue, the past from a small store."""

import pytest
from fastapi.testclient import TestClient

from apps.app import create_app
from crypto_rt.core.settings import load_settings
from tests.apps.builders import candle
from tests.apps.doubles import HERE, Api, Feed, Store


@pytest.fixture
def settings(tmp_path):
    return load_settings(
        '/dev/null', {}, data={'directory': str(tmp_path)}, api={'ring': 50, 'client_queue': 8}
    )


@pytest.fixture
def api(settings):
    feed = Feed()
    with TestClient(
        create_app(settings, feed, Store(candle(-2, close='1'), candle(-1, close='2')), heartbeat_seconds=60),
        base_url=HERE,
    ) as client:
        yield Api(client, feed)
        feed.waiting.put(None)


@pytest.fixture(scope='module')
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium, args=['--no-sandbox', '--disable-dev-shm-usage']
        )
        yield browser
        browser.close()
