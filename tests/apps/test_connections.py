"""What a socket may do to the server: half a head, a long one, silence, an answer that nobody reads."""

import json
import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.apps.builders import candle
from tests.apps.doubles import Server, until

TIMES = {'request_seconds': 0.5, 'idle_seconds': 0.5, 'unread_seconds': 0.7}
GOOD = b'GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp('door'), gradio=False, past=[candle(-1)], **TIMES)
    yield server
    server.stop()


def connected(server):
    return socket.create_connection(('127.0.0.1', server.port), timeout=10)


def told(connection):
    "Return all that comes until the server ends the connection, and how many seconds that took."
    began, pieces = time.monotonic(), []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b''.join(pieces), time.monotonic() - began


def status_of(answer):
    head, _, body = answer.partition(b'\r\n\r\n')
    status = int(head.split()[1])
    if status >= 400:
        assert b'content-type: application/problem+json' in head.lower() and b'nosniff' in head
        assert json.loads(body)['status'] == status
    return status


def still_answers(server):
    with connected(server) as connection:
        connection.sendall(GOOD)
        return connection.recv(65536).startswith(b'HTTP/1.1 200')


@pytest.mark.parametrize(
    'half', [b'GET /v1/heal', b'GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ', GOOD[:-2]]
)
def test_half_a_head_is_answered_with_408(server, half):
    with connected(server) as connection:
        connection.sendall(half)
        answer, seconds = told(connection)
    assert status_of(answer) == 408 and 0.3 < seconds < 3


def test_a_head_that_trickles_in_gets_no_more_time(server):
    with connected(server) as connection:
        began = time.monotonic()
        for byte in GOOD:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
            if time.monotonic() - began > 1.8:
                break
        try:
            answer, _ = told(connection)
        except ConnectionResetError:
            answer = b''
    assert time.monotonic() - began < 3 and (not answer or status_of(answer) == 408)


def test_a_slow_second_head_of_a_connection_is_ended_too(server):
    with connected(server) as connection:
        connection.sendall(GOOD)
        assert connection.recv(65536).startswith(b'HTTP/1.1 200')
        connection.sendall(b'GET /v1/health HT')
        answer, seconds = told(connection)
    assert status_of(answer) == 408 and seconds < 3


@pytest.mark.parametrize('first', [b'', GOOD, GOOD + b'\r\n'])
def test_a_silent_socket_is_closed(server, first):
    with connected(server) as connection:
        connection.sendall(first)
        answer, seconds = told(connection)
    assert answer.count(b'HTTP/1.1') == bool(first) and seconds < 3


def test_a_hundred_half_heads_keep_nobody_out(server):
    held = [connected(server) for _ in range(100)]
    for connection in held:
        connection.sendall(b'GET /v1/health HTTP/1.1\r\nHost')
    assert still_answers(server)
    assert {status_of(told(connection)[0]) for connection in held} == {408}
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    ('head', 'status'),
    [
        (b'GET /' + b'a' * 10_000 + b' HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n', 414),
        (b'GET /' + b'a' * 300_000, 414),
        (b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ' + b'a' * 20_000 + b'\r\n\r\n', 431),
        (b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ' + b'a' * 300_000, 431),
        (b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n' + b'X-A: b\r\n' * 120 + b'\r\n', 431),
        (b'NONSENSE\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: [::\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n', 400),
        (b'POST /v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400),
    ],
)
def test_a_head_that_is_too_long_or_none_is_refused(server, head, status):
    with connected(server) as connection:
        connection.sendall(head)
        assert status_of(told(connection)[0]) == status
    assert still_answers(server)


@pytest.mark.parametrize(
    'origin',
    [
        b'http://[',
        b'http://[1:2]',
        b'null',
        b'http://a b',
        b'http://127.0.0.1@evil.example',
        b'\xff',
        b'x' * 999,
    ],
)
@pytest.mark.parametrize('kind', ['page', 'stream'])
def test_a_malformed_origin_is_refused(server, origin, kind):
    upgrade = (
        b'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
        b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
    )
    path, more = (b'/v1/stream', upgrade) if kind == 'stream' else (b'/v1/health', b'')
    with connected(server) as connection:
        connection.sendall(
            b'GET ' + path + b' HTTP/1.1\r\nHost: 127.0.0.1\r\n' + more + b'Origin: ' + origin + b'\r\n\r\n'
        )
        assert connection.recv(65536).split()[1] == b'403'


def test_a_body_that_does_not_come_is_answered_with_408(server):
    with connected(server) as connection:
        connection.sendall(b'POST /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc')
        answer, seconds = told(connection)
    assert status_of(answer) == 408 and seconds < 3


def test_a_body_that_never_ends_is_refused_and_its_socket_closed(server):
    with connected(server) as connection:
        connection.sendall(
            b'POST /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n'
        )
        began, sent = time.monotonic(), 0
        with pytest.raises(OSError):
            while time.monotonic() - began < 10:
                connection.sendall(b'2000\r\n' + b'a' * 0x2000 + b'\r\n')
                sent += 0x2000
                time.sleep(0.01)
    assert time.monotonic() - began < 5 and sent > 65_536


def test_who_does_not_read_is_cut_off(server, caplog):
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b'GET /crt/lightweight-charts.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
        connection.sendall(request * 100)
        time.sleep(2)
        with pytest.raises(ConnectionResetError):
            told(connection)
    assert still_answers(server)
    assert not [line for line in caplog.records if line.levelname == 'ERROR']


def test_a_broken_handshake_of_a_websocket_is_answered(server):
    with connected(server) as connection:
        connection.sendall(
            b'GET /v1/stream?\xe9 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
        )
        assert told(connection)[0].split()[1] in (b'400', b'426')
    assert still_answers(server)


def test_one_socket_too_many_is_turned_away(tmp_path):
    server = Server(tmp_path, gradio=False, max_connections=10, **TIMES)
    try:
        held = [connected(server) for _ in range(10)]
        with connected(server) as one_more:
            answer, _ = told(one_more)
            assert status_of(answer) == 503 and b'retry-after' in answer.lower()
        for connection in held:
            connection.close()
        until(lambda: still_answers(server))
    finally:
        server.stop()


def test_an_address_may_hold_so_many_sockets_websockets_among_them(tmp_path, monkeypatch):
    monkeypatch.setenv('CRYPTO_RT_API_KEYS', 'one')
    server = Server(tmp_path, gradio=False, connections_per_address=5, **TIMES)
    try:
        streams = [connect(f'ws://127.0.0.1:{server.port}/v1/stream?key=one') for _ in range(5)]
        with connected(server) as one_more:
            assert status_of(told(one_more)[0]) == 503
        for stream in streams:
            stream.close()
        until(lambda: still_answers(server))
    finally:
        server.stop()


def test_the_stream_has_room_for_so_many_clients(tmp_path):
    server = Server(tmp_path, gradio=False, max_clients=2, **TIMES)
    try:
        address = f'ws://127.0.0.1:{server.port}/v1/stream'
        with connect(address) as first, connect(address) as second, connect(address) as third:
            assert first.recv() and second.recv()
            with pytest.raises(ConnectionClosed) as closed:
                third.recv()
            assert closed.value.rcvd.code == 1013
    finally:
        server.stop()


def test_a_client_that_talks_is_closed(server):
    with connect(f'ws://127.0.0.1:{server.port}/v1/stream') as stream:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(1000):
                stream.send('hello')
            while True:
                stream.recv()
        assert closed.value.rcvd.code == 1008
    until(lambda: not server.hub.clients)
