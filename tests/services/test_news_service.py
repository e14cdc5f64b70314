"""The news service on a real broker: live it polls and goes on after a kill, in a replay it keeps step and passes the end on."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from crypto_rt.bus.reading import tail
from crypto_rt.bus.sending import open_producer, send_end
from crypto_rt.bus.topics import ensure_topics
from crypto_rt.core.messages import Candle, News, NewsWatermark, decode, encode
from crypto_rt.core.settings import Settings, load_settings, to_env

FEED = b"""<rss version="2.0"><channel><item><title>Bitcoin rises on a quiet day</title><link>https://a.example/1</link></item>
           <item><title></title></item></channel></rss>"""
START_MS = 1_763_400_000_000


def settings_for(broker: str, folder: Path, **news: object) -> Settings:
    kafka = dict(broker=broker, topic_prefix=f't{uuid.uuid4().hex[:8]}.', session_timeout_ms=1000)
    return load_settings('/dev/null', env={}, kafka=kafka, data=dict(directory=str(folder)), news=news)


def start(settings: Settings, *arguments: str, **env: str) -> subprocess.Popen:
    command = [
        sys.executable,
        '-c',
        'import sys; from apps.cli import main; sys.exit(main(sys.argv[1:]))',
        'news',
        *arguments,
    ]
    return subprocess.Popen(
        command, env={**os.environ, **to_env(settings), **env}, stderr=subprocess.PIPE, text=True
    )


def messages(settings: Settings, wanted: int, kind: type, seconds: float = 40) -> list:
    deadline = time.monotonic() + seconds
    while True:
        found = [decode('news', m.value) for m in tail(settings, 'news', 1000)]
        if sum(isinstance(m, kind) for m in found) >= wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


class Wire(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header('Content-Length', str(len(FEED)))
        self.end_headers()
        self.wfile.write(FEED)

    def log_message(self, *rest: object) -> None:
        pass


def test_live_news_once_through_a_kill(kafka_broker: str, tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Wire)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = settings_for(
        kafka_broker,
        tmp_path,
        feeds=f'http://127.0.0.1:{server.server_port}/rss,http://127.0.0.1:1/dead',
        poll_seconds=1.0,
    )
    ensure_topics(settings)
    try:
        first = start(settings)
        messages(settings, 2, NewsWatermark)
        first.kill()
        first.communicate()
        told = messages(settings, 0, NewsWatermark)
        second = start(settings)
        found = messages(settings, sum(isinstance(m, NewsWatermark) for m in told) + 2, NewsWatermark)
        second.send_signal(signal.SIGTERM)
        errors = second.communicate(timeout=20)[1]
    finally:
        server.shutdown()
    assert second.returncode == 0, errors
    stories = [m for m in found if isinstance(m, News)]
    assert [story.title for story in stories] == ['Bitcoin rises on a quiet day'] and stories[0].assets == [
        'BTC'
    ]
    marks = [m.through_ms for m in found if isinstance(m, NewsWatermark)]
    assert marks == sorted(marks) and all(
        m.through_ms < stories[0].available_ms for m in found[: found.index(stories[0])]
    )
    assert 'no news' in errors
    event = decode('service_events', tail(settings, 'service_events', 10)[-1].value)
    assert event.counts['127.0.0.1 fetched'] >= 1


@pytest.mark.parametrize('with_file', [True, False])
def test_replayed_news_keep_step_and_pass_the_end_on(
    kafka_broker: str, tmp_path: Path, with_file: bool
) -> None:
    settings = settings_for(kafka_broker, tmp_path, replay_delay_seconds=60)
    ensure_topics(settings)
    rows = {
        f'/{n}': {
            'Title': f'Story number {n} of the day',
            'Date': f'2025-11-17T17:{20 + n}:00Z',
            'URL': f'/{n}',
        }
        for n in range(9)
    }
    (tmp_path / 'news.json').write_text(json.dumps(rows))
    producer = open_producer(settings)
    for minute in range(1, 6):
        end = START_MS + minute * 60_000
        made = Candle(
            'BTC/USD',
            60,
            end - 60_000,
            0,
            end,
            *['1'] * 7,
            1,
            '1',
            -1,
            -1,
            None,
            None,
            False,
            False,
            'trades',
            end + 2000,
        )
        producer.send('candles', 'BTC/USD', encode(made))
    producer.flush()
    send_end(producer, 'candles', 'run-1')
    producer.flush()
    service = start(
        settings,
        *(('--news-file', str(tmp_path / 'news.json')) if with_file else ()),
        CRYPTO_RT_RUN_SOURCE='replay',
        CRYPTO_RT_RUN_ID='run-1',
    )
    deadline, ended = time.monotonic() + 40, False
    while not ended and time.monotonic() < deadline:
        events = [decode('service_events', m.value) for m in tail(settings, 'service_events', 50)]
        ended = any(
            event.kind == 'end' and event.run_id == 'run-1' and event.service == 'news' for event in events
        )
        time.sleep(0.2)
    service.send_signal(signal.SIGTERM)
    service.communicate(timeout=20)
    assert ended
    found = messages(settings, 0, News)
    assert [m.title for m in found if isinstance(m, News)] == (
        [f'Story number {n} of the day' for n in range(5)] if with_file else []
    )
    assert (found[-1] == NewsWatermark(START_MS + 300_000)) if with_file else found == []
