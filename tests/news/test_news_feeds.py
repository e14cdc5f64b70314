"""Feeds that fail: each fault is counted with its feed, nothing is leaked, and the others go on."""

import gzip
import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from crypto_rt.core.messages import decode
from crypto_rt.core.settings import Settings
from crypto_rt.news.feeds import (
    NewsFeed,
    feeds_of,
    open_client,
    poll,
    public_address,
    redacted,
    retry_after,
    rounds,
)
from crypto_rt.news.stories import Entry
from crypto_rt.services.news import LiveNewsService

LOCAL = frozenset({'127.0.0.1'})
BASE = Settings()
TOKEN = 'tok-4711-secret'


def with_news(**values: object) -> Settings:
    return msgspec.structs.replace(
        BASE, news=msgspec.structs.replace(BASE.news, **{'timeout_seconds': 2.0, **values})
    )


SETTINGS = with_news(max_bytes=100_000)


def feed_of(*titles: str) -> bytes:
    items = ''.join(
        f'<item><title>{title}</title><link>https://a.example/{title}</link></item>' for title in titles
    )
    return f'<rss version="2.0"><channel>{items}</channel></rss>'.encode()


Reply = tuple[int, dict[str, str], bytes]


class Faulty(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        super().__init__(('127.0.0.1', 0), Handler)

    def url(self, path: str) -> str:
        return f'http://127.0.0.1:{self.server_port}{path}'


class Handler(http.server.BaseHTTPRequestHandler):
    server: Faulty

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        reply = self.server.replies[self.path.partition('?')[0]]
        try:
            if callable(reply):
                reply(self)
                return
            self.send_response(reply[0])
            for name, value in {**reply[1], 'Content-Length': str(len(reply[2]))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply[2])
        except OSError:
            pass

    def log_message(self, *rest: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Faulty]:
    found = Faulty()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def asked(
    url: str, token: str = '', settings: Settings = SETTINGS, named: frozenset[str] = LOCAL
) -> tuple[NewsFeed, list[str]]:
    feed = NewsFeed(url, token)
    with open_client(settings, named) as client:
        return feed, [
            entry.title for entry in poll(feed, client, settings=settings, now=0.0, chance=lambda: 0.5)
        ]


def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b' ')
        handler.wfile.flush()
        time.sleep(0.1)


def hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header('Content-Length', '1000')
    handler.end_headers()
    handler.wfile.write(b'<rss')
    handler.connection.shutdown(socket.SHUT_RDWR)


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(b'<!-- more -->' * 1000)


FAULTS = {
    'http_403': (403, {}, b''),
    'http_404': (404, {}, b'<html></html>'),
    'http_500': (500, {}, b''),
    'http_429': (429, {'Retry-After': '5000'}, b''),
    'not_a_feed': (200, {'Content-Type': 'text/html'}, b'<!DOCTYPE html><html></html>'),
    'too_large': endless,
    'too_slow': drip,
    'unreachable': hang_up,
    'redirects': (302, {'Location': '/fault'}, b''),
    'bad_redirect': (302, {'Location': 'file:///etc/passwd'}, b''),
}


@pytest.mark.parametrize('reason', FAULTS)
def test_a_fault_is_counted_and_the_others_go_on(server: Faulty, reason: str) -> None:
    server.replies = {'/fault': FAULTS[reason], '/good': (200, {}, feed_of('good news'))}
    began = time.monotonic()
    bad, nothing = asked(server.url('/fault'))
    assert nothing == [] and bad.counts == {f'failed_{reason}': 1} | (
        {'fetched': 1} if reason == 'not_a_feed' else {}
    )
    assert time.monotonic() - began < 5
    assert bad.due == (5000 if reason == 'http_429' else 90)
    assert asked(server.url('/good'))[1] == ['good news']


def test_other_things_that_are_no_feed(server: Faulty) -> None:
    bomb = gzip.compress(b'<rss>' + b' ' * 50_000_000)
    server.replies = {
        '/bomb': (200, {'Content-Encoding': 'gzip'}, bomb),
        '/broken': (200, {'Content-Encoding': 'gzip'}, b'not gzip'),
        '/entities': (200, {}, b'<!DOCTYPE x [<!ENTITY a "b">]><rss/>'),
        '/empty': (200, {}, b''),
    }
    reasons = {path: asked(server.url(path))[0].counts for path in server.replies}
    assert reasons['/bomb'] == {'failed_too_large': 1} and reasons['/broken'] == {'failed_unreachable': 1}
    assert reasons['/entities'] == reasons['/empty'] == {'fetched': 1, 'failed_not_a_feed': 1}
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        assert asked(f'http://127.0.0.1:{closed.getsockname()[1]}/')[0].counts == {'failed_unreachable': 1}


@pytest.mark.parametrize(
    'target',
    [
        'http://10.0.0.1/',
        'http://169.254.169.254/latest/meta-data',
        'http://[::1]:80/',
        'http://localhost:1/',
        'http://0.0.0.0/',
        'http://[::ffff:127.0.0.1]/',
    ],
)
def test_no_redirect_to_a_private_address(
    server: Faulty, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.replies = {'/': (301, {'Location': target}, b'')}
    feed, nothing = asked(server.url('/'))
    assert nothing == [] and feed.counts == {'failed_unreachable': 1}
    assert 'expected a public address' in caplog.text


def test_a_host_is_private_when_one_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, '', (address, 80))
        for address in ('93.184.215.14', '127.0.0.1')
    ]
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *rest, **options: rows)
    with pytest.raises(ConnectionError, match=r'rebinding\.example has 127'):
        public_address('rebinding.example', 80)
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *rest, **options: rows[:1])
    assert public_address('good.example', 80) == '93.184.215.14'


def test_what_is_unchanged_is_asked_for_by_its_tag(server: Faulty) -> None:
    server.replies = {
        '/': (200, {'ETag': '"a"', 'Last-Modified': 'Fri, 25 Sep 2026 14:41:53 GMT'}, feed_of('one'))
    }
    feed = NewsFeed(server.url('/'))
    with open_client(SETTINGS, LOCAL) as client:
        assert len(poll(feed, client, SETTINGS, 0.0)) == 1
        server.replies['/'] = (304, {}, b'')
        assert poll(feed, client, SETTINGS, 0.0) == []
    assert (server.seen[1][1]['if-none-match'], server.seen[1][1]['if-modified-since']) == (
        '"a"',
        'Fri, 25 Sep 2026 14:41:53 GMT',
    )
    assert feed.counts == {'fetched': 1, 'entries': 1, 'unchanged': 1} and not feed.failures


def test_the_wait_grows_and_falls_back(server: Faulty) -> None:
    server.replies = {'/': (500, {}, b'')}
    feed, waits = NewsFeed(server.url('/')), []
    with open_client(SETTINGS, LOCAL) as client:
        for _ in range(8):
            poll(feed, client, settings=SETTINGS, now=0.0, chance=lambda: 1.0)
            waits.append(feed.due)
        server.replies['/'] = (200, {}, feed_of('one'))
        poll(feed, client, settings=SETTINGS, now=0.0, chance=lambda: 0.0)
    assert (
        waits == [120, 240, 480, 960, 1920, 3600, 3600, 3600]
        and feed.due == pytest.approx(108)
        and feed.failures == 0
    )


@pytest.mark.parametrize(
    ('header', 'seconds'),
    [
        (None, None),
        ('7', 7),
        ('-1', None),
        ('999999999', 86_400),
        ('soon', None),
        ('Thu, 01 Jan 1970 00:00:10 GMT', 10),
        ('', None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, 0.0) == seconds


def test_the_token_is_nowhere_but_in_the_question(server: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, 'crypto_rt')
    reply = {
        'next': server.url(f'/?auth_token={TOKEN}&page=2'),
        'results': [
            {'id': 1, 'title': 'Ether rises', 'instruments': [{'code': 'ETH '}], 'source': None},
            None,
        ],
    }
    server.replies = {'/': (200, {}, json.dumps(reply).encode())}
    _, titles = asked(server.url('/'), TOKEN)
    assert titles == ['Ether rises'] and TOKEN in server.seen[0][0]
    for bad in (
        (401, {}, b''),
        (302, {'Location': f'http://10.0.0.1/?auth_token={TOKEN}'}, b''),
        (200, {}, f'<html>{TOKEN}'.encode()),
        (200, {}, b'{"results": 3}'),
    ):
        server.replies = {'/': bad}
        failed, nothing = asked(server.url('/'), TOKEN)
        assert nothing == [] and TOKEN not in json.dumps(failed.counts)
    assert TOKEN not in caplog.text and 'gave no news' in caplog.text
    assert (
        redacted(f'x?auth_token={TOKEN}&a=1 {TOKEN}', TOKEN) == 'x?auth_token=***&a=1 ***'
        and redacted('?token=abc', '') == '?token=***'
    )


def test_a_slow_feed_holds_nobody_up(server: Faulty) -> None:
    server.replies = {'/slow': drip, '/good': (200, {}, feed_of('good news')), '/dead': (500, {}, b'')}
    settings = with_news(feeds=tuple(server.url(path) for path in server.replies))
    began, ticks, told = time.monotonic(), [], []
    feeds = feeds_of(settings)

    def wait(seconds: float) -> bool:
        ticks.append(time.monotonic() - began)
        time.sleep(0.05)
        return len(ticks) > 10

    for answers in rounds(feeds, settings, wait):
        told += [(feed.url, [entry.title for entry in entries]) for feed, entries in answers]
    assert ticks[-1] < 1.5 and (server.url('/good'), ['good news']) in told
    assert feeds[2].counts == {'failed_http_500': 1}


def test_stories_go_out_once_and_bad_ones_are_put_aside_once() -> None:
    feed, other = NewsFeed('https://a.example/rss'), NewsFeed('https://b.example/rss')
    desk = LiveNewsService(BASE)
    first = [Entry('Bitcoin rises on a very quiet day in May', url='https://a.example/1'), Entry('')]
    outs = [
        *desk.take(feed, first, 1_763_400_000_000),
        *desk.take(feed, first, 1_763_400_120_000),
        *desk.take(
            other,
            [Entry('Bitcoin rises on a very quiet day in May', url='https://b.example/9')],
            1_763_400_120_000,
        ),
    ]
    assert [out.topic for out in outs] == ['dead_letters', 'news']
    assert feed.counts == {'kept': 1, 'dead_letters': 1, 'again': 2} and other.counts == {'duplicates': 1}
    restarted = LiveNewsService(BASE, [decode('news', out.value) for out in outs if out.topic == 'news'])
    assert [out.topic for out in restarted.take(feed, first, 1_763_400_240_000)] == ['dead_letters']


def test_addresses_of_the_settings_are_checked() -> None:
    for url in ('file:///etc/passwd', 'ftp://a.example', 'a.example/feed'):
        with pytest.raises(ValueError, match='must be addresses'):
            feeds_of(with_news(feeds=(url,)))
    assert [feed.token for feed in feeds_of(with_news(feeds=()), TOKEN)] == [TOKEN] and feeds_of(
        with_news(feeds=())
    ) == []
