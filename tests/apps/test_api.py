"""The API without a broker: messages come from a queue, the past from a small store."""

import asyncio
import json
import queue
import time
from pathlib import Path

import jsonschema
import pytest
from fastapi.testclient import TestClient
from msgspec.structs import replace
from starlette.websockets import WebSocketDisconnect

from apps.api import Seldom, create_app, listening_socket, origin_allowed, read_bus
from apps.stream import Client, Hub, Recent, Stories, hear
from crypto_rt.core.messages import (
    Candle,
    DeadLetter,
    FormingCandle,
    News,
    NewsSignal,
    NewsWatermark,
    Prediction,
    ServiceEvent,
    TechnicalIndicators,
    encode,
    schema,
)
from crypto_rt.core.settings import load_settings

START = 1_762_795_380_000
HERE = 'http://127.0.0.1'


def candle(i=0, symbol='BTC/USD', close='105433.6', revision=0, **more):
    start = START + i * 60_000
    values = dict(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=revision,
        end_ms=start + 60_000,
        open='105400',
        high='105500',
        low='105390.1',
        close=close,
        volume='1.25',
        quote_volume='131792',
        vwap='105433.6',
        trade_count=7,
        buy_volume='0.5',
        first_trade_id=max(0, 10 * i),
        last_trade_id=max(0, 10 * i) + 6,
        bid=None,
        ask=None,
        is_empty=False,
        is_partial=False,
        source='trades',
        available_ms=start + 62_000,
    )
    return Candle(**{**values, **more})


def forming(i=0, symbol='BTC/USD', close='105440'):
    start = START + i * 60_000
    return FormingCandle(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        end_ms=start + 60_000,
        open='105400',
        high='105500',
        low='105390.1',
        close=close,
        volume='0.5',
        trade_count=3,
        last_trade_id=4,
        as_of_ms=start + 30_000,
    )


def prediction(i=0, symbol='BTC/USD', status='baseline'):
    c, told = candle(i, symbol), status != 'abstain'
    return Prediction(
        symbol=symbol,
        interval_seconds=60,
        horizon_seconds=300,
        start_ms=c.start_ms,
        revision=0,
        model_version='baseline-1',
        made_at_ms=c.available_ms,
        target_ms=c.end_ms + 300_000,
        last_price=105433.6,
        expected_log_return=0.0 if told else None,
        lower=-0.002 if told else None,
        upper=0.002 if told else None,
        level=0.9,
        expected_price=105433.6 if told else None,
        status=status,
        reasons=[] if told else ['stale input'],
        model_digest='ab' * 32,
        feature_hash='cd' * 32,
        flags=[],
        expires_ms=c.end_ms + 300_000,
        trace={},
    )


def indicators(i=0):
    c = candle(i)
    return TechnicalIndicators(
        symbol=c.symbol,
        interval_seconds=60,
        start_ms=c.start_ms,
        revision=0,
        end_ms=c.end_ms,
        close=105433.6,
        values={'rsi_14': 55.5, 'ema_200': None},
        warm_up=3,
        feature_set='v1',
        is_partial=False,
        available_ms=c.available_ms,
    )


def story(i=0, title='A fund buys bitcoin', url='https://news.example/1', assets=('BTC',), **more):
    at = START + i * 60_000
    return News(
        **{
            **dict(
                news_id=f'n{i}',
                title=title,
                body='',
                source='example',
                url=url,
                assets=list(assets),
                published_ms=at - 90_000,
                available_ms=at,
                text_hash='ab',
            ),
            **more,
        }
    )


def signal(i=0, score=0.5, scorer='head', assets=('BTC',), version='1'):
    at = START + i * 60_000
    label = 'positive' if score > 0 else 'negative' if score < 0 else 'neutral'
    return NewsSignal(
        news_id=f'n{i}',
        scorer=scorer,
        version=version,
        assets=list(assets),
        score=score,
        label=label,
        confidence=0.8,
        text_hash='ab',
        published_ms=at - 90_000,
        available_ms=at + 1000,
    )


class Feed:
    "What the bus would bring."

    def __init__(self):
        self.waiting = queue.Queue()

    def __iter__(self):
        return iter(self.waiting.get, None)

    def send(self, *structs, topic=None):
        names = {
            Candle: 'candles',
            FormingCandle: 'candles_forming',
            Prediction: 'predictions',
            TechnicalIndicators: 'technical_indicators',
            DeadLetter: 'dead_letters',
            ServiceEvent: 'service_events',
            News: 'news',
            NewsWatermark: 'news',
            NewsSignal: 'news_signals',
        }
        for struct in structs:
            self.waiting.put(
                (topic or names[type(struct)], struct if isinstance(struct, bytes) else encode(struct))
            )


class Group:
    def __init__(self, rows):
        self.rows = rows

    def history(self, equal, *, before_ms=None, since_ms=None, last=1000):
        found = [r for r in self.rows if all(getattr(r, k) == v for k, v in equal.items())]
        return [r for r in found if (since_ms or 0) <= r.start_ms < (before_ms or 10**13)][-last:]


class Store:
    "A feature store with candles in it."

    def __init__(self, *candles):
        self.groups = {'candles': Group(candles)}

    def get_feature_group(self, name, version):
        return self.groups.get(name)


class Api:
    def __init__(self, client, feed):
        self.client, self.feed, self.hub = client, feed, client.app.state.hub

    def get(self, path, code=200, **query):
        answer = self.client.get(path, params=query)
        assert answer.status_code == code, answer.text
        return answer.json()

    def send(self, *structs, topic=None):
        before = sum(self.hub.heard.values()) + sum(self.hub.undecodable.values())
        self.feed.send(*structs, topic=topic)
        until(
            lambda: sum(self.hub.heard.values()) + sum(self.hub.undecodable.values()) == before + len(structs)
        )

    def stream(self, query='', **options):
        return self.client.websocket_connect(f'/v1/stream{query}', **options)


def until(true, seconds=5):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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


def test_it_says_that_it_lives_and_when_it_is_ready(settings, tmp_path):
    feed = Feed()
    with TestClient(create_app(settings, feed), base_url=HERE) as client:
        assert client.get('/v1/health').json()['status'] == 'ok'
        late = client.get('/v1/ready')
        assert late.status_code == 503 and late.json() == {'detail': 'there is no feature store yet'}
        feed.waiting.put(None)


def test_ready_with_bus_and_store(api):
    assert api.get('/v1/ready') == {'status': 'ready'}


def test_candles_of_store_and_bus_are_one_list_with_the_highest_revision_of_each(api):
    api.send(
        candle(0), candle(-1, close='3', revision=1), candle(0, close='9', revision=1), candle(0, close='0')
    )
    body = api.get('/v1/candles', symbol='btc-usd')
    assert (body['symbol'], body['interval_seconds']) == ('BTC/USD', 60)
    assert [(c['start_ms'], c['close'], c['revision']) for c in body['candles']] == [
        (START - 120_000, '1', 0),
        (START - 60_000, '3', 1),
        (START, '9', 1),
    ]
    assert len(api.get('/v1/candles', symbol='BTC/USD', limit=1)['candles']) == 1
    assert [
        c['start_ms']
        for c in api.get('/v1/candles', symbol='BTC/USD', since=START - 60_000, until=START)['candles']
    ] == [START - 60_000]
    assert api.get('/v1/candles', symbol='BTC/USD', interval=300)['candles'] == []


def test_what_rest_returns_fits_the_contracts(api):
    api.send(
        candle(0), indicators(0), prediction(0), prediction(1, status='abstain'), prediction(0, 'ETH/USD')
    )
    for path, name, topic in (
        ('candles', 'candles', 'candles'),
        ('indicators', 'indicators', 'technical_indicators'),
        ('predictions', 'predictions', 'predictions'),
    ):
        rows = api.get(f'/v1/{path}', symbol='BTC/USD')[name]
        assert rows
        for row in rows:
            jsonschema.validate(row, schema(topic))
    assert [(p['symbol'], p['start_ms']) for p in api.get('/v1/predictions')['predictions']] == [
        ('BTC/USD', START),
        ('ETH/USD', START),
        ('BTC/USD', START + 60_000),
    ]
    assert [p['status'] for p in api.get('/v1/predictions/latest')['predictions']] == ['abstain', 'baseline']
    assert {m['symbol']: m['model_version'] for m in api.get('/v1/model')['models']} == {
        'BTC/USD': 'baseline-1',
        'ETH/USD': 'baseline-1',
    }


def test_status_counts_what_came_and_what_could_not_be_used(api):
    api.send(
        candle(0),
        forming(1),
        ServiceEvent(service='trades', kind='counts', at_ms=START, run_id='r', counts={'gaps': 2}),
        DeadLetter(id='trades/0/1', topic='trades', reason='cut', raw='', seen_ms=START),
    )
    api.send(b'{"type":"candle"', topic='candles')
    body = api.get('/v1/status')
    assert body['undecodable'] == {'candles': 1}
    assert body['dead_letters'] == {
        'count': 1,
        'last': {'topic': 'trades', 'reason': 'cut', 'seen_ms': START},
    }
    assert body['services']['trades']['counts'] == {'gaps': 2}
    assert body['clock_ms'] == START + 90_000 and body['messages']['candles'] == 1
    metrics = api.client.get('/metrics').text
    assert (
        'crypto_rt_api_messages_total{topic="candles"} 1.0' in metrics
        and 'crypto_rt_api_undecodable_total{topic="candles"} 1.0' in metrics
    )
    assert 'crypto_rt_api_request_seconds_bucket{' in metrics


@pytest.mark.parametrize(
    ('path', 'query', 'code', 'words'),
    [
        ('candles', {'symbol': 'BTC/UDS'}, 404, 'BTC/USD'),
        ('candles', {'symbol': 'nonsense'}, 422, 'symbol'),
        ('candles', {}, 422, 'symbol'),
        ('candles', {'symbol': 'BTC/USD', 'limit': 10**9}, 422, 'limit'),
        ('candles', {'symbol': 'BTC/USD', 'since': 1_762_795_380}, 422, 'since'),
        ('candles', {'symbol': 'BTC/USD', 'since': '5e22'}, 422, 'since'),
        ('candles', {'symbol': 'BTC/USD', 'since': START, 'until': START}, 422, 'before'),
        ('candles', {'symbol': 'BTC/USD', 'sinse': START}, 422, 'sinse'),
        ('predictions', {'symbol': 'DOGE/USD'}, 404, 'BTC/USD'),
        ('nothing', {}, 404, 'Not Found'),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(api, path, query, code, words):
    assert words in json.dumps(api.get(f'/v1/{path}', code, **query)['detail'])


def test_a_wrong_method_is_told_the_right_one(api):
    answer = api.client.post('/v1/candles')
    assert answer.status_code == 405 and answer.headers['allow'] == 'GET' and answer.json()['detail']


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
        api.client.portal.call(api.hub.beat)
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


def test_a_queue_is_bounded():
    async def scene():
        hub = Hub(load_settings('/dev/null', {}, api={'client_queue': 3}), 'live')
        client = Client(['BTC/USD'], ['candles'], 3)
        hub.join(client, None, None)
        hub.take([hear('candles', encode(candle(i))) for i in range(50)])
        return client

    client = asyncio.run(scene())
    assert client.too_slow.is_set() and len(client.waiting) == 4


def test_of_a_burst_of_forming_candles_only_the_last_is_sent():
    async def scene():
        hub = Hub(load_settings('/dev/null', {}), 'replay')
        hub.take([hear('candles_forming', encode(forming(0, close=str(n)))) for n in range(100, 200)])
        return hub

    hub = asyncio.run(scene())
    assert hub.seq == 2 and hub.recent.latest('candles_forming', 'BTC/USD').struct.close == '199'


def test_memory_is_bounded():
    recent = Recent(kept=10)
    for i in range(100):
        recent.add(hear('candles', encode(candle(i))))
    assert (
        len(recent.structs('candles', 'BTC/USD')) <= 20
        and recent.latest('candles', 'BTC/USD').struct.start_ms == START + 99 * 60_000
    )


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


def test_docs_describe_every_endpoint_and_load_nothing_from_outside(api):
    spec, page = api.get('/openapi.json'), api.client.get('/docs').text
    assert {
        '/v1/health',
        '/v1/ready',
        '/v1/symbols',
        '/v1/candles',
        '/v1/indicators',
        '/v1/predictions',
        '/v1/predictions/latest',
        '/v1/model',
        '/v1/status',
        '/v1/features',
        '/v1/news',
        '/v1/news/signal',
        '/metrics',
    } <= set(spec['paths'])
    assert (
        'Candle' in spec['components']['schemas']
        and all(path in page for path in spec['paths'])
        and '//' not in page.replace('<!doctype', '')
    )
    assert api.client.get('/asyncapi.yaml').text.startswith('asyncapi: 3')


def test_a_taken_port_is_passed_over():
    first = listening_socket('127.0.0.1', 0)
    first.listen()
    second = listening_socket('127.0.0.1', first.getsockname()[1])
    assert second.getsockname()[1] != first.getsockname()[1]
    first.close(), second.close()


def test_a_bus_that_fails_is_tried_again(settings, monkeypatch):
    import threading

    stop, tries, heard, failures = threading.Event(), [], [], []

    def batches(settings, stop):
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError('no broker')
        yield [('candles', encode(candle(0)))]
        yield []
        yield [('candles', encode(candle(1)))]
        stop.set()

    monkeypatch.setattr('apps.api.bus_batches', batches)
    read_bus(
        settings, stop, lambda batch, publish: heard.append((len(list(batch)), publish)), failures.append
    )
    assert failures == ['no broker'] and heard == [(1, False), (0, False), (1, True)], (
        'what lay there before is remembered, not sent'
    )


def test_who_comes_while_the_past_is_read_is_told_the_state_when_it_is_known():
    async def scene():
        hub = Hub(load_settings('/dev/null', {}), 'live')
        client = Client(['BTC/USD'], ['candles'], 8)
        hub.join(client, None, None)
        hub.take([hear('candles', encode(candle(0)))], publish=False)
        hub.take([])
        hub.take([])
        return [json.loads(text) for text in client.waiting]

    first, again = asyncio.run(scene())
    assert (
        first['data']['latest']['candles'] == {}
        and again['data']['latest']['candles']['BTC/USD']['start_ms'] == START
    )
    assert again['type'] == 'snapshot' and again['seq'] == first['seq'] + 1


def test_a_bus_that_is_back_is_no_longer_called_unreachable(api):
    api.hub.bus_error = api.hub.broker_error = 'no broker'
    api.send(candle(0))
    assert api.get('/v1/status')['bus'] == 'connected'


def test_the_same_complaint_is_logged_once_in_a_while():
    import logging

    seldom = Seldom(seconds=0.05)
    told = [
        logging.LogRecord('x', logging.WARNING, '', 1, 'broker: %s', (f'50 % of {n}',), None)
        for n in range(6)
    ]
    assert [seldom.filter(record) for record in told[:5]] == [True, False, False, False, False]
    time.sleep(0.06)
    assert seldom.filter(told[5]) and told[5].getMessage() == 'broker: 50 % of 5 (4 more like it since)'


def test_the_comparison_with_the_exchange_is_shown(api, settings):
    assert api.get('/v1/status')['reconciliation'] == {
        'compared': 0,
        'exact': 0,
        'explained': 0,
        'unexplained': 0,
        'at_ms': None,
        'error': '',
    }
    file = Path(settings.data.directory) / 'reconciliation.json'
    file.write_text(
        json.dumps(
            {
                'ok': False,
                'compared': 6,
                'exact': 2,
                'explained': 3,
                'unexplained': 1,
                'at_ms': START,
                'evidence': [],
            }
        )
    )
    assert api.get('/v1/status')['reconciliation'] == {
        'compared': 6,
        'exact': 2,
        'explained': 3,
        'unexplained': 1,
        'at_ms': START,
        'error': '',
    }
    assert 'crypto_rt_reconciled_windows{verdict="unexplained"} 1.0' in api.client.get('/metrics').text
    file.write_text('[')
    assert 'cannot be read' in api.get('/v1/status')['reconciliation']['error']


def test_features_are_described_beside_their_values(api):
    from crypto_rt.features.table import TABLE

    assert api.get('/v1/features')['symbols'] == {}
    api.send(
        *(
            replace(
                indicators(i),
                values={**dict.fromkeys(TABLE.names, 0.5), 'rsi_14': None if i == 0 else 50.0 + i},
            )
            for i in range(3)
        )
    )
    body = api.get('/v1/features', symbol='btc/usd')
    rows = {f['name']: f for f in body['features']}
    assert set(TABLE.names) < set(rows) and {'leader_log_return_1', 'news_sum_6h'} < set(rows)
    assert (rows['rsi_14']['low'], rows['rsi_14']['high'], rows['rsi_14']['inputs']) == (
        0,
        100,
        ['close'],
    ) and rows['log_return_1']['low'] is None
    told = body['symbols']['BTC/USD']
    assert told['values']['rsi_14'] == 52 and told['values']['news_sum_6h'] is None and told['rows'] == 3
    assert told['statistics']['rsi_14'] == {
        'count': 2,
        'nulls': 1,
        'mean': 51.5,
        'std': 0.5,
        'min': 51.0,
        'max': 52.0,
    }
    api.send(replace(indicators(2), values={**told['values'], 'rsi_14': 60.0}, revision=1))
    assert api.get('/v1/features')['symbols']['BTC/USD']['values']['rsi_14'] == 60
    assert 'crt-features' in api.client.get('/features').text


def test_news_come_with_what_each_scorer_says(api):
    api.send(
        story(0),
        signal(0),
        signal(0, -0.2, 'vader'),
        story(1, assets=['ETH'], url='javascript:alert(1)'),
        NewsWatermark(START + 60_000),
    )
    body = api.get('/v1/news')
    assert [s['news_id'] for s in body['news']] == ['n1', 'n0'] and body['through_ms'] == START + 60_000
    assert [(s['scorer'], s['score'], s['label']) for s in body['news'][1]['signals']] == [
        ('head', 0.5, 'positive'),
        ('vader', -0.2, 'negative'),
    ]
    assert body['news'][0]['url'] == '' and body['news'][1]['url'] == 'https://news.example/1'
    assert [s['news_id'] for s in api.get('/v1/news', symbol='BTC/USD')['news']] == ['n0']
    assert [s['news_id'] for s in api.get('/v1/news', since=START, until=START + 1)['news']] == ['n0']
    assert api.get('/v1/news', 422, limit=0) and api.get('/v1/news', 404, symbol='DOGE/USD')


def test_the_news_signal_fades_as_the_features_say(api):
    from crypto_rt.features.news_features import news_features

    api.send(
        story(0), signal(0, 0.5), signal(0, 0.5, version='0'), *(candle(i) for i in range(3)), candle(400)
    )
    points = api.get('/v1/news/signal', symbol='BTC/USD')['points']
    assert [p['value'] for p in points] == [
        news_features([signal(0, 0.5)], 'BTC', p['at_ms'])['news_sum_6h'] for p in points
    ] and points[-1]['value'] < 0.3
    assert points[0]['value'] is None, 'before: nobody was listening'
    assert {p['value'] for p in api.get('/v1/news/signal', symbol='BTC/USD', scorer='vader')['points']} == {
        None
    }


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


def test_memory_for_news_is_bounded():
    kept = Stories(kept=10)
    for i in range(100):
        kept.add(story(i))
        kept.add(signal(i))
        kept.add(signal(i + 1000))
    assert len(kept.stories) <= 20 and len(kept.signals) <= 21 and kept.newest(1)[0].news_id == 'n99'


def test_statistics_of_the_features_come_from_the_store(settings):
    from crypto_rt.features.table import TABLE
    from crypto_rt.store.embedded.store import open_embedded_store
    from crypto_rt.store.open import open_group, store_dir

    store, feed = open_embedded_store(store_dir(settings)), Feed()
    values = [{**dict.fromkeys(TABLE.names, 0.5), 'rsi_14': 50.0 + i} for i in range(3)]
    open_group(store, 'technical_indicators').insert(
        [replace(indicators(i), values=v, feature_set=TABLE.newest) for i, v in enumerate(values)]
    )
    with TestClient(create_app(settings, feed), base_url=HERE) as client:

        def stored():
            return next(
                f['stored'] for f in client.get('/v1/features').json()['features'] if f['name'] == 'rsi_14'
            )

        until(lambda: stored() is not None, 60)
        assert {name: stored()[name] for name in ('count', 'nulls', 'mean', 'min', 'max')} == {
            'count': 3,
            'nulls': 0,
            'mean': 51,
            'min': 50,
            'max': 52,
        }
        feed.waiting.put(None)
    store.close()
