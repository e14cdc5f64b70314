"""`/v1/stream`: numbered messages, coming back, slow clients, wrong subscriptions."""

import asyncio

import jsonschema
import pytest
from starlette.websockets import WebSocketDisconnect

from crypto_rt.core.messages import NewsWatermark, schema
from tests.apps.builders import START, candle, forming, indicators, prediction, signal, story
from tests.apps.doubles import until


def test_the_stream_begins_with_a_snapshot_and_rises_by_one(api):
    api.send(candle(0), prediction(0))
    with api.stream() as socket:
        first = socket.receive_json()
        assert (first['channel'], first['type'], first['data']['epoch']) == (
            'stream',
            'snapshot',
            api.hub.epoch,
        )
        assert first['data']['latest']['candles']['BTC/USD']['start_ms'] == START
        api.send(candle(1), forming(2), indicators(1), prediction(1))
        got = [socket.receive_json() for _ in range(4)]
        assert [m['seq'] for m in got] == [first['seq'] + n for n in (1, 2, 3, 4)]
        assert [m['channel'] for m in got] == [
            'candles',
            'candles_forming',
            'technical_indicators',
            'predictions',
        ]
        for message in got:
            assert message['type'] == 'update'
            jsonschema.validate(message['data'], schema(message['channel']))
    until(lambda: not api.hub.clients)


def test_a_client_gets_what_it_asked_for_and_heartbeats(api):
    with api.stream('?symbols=ETH/USD&channels=candles') as socket:
        socket.receive_json()
        api.send(candle(0), prediction(0, 'ETH/USD'), candle(0, 'ETH/USD'))
        message = socket.receive_json()
        assert (message['channel'], message['data']['symbol']) == ('candles', 'ETH/USD')
        api.client.portal.call(api.hub.send_heartbeat)
        beat = socket.receive_json()
        assert (
            beat['type'] == 'heartbeat'
            and beat['seq'] > message['seq']
            and beat['data']['epoch'] == api.hub.epoch
        )


def test_what_says_nothing_new_is_not_sent_again(api):
    api.send(candle(0))
    with api.stream() as socket:
        socket.receive_json()
        api.send(candle(0), candle(0, close='7', revision=1), candle(0), candle(1))
        assert [
            (m['data']['start_ms'], m['data']['revision'])
            for m in (socket.receive_json(), socket.receive_json())
        ] == [(START, 1), (START + 60_000, 0)]


def test_a_client_comes_back_where_it_was(api):
    with api.stream() as socket:
        seq = socket.receive_json()['seq']
    api.send(candle(0), candle(1), candle(2))
    with api.stream(f'?since={seq + 1}&epoch={api.hub.epoch}') as socket:
        first = socket.receive_json()
        assert (
            first['data']['resumed'] and first['seq'] == seq + 1 and first['data']['epoch'] == api.hub.epoch
        )
        assert [socket.receive_json()['data']['start_ms'] for _ in range(2)] == [
            START + 60_000,
            START + 120_000,
        ]


@pytest.mark.parametrize('query', ['?since=1', '?since=999999', '?since=60&epoch=another'])
def test_a_client_that_was_away_too_long_gets_a_gap_and_a_snapshot(api, query):
    api.send(*(candle(i) for i in range(60)))
    with api.stream(query) as socket:
        gap, snapshot = socket.receive_json(), socket.receive_json()
        assert gap['type'] == 'gap' and gap['data']['epoch'] == api.hub.epoch and gap['data']['oldest'] > 1
        assert snapshot['type'] == 'snapshot' and snapshot['seq'] == gap['seq'] + 1
        assert snapshot['data']['latest']['candles']['BTC/USD']['start_ms'] == START + 59 * 60_000
        api.send(candle(60))
        assert socket.receive_json()['seq'] == snapshot['seq'] + 1


def test_a_slow_client_is_dropped_and_the_others_see_all(api):
    async def slow():
        sent, blocked = [], asyncio.Event()

        async def receive():
            if not sent:
                return {'type': 'websocket.connect'}
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)
            if message['type'] == 'websocket.send':
                await blocked.wait()

        scope = {
            'type': 'websocket',
            'path': '/v1/stream',
            'raw_path': b'/v1/stream',
            'root_path': '',
            'query_string': b'',
            'scheme': 'ws',
            'headers': [(b'host', b'127.0.0.1')],
            'subprotocols': [],
            'client': ('127.0.0.1', 1),
            'server': ('127.0.0.1', 80),
            'app': api.client.app,
        }
        await api.client.app(scope, receive, send)
        return sent

    with api.stream() as quick:
        quick.receive_json()
        future = api.client.portal.start_task_soon(slow)
        until(lambda: len(api.hub.clients) == 2)
        for i in range(20):
            api.send(candle(i))
            assert quick.receive_json()['data']['start_ms'] == START + i * 60_000
        sent = future.result(5)
        assert sent[-1]['type'] == 'websocket.close' and sent[-1]['code'] == 1013
    assert api.hub.evicted == 1 and api.get('/v1/status')['evicted_clients'] == 1


def test_a_foreign_page_gets_no_stream(api):
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        api.stream(headers={'origin': 'https://evil.example'}),
    ):
        pass
    assert refused.value.code == 1008


@pytest.mark.parametrize(
    ('query', 'words'),
    [
        ('?symbols=DOGE/USD', 'DOGE/USD'),
        ('?channels=tea', 'tea'),
        ('?since=x', 'since'),
        ('?since=²', 'must be a number of the stream'),
        ('?bogus=1', 'bogus'),
        ('?channels=', 'empty'),
        ('?channels=candles,', 'empty'),
        ('?symbols=', 'empty'),
        ('?symbols=BTC/USD&symbols=ETH/USD', 'twice'),
    ],
)
def test_a_wrong_subscription_is_closed_with_the_reason(api, query, words):
    with api.stream(query) as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json()
    assert closed.value.code == 1008 and words in closed.value.reason


def test_news_are_a_channel_of_the_stream(api):
    with api.stream('?channels=news&symbols=ETH/USD') as socket:
        socket.receive_json()
        api.send(story(0), story(0), candle(0, 'ETH/USD'), signal(0), NewsWatermark(START))
        got = [socket.receive_json() for _ in range(2)]
        assert [(m['channel'], m['data']['type'], m['data']['news_id']) for m in got] == [
            ('news', 'news', 'n0'),
            ('news', 'news_signal', 'n0'),
        ]
        jsonschema.validate(got[0]['data'], schema('news'))
