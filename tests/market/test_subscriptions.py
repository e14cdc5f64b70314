"""A stream that is refused, cut, mute or full of rubbish goes on; every symbol is asked for until it is granted."""

import asyncio
import http
import itertools
import json
import time

import httpx
import pytest
from websockets.asyncio.server import serve

from crypto_rt.core.messages import decode
from crypto_rt.core.settings import load_settings
from crypto_rt.core.times import now_ms
from crypto_rt.market.feed import Feed
from crypto_rt.market.kraken import subscriptions
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.kraken.stream import stream
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from tests.market.builders import answer_text, trade_text

HTML = '<html>error 520</html>'
ERRORS = [
    'EAPI:Rate limit exceeded',
    'EService:Unavailable',
    'EGeneral:Temporary lockout',
    'EDatabase:Internal error',
    'EMoon:Full',
    'no category at all',
]


async def watch(server, enough, symbols=('BTC/USD', 'ETH/USD'), upgrade=None, **exchange):
    "Read from a server until `enough(frames, exchange)`; return the frames."
    seen = []
    async with serve(server, '127.0.0.1', 0, process_request=upgrade) as listening:
        port = listening.sockets[0].getsockname()[1]
        quick = dict(reconnect_first_seconds=0.01, reconnect_max_seconds=0.05, quotes=False)
        urls = dict(websocket_url=f'ws://127.0.0.1:{port}/v2', rest_url='http://127.0.0.1:9/0')
        client = Kraken(
            load_settings(env={}, exchange=urls | quick | exchange),
            httpx.MockTransport(lambda request: httpx.Response(503)),
        )
        async with asyncio.timeout(20):
            async for frames in client.stream(symbols):
                seen += frames
                if enough(seen, client):
                    return seen


def all_granted(seen, client):
    return {each.state for each in client.subscriptions()} == {'acknowledged'}


REFUSALS = [
    *ERRORS[:-1],
    'Currency pair not supported',
    'ESession:Invalid session',
    None,
    ['a', 'list'],
    {'a': 1},
    7,
]


@pytest.mark.parametrize('reason', REFUSALS, ids=str)
@pytest.mark.parametrize('names', [True, False])
@pytest.mark.parametrize('numbers', [True, False])
def test_a_refused_subscription_is_asked_for_until_it_is_granted(reason, names, numbers):
    refused = itertools.count()
    states = []

    async def server(socket):
        async for raw in socket:
            message = json.loads(raw)
            for symbol in message['params']['symbol']:
                text = answer_text(message, symbol)
                if symbol == 'ETH/USD' and next(refused) < 3:
                    text = answer_text(
                        message, symbol, success=False, error=reason, **({'symbol': symbol} if names else {})
                    )
                body = json.loads(text)
                if not numbers:
                    del body['req_id']
                await socket.send(json.dumps(body))

    def enough(seen, client):
        states.append(tuple(each.state for each in client.subscriptions()))
        return all_granted(seen, client)

    seen = asyncio.run(watch(server, enough))
    assert [f.symbol for f in seen if f.kind == 'nack'] == ['ETH/USD'] * 3
    assert {f.channel for f in seen if f.kind == 'nack'} == {'trade'}
    assert ('acknowledged', 'refused') in states
    assert [f.kind for f in seen].count('connected') == 1, 'on the same connection'


def test_what_stays_refused_on_a_connection_is_tried_on_another(monkeypatch):
    monkeypatch.setattr(subscriptions, 'RECONNECT_SECONDS', (0.3, 600.0))
    connections = itertools.count()

    async def server(socket):
        number = next(connections)
        async for raw in socket:
            message = json.loads(raw)
            for symbol in message['params']['symbol']:
                refused = dict(success=False, error='EAPI:Rate limit exceeded')
                is_refused = symbol == 'ETH/USD' and number == 0
                await socket.send(answer_text(message, symbol, **(refused if is_refused else {})))

    seen = asyncio.run(watch(server, all_granted))
    assert [f.kind for f in seen if f.kind[-9:] == 'connected'] == ['connected', 'disconnected', 'connected']
    assert (
        'trades of 1 symbols stay refused on this connection: ETH/USD' in [f.text for f in seen if f.text][-1]
    )


def test_hundreds_of_symbols_are_asked_for_at_the_pace_of_the_exchange():
    symbols = tuple(f'A{n}/USD' for n in range(300))
    asked = []

    async def server(socket):
        async for raw in socket:
            message = json.loads(raw)
            asked.append((time.monotonic(), len(message['params']['symbol'])))
            for symbol in message['params']['symbol']:
                await socket.send(answer_text(message, symbol))

    asyncio.run(watch(server, all_granted, symbols))
    assert [count for _, count in asked] == [50] * 6


def test_without_an_answer_it_is_asked_for_again():
    asked = []

    async def server(socket):
        async for raw in socket:
            message = json.loads(raw)
            asked.append(message['params']['symbol'])
            await socket.send('{"channel":"heartbeat"}')
            for symbol in message['params']['symbol']:
                if symbol == 'BTC/USD' or len(asked) > 2:
                    await socket.send(answer_text(message, symbol))

    asyncio.run(watch(server, all_granted, acknowledge_seconds=0.2))
    assert asked == [['BTC/USD', 'ETH/USD'], ['ETH/USD'], ['ETH/USD']]


def test_a_mute_subscription_is_asked_for_anew_on_the_living_connection():
    said = []

    async def server(socket):
        async for raw in socket:
            message = json.loads(raw)
            said.append((message['method'], message['params']['symbol']))
            for symbol in message['params']['symbol']:
                await socket.send(answer_text(message, symbol))
                if ('unsubscribe', ['ETH/USD']) in said or symbol == 'BTC/USD':
                    await asyncio.sleep(0.3)
                    await socket.send(trade_text(symbol, 1))

    was_silent = []

    def enough(seen, client):
        for _ in range(100):
            client.renew('ETH/USD')
        was_silent.append([each.state for each in client.subscriptions()][1] == 'silent')
        return any(f.kind == 'trade' and f.trades[0][0] == 'ETH/USD' for f in seen)

    seen = asyncio.run(watch(server, enough))
    assert said[1:] == [('unsubscribe', ['ETH/USD']), ('subscribe', ['ETH/USD'])]
    assert any(was_silent) and [f.kind for f in seen].count('connected') == 1


@pytest.mark.parametrize('status', [302, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503, 520, 530])
def test_a_refused_upgrade_is_tried_again(status):
    tries = itertools.count()

    def upgrade(connection, request):
        if next(tries) < 2:
            known = status in [each.value for each in http.HTTPStatus]
            response = connection.respond(http.HTTPStatus(status) if known else http.HTTPStatus(502), HTML)
            response.status_code = status
            response.headers['Retry-After'] = '99999'
            return response
        return None

    async def server(socket):
        message = json.loads(await socket.recv())
        for symbol in message['params']['symbol']:
            await socket.send(answer_text(message, symbol))
        await socket.wait_closed()

    seen = asyncio.run(watch(server, all_granted, upgrade=upgrade))
    assert [f.kind for f in seen][:3] == ['disconnected', 'disconnected', 'connected']


@pytest.mark.parametrize(
    'junk',
    [
        b'\x00' * 2**25,  # a frame that is too big
        b'\xff\xfe\x00',
        '',
        '[]',
        'null',
        '{}',
        'not json',
        '{"channel":null}',
        '{"channel":"trade"}',
        '{"channel":"trade","type":"update","data":null}',
        '{"channel":"trade","type":"update","data":[null,7,[],{}]}',
        '{"channel":"status","type":"update","data":[{}]}',
        '{"channel":"ticker","type":"update","data":[{"symbol":7}]}',
        '{"channel":"unheard of","data":{"a":[1]}}',
        '{"event":"systemStatus"}',
        '{"method":"pong"}',
        '{"error":["EGeneral:Too many requests"],"method":"ping"}',
        '{"error":{"code":1}}',
        '{"method":"subscribe","success":true,"result":null}',
        '{"method":"subscribe","success":false,"symbol":null,"error":null}',
        '{"method":"subscribe","success":"yes","req_id":"1","time_out":5}',
        '[' * 5000,
    ],
    ids=lambda junk: str(junk[:30]),
)
def test_whatever_comes_between_them_no_trade_is_lost(junk):
    connections = itertools.count()

    async def server(socket):
        message = json.loads(await socket.recv())
        number = next(connections)
        await socket.send(answer_text(message, 'BTC/USD'))
        await socket.send(trade_text('BTC/USD', 101 + 10 * number))
        if number == 0:
            await socket.send(junk)
        await socket.send(trade_text('BTC/USD', 102 + 10 * number))
        await socket.wait_closed()

    def enough(seen, client):
        return {102, 112} & {item[1] for f in seen for item in f.trades}

    seen = asyncio.run(watch(server, enough, ('BTC/USD',)))
    feed, told = Feed([SymbolState('BTC/USD', TradeSequence(100))], 'live'), []
    for frame in seen:
        told += feed.take([frame], now_ms())
    ids = [
        t.trade_id
        for out in told
        if out.topic == 'trades'
        for t in getattr(decode('trades', out.value), 'trades', [])
    ]
    assert ids[:2] in ([101, 102], [101, 111])


@pytest.mark.parametrize(
    'url', ['ws://no-such-host.invalid/v2', 'ws://127.0.0.1:1/v2', 'wss://127.0.0.1:{port}/v2']
)
def test_neither_dns_nor_tls_ends_the_stream(url):
    async def go():
        async with serve(lambda socket: None, '127.0.0.1', 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            quick = dict(reconnect_first_seconds=0.01, reconnect_max_seconds=0.02)
            settings = load_settings(env={}, exchange=dict(websocket_url=url.format(port=port)) | quick)
            reasons = []
            async for frames in stream(settings, ('BTC/USD',), 0.01):
                reasons += [f.text for f in frames if f.kind == 'disconnected']
                if len(reasons) == 3:
                    return reasons

    assert all(asyncio.run(go()))
