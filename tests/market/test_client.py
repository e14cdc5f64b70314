"""The client against servers that misbehave."""

import asyncio
import json

import httpx
import pytest
from websockets.asyncio.server import serve

from crypto_rt.core.settings import load_settings
from crypto_rt.market.exchange import trade_pages
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.kraken.rest import back_off
from crypto_rt.market.kraken.stream import stream


def frame(trade_id, kind='update'):
    item = {
        'symbol': 'BTC/USD',
        'side': 'buy',
        'price': 1.5,
        'qty': 2,
        'ord_type': 'limit',
        'trade_id': trade_id,
        'timestamp': '2026-09-25T17:48:26.844359Z',
    }
    return json.dumps({'channel': 'trade', 'type': kind, 'data': [item]})


def ack(symbol):
    return json.dumps(
        {
            'method': 'subscribe',
            'result': {'channel': 'trade', 'symbol': symbol, 'snapshot': True},
            'success': True,
        }
    )


async def collect(server, enough, symbols=('BTC/USD', 'ETH/USD'), **exchange):
    seen = []
    async with serve(server, '127.0.0.1', 0) as listening:
        url = f'ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v2'
        settings = load_settings(
            env={},
            exchange=dict(websocket_url=url, reconnect_first_seconds=0.01, reconnect_max_seconds=0.05)
            | exchange,
        )
        async with asyncio.timeout(10):
            async for frames in stream(settings, symbols, 0.02):
                seen += frames
                if enough(seen):
                    return seen


def kinds(frames):
    return [f.kind for f in frames]


def test_everything_is_subscribed_again_after_each_drop():
    asked = []

    async def server(socket):
        request = json.loads(await socket.recv())
        asked.append(request)
        for symbol in request['params']['symbol']:
            await socket.send(ack(symbol))
        await socket.send(frame(len(asked)))
        socket.transport.abort()

    seen = asyncio.run(collect(server, lambda s: kinds(s).count('disconnected') == 3))
    assert kinds(seen)[:5] == ['connected', 'ack', 'ack', 'trade', 'disconnected']
    assert [a['params'] for a in asked] == [
        {'channel': 'trade', 'symbol': ['BTC/USD', 'ETH/USD'], 'snapshot': True}
    ] * 3
    assert [f.trades[0][1] for f in seen if f.kind == 'trade'] == [1, 2, 3]


def test_a_refused_symbol_is_named_and_the_others_go_on():
    async def server(socket):
        await socket.recv()
        await socket.send(
            '{"error":"Currency pair not supported BTC/UDS","method":"subscribe","success":false,"symbol":"BTC/UDS"}'
        )
        await socket.send(ack('ETH/USD'))
        await socket.send('{"channel":"heartbeat"}')
        await socket.wait_closed()

    seen = asyncio.run(collect(server, lambda s: 'heartbeat' in kinds(s), ('BTC/UDS', 'ETH/USD')))
    assert [(f.kind, f.symbol) for f in seen[1:3]] == [('nack', 'BTC/UDS'), ('ack', 'ETH/USD')]


def test_silence_is_death_but_heartbeats_are_not():
    async def server(socket):
        await socket.recv()
        await socket.send(ack('BTC/USD'))
        for _ in range(6):
            await asyncio.sleep(0.1)
            await socket.send('{"channel":"heartbeat"}')
        await socket.wait_closed()

    seen = asyncio.run(collect(server, lambda s: 'disconnected' in kinds(s), dead_man_seconds=0.3))
    assert kinds(seen).count('heartbeat') == 6 and 'no frame for 0.3 s' in seen[-1].text


def test_a_server_that_refuses_the_handshake_or_is_not_there():
    async def reject(connection, request):
        return connection.respond(429, 'slow down\n')

    async def go():
        async with serve(lambda socket: None, '127.0.0.1', 0, process_request=reject) as listening:
            port = listening.sockets[0].getsockname()[1]
            settings = load_settings(
                env={},
                exchange=dict(
                    websocket_url=f'ws://127.0.0.1:{port}/v2',
                    reconnect_first_seconds=0.01,
                    reconnect_max_seconds=0.02,
                ),
            )
            reasons = []
            async for frames in stream(settings, ('BTC/USD',), 0.01):
                reasons += [f.text for f in frames]
                if len(reasons) == 2:
                    listening.close()
                if len(reasons) >= 4:
                    return reasons

    reasons = asyncio.run(go())
    assert '429' in reasons[0] and 'Connection' in reasons[-1]


def test_bad_frames_are_kept_whole():
    async def server(socket):
        await socket.recv()
        await socket.send(frame(1)[:60])
        await socket.send(b'\xff\x00')
        await socket.send(frame(2))
        await socket.wait_closed()

    seen = asyncio.run(collect(server, lambda s: 'trade' in kinds(s)))
    assert (
        kinds(seen)[1:] == ['bad', 'bad', 'trade'] and seen[1].raw == frame(1)[:60].encode() and seen[1].text
    )


def test_the_waits_grow_to_a_ceiling_and_differ():
    waits = [[back_off(n, 1, 60) for n in range(1, 12)] for _ in range(50)]
    assert all(2 ** (n - 1) / 2 <= w[n - 1] <= 2 ** (n - 1) for w in waits for n in range(1, 6))
    assert all(30 <= w[-1] <= 60 for w in waits) and len({w[0] for w in waits}) > 40


def rest(answer, **exchange):
    waits = []
    client = Kraken(load_settings(env={}, exchange=exchange), httpx.MockTransport(answer), waits.append)
    return client, waits


def page_of(ids, cursor):
    rows = ','.join(f'["1.5","2",1762795433.{i % 10**7:07},"b","l","",{i}]' for i in ids)
    return httpx.Response(200, content=f'{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":"{cursor}"}}}}')


def test_a_cursor_of_nanoseconds_goes_through_pages_as_text():
    asked = []

    def answer(request):
        asked.append(dict(request.url.params))
        start = 1 if len(asked) == 1 else 1001
        return page_of(
            range(start, start + (1000 if len(asked) == 1 else 7)), f'176279543397174450{len(asked)}'
        )

    client, waits = rest(answer)
    pages = trade_pages(client, 'BTC/USD', 1762795433000)
    assert [t.trade_id for page in pages for t in page.trades] == list(range(1, 1008))
    assert [a['since'] for a in asked] == ['1762795432999999999', '1762795433971744501']
    assert len(waits) == 1 and 0.5 < waits[0] <= 1.0, 'one request a second and pair'


def test_pairs_wait_for_themselves_and_a_local_server_for_nobody():
    client, waits = rest(lambda request: page_of([1], '1'))
    client.trade_page('BTC/USD', '0'), client.trade_page('ETH/USD', '0')
    assert waits == []
    client, waits = rest(lambda request: page_of([1], '1'), rest_url='http://127.0.0.1:9/0')
    client.trade_page('BTC/USD', '0'), client.trade_page('BTC/USD', '0')
    assert waits == []


@pytest.mark.parametrize(
    'refusal',
    [
        httpx.Response(429, text='<html>slow</html>', headers={'Retry-After': '3'}),
        httpx.Response(520, text='<html>origin</html>'),
        httpx.Response(200, text='<html>challenge</html>'),
        httpx.Response(200, json={'error': ['EAPI:Rate limit exceeded']}),
        httpx.Response(200, json={'error': ['EService: Throttled: 1762795433']}),
        httpx.ConnectTimeout('slow'),
    ],
)
def test_what_may_pass_is_tried_again(refusal):
    tries = []

    def answer(request):
        tries.append(1)
        if len(tries) < 3:
            if isinstance(refusal, Exception):
                raise refusal
            return refusal
        return page_of([5], '5')

    client, waits = rest(answer, rest_url='http://127.0.0.1:9/0')
    assert client.trade_page('BTC/USD', '0').trades[0].trade_id == 5 and len(waits) == 2
    assert min(waits) >= (3 if getattr(refusal, 'status_code', 0) == 429 else 0.5)
