"""No answer of the exchange ends anything: each kind of it, those never seen before included."""

import asyncio
import itertools
import json
import logging
import time

import httpx
import pytest
from websockets.asyncio.server import serve

from crypto_rt.core.health import Health
from crypto_rt.core.messages import Trades, decode
from crypto_rt.core.settings import load_settings
from crypto_rt.core.times import now_ms
from crypto_rt.market.exchange import trade_pages
from crypto_rt.market.exchange_health import exchange_clock
from crypto_rt.market.feed import Feed
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.services.reconcile import reconcile_once
from crypto_rt.services.trades import drive
from tests.market.builders import answer_text, trade_text

HTML = '<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>'
ERRORS = [
    'EAPI:Rate limit exceeded',
    'EService: Throttled: [1762795433]',
    'EService:Unavailable',
    'EService:Busy',
    'EGeneral:Internal error',
    'EGeneral:Temporary lockout',
    'EGeneral:Too many requests',
    'EDatabase:Internal error',
    'EGeneral:Something new',
    'EMoon:Full',
    'no category at all',
    '',
]
BODIES = [
    '',
    'null',
    '[]',
    '7',
    '"x"',
    '{}',
    '{"error":[]}',
    '{"error":null}',
    '{"error":[],"result":null}',
    '{"error":[],"result":[]}',
    '{"error":[],"result":{}}',
    '{"error":[],"result":{"last":"1"}}',
    '{"error":[],"result":{"XXBTZUSD":{},"last":"1"}}',
    '{"error":[],"result":{"XXBTZUSD":[],"last":null}}',
    '{"error":[],"result":{"XXBTZUSD":[],"last":"soon"}}',
    '{"error":[],"result":{"XXBTZUSD":[[]],"last":"1"}}',
    '{"error":[],"result":{"XXBTZUSD":[["1","2"]],"last":"1"}}',
    '{"error":7,"result":{}}',
    '{"error":[{"a":1}],"result":{}}',
    '{"error":[],"result":{"XXBTZUSD":[["1","2",1762795433.5,"b","l","",1]]',
    HTML,
    '[' * 5000,
]
STATUSES = [300, 301, 302, 307, 401, 402, 403, 404, 408, 409, 418, 421, 425, 429, 451]
STATUSES += [500, 501, 502, 503, 504, 520, 521, 522, 524, 530, 599]
FAULTS = [
    httpx.ConnectError('[Errno -2] Name or service not known'),
    httpx.ConnectError('[SSL: CERTIFICATE_VERIFY_FAILED]'),
    httpx.ConnectTimeout('slow'),
    httpx.ReadTimeout('slow'),
    httpx.RemoteProtocolError('Server disconnected without sending a response.'),
    httpx.DecodingError('Error -3 while decompressing data'),
    httpx.TooManyRedirects('round and round'),
    httpx.ProxyError('502'),
    ConnectionResetError('reset'),
    ValueError('something that no library raises today'),
]


def replies():
    for text in ERRORS:
        yield pytest.param(httpx.Response(200, json={'error': [text]}), id=f'error {text}')
    for number, body in enumerate(BODIES):
        yield pytest.param(httpx.Response(200, text=body), id=f'body {number} {body[:20]}')
    yield pytest.param(httpx.Response(200, content=b'\xff\xfe\x00'), id='binary')
    for status in STATUSES:
        yield pytest.param(httpx.Response(status, text=HTML), id=str(status))
    yield pytest.param(
        httpx.Response(429, headers={'Retry-After': 'Mon, 10 Nov 2025 17:23:53 GMT'}), id='date'
    )
    yield pytest.param(httpx.Response(503, headers={'Retry-After': '-1, soon'}), id='nonsense')
    for fault in FAULTS:
        yield pytest.param(fault, id=type(fault).__name__ + ' ' + str(fault)[:12])


def page(*ids):
    rows = ','.join(f'["1.5","2",1762795433.{n:07},"b","l","",{n}]' for n in ids)
    return httpx.Response(
        200, text=f'{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":"1762795434000000000"}}}}'
    )


def kraken(answers, **exchange):
    "Kraken with these answers, the last one for good, and the waits before each."
    left, waits = list(answers), []

    def answer(request):
        one = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(one, Exception):
            raise one
        if callable(one):
            return one(request)
        return httpx.Response(one.status_code, headers=one.headers, content=one.content)

    urls = dict(rest_url='http://127.0.0.1:9/0')
    return Kraken(
        load_settings(env={}, exchange=urls | exchange), httpx.MockTransport(answer), waits.append
    ), waits


@pytest.mark.parametrize('reply', replies())
def test_every_answer_may_pass(reply):
    client, waits = kraken([reply, reply, page(7)])
    if isinstance(reply, httpx.Response) and reply.text == BODIES[10]:
        pytest.skip('an empty result is the answer of a call without rows')
    assert [trade.trade_id for trade in client.trade_page('BTC/USD', '0').trades] == [7]
    assert len(waits) == 2 and all(0.4 < wait <= 60 for wait in waits)


@pytest.mark.parametrize('reply', replies())
def test_what_does_not_pass_is_one_kind_of_error_for_every_call(reply, tmp_path):
    for call in (
        lambda client: client.trade_page('BTC/USD', '0'),
        lambda client: client.candles('BTC/USD', 60),
        lambda client: client.symbols(),
        lambda client: client.status(),
        lambda client: client.time_ms(),
    ):
        client, waits = kraken([reply])
        with pytest.raises(ConnectionError, match=r'failed \d times, lastly with'):
            call(client)
        assert len(waits) in (1, 5)
    assert kraken([reply])[0].is_there(1.0) is False


@pytest.mark.parametrize('text', ['EGeneral:Invalid arguments', 'EQuery:Invalid asset', 'EAPI:Bad request'])
def test_what_stays_wrong_is_not_asked_again_at_once(text):
    client, waits = kraken([httpx.Response(200, json={'error': [text]})])
    with pytest.raises(ConnectionError, match=text):
        client.trade_page('BTC/USD', '0')
    assert waits == []


def test_a_bad_row_among_good_ones_is_set_aside_alone():
    body = page(1, 2, 3).text.replace('["1.5","2",1762795433.0000002', '[{"a":1},"2",1762795433.0000002')
    found = kraken([httpx.Response(200, text=body)])[0].trade_page('BTC/USD', '0')
    assert [trade.trade_id for trade in found.trades] == [1, 3] and found.is_last
    assert [(bad.symbol, bad.trade_id) for bad in found.bad] == [('BTC/USD', 2)]


def rows_of(count, last):
    rows = ','.join(f'["1.5","2",1762795433.5,"b","l","",{n}]' for n in range(count))
    return httpx.Response(200, text=f'{{"error":[],"result":{{"X":[{rows}],"last":"{last}"}}}}')


@pytest.mark.parametrize('count', [100, 500, 1000])
@pytest.mark.parametrize('last', ['5', '4'])
def test_a_page_whose_cursor_stands_still_is_asked_for_again(count, last):
    client, waits = kraken([rows_of(count, last), rows_of(count, '6')])
    found = client.trade_page('BTC/USD', '5')
    assert (len(found.trades), found.cursor, found.is_last) == (count, '6', False) and len(waits) == 1
    with pytest.raises(ConnectionError, match='expected a cursor behind 5'):
        kraken([rows_of(count, last)])[0].trade_page('BTC/USD', '5')


def test_a_small_page_is_the_last_one_wherever_its_cursor_is():
    assert all(kraken([rows_of(99, last)])[0].trade_page('BTC/USD', '5').is_last for last in ('4', '5', '6'))


@pytest.mark.parametrize('most', [100, 500, 1000])
def test_smaller_pages_than_asked_for_lose_no_trade(most):
    began = 1762776000
    rows = [['100', '0.1', began + n / 10, 'b', 'l', '', n] for n in range(3000)]

    def answer(request):
        since = int(request.url.params['since'])
        page = [row for row in rows if round(row[2] * 1e9) > since][:most]
        last = str(round(page[-1][2] * 1e9)) if page else str(since)
        return httpx.Response(200, json={'error': [], 'result': {'X': page, 'last': last}})

    client = Kraken(load_settings(env={}), httpx.MockTransport(answer), lambda seconds: None)
    pages = list(trade_pages(client, 'BTC/USD', began * 1000))
    assert [trade.trade_id for page in pages for trade in page.trades] == list(range(3000))
    assert len(pages) == 3000 // most + 1 and [page.is_last for page in pages].count(True) == 1


def test_too_much_of_one_pair_holds_all_others():
    slow = httpx.Response(200, json={'error': [f'EService: Throttled: [{int(time.time()) + 20}]']})
    client, waits = kraken([slow, page(1)])
    client.trade_page('BTC/USD', '0')
    assert 19 < waits[0] < 22
    client.trade_page('ETH/USD', '0')
    assert 19 < waits[1] < 22, 'another pair waits as long'


def test_hundreds_of_pairs_share_the_pace_of_one_address():
    client, waits = kraken([page(1)], rest_url='https://exchange.example/0', rest_calls_per_second=10)
    began = time.monotonic()
    for number in range(100):
        client.trade_page(f'A{number}/USD', '0')
    due = waits[-1] + time.monotonic() - began  # no time passes in the waits, but a little in the calls
    assert 80 < len(waits) <= 95 and 9.4 < due < 9.7


@pytest.mark.parametrize('reply', [*replies()][::7])
def test_a_start_without_a_clock_uses_ours(reply):
    health = Health(logging.getLogger('test'))
    assert abs(exchange_clock(kraken([reply])[0], health) - now_ms()) < 5000
    assert len(health.reasons()) == 1


@pytest.mark.parametrize('reply', [*replies()][::7])
def test_a_comparison_goes_on_without_answers(reply, tmp_path):
    settings = load_settings(env={}, data={'directory': str(tmp_path), 'symbols': 'BTC/USD,ETH/USD'})
    health = Health(logging.getLogger('test'))
    result = reconcile_once(settings, kraken([reply])[0], health)
    assert not result['ok'] and 'ETH/USD: candles of the exchange' in result['error']
    assert len(health.reasons()) == 3


@pytest.mark.parametrize('reply', [*replies()][::6])
def test_the_service_goes_on_while_rest_answers_nothing_of_use(reply):
    "A hole that only REST can fill stays open; the trades behind it flow, and the state is degraded."
    health, sent = Health(logging.getLogger('test')), []

    async def server(socket):
        message = json.loads(await socket.recv())
        await socket.send(answer_text(message, 'BTC/USD'))
        for number in itertools.count(103):
            await socket.send(trade_text('BTC/USD', number, ord_type='never seen', qty=number % 2))
            await asyncio.sleep(0.02)

    async def go():
        async with serve(server, '127.0.0.1', 0) as listening:
            url = f'ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v2'
            client, _ = kraken([reply], websocket_url=url)
            feed = Feed([SymbolState('BTC/USD', TradeSequence(100, cursor_ms=now_ms() - 60_000))], 'live')
            task = asyncio.create_task(drive(client.settings, feed, client, sent.extend, health=health))
            async with asyncio.timeout(20):
                while len(health.reasons()) < 2 or len(sent) < 20:
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0.02)
            task.cancel()
            return feed

    feed = asyncio.run(go())
    trades = [
        t for out in sent if out.topic == 'trades' for t in getattr(decode('trades', out.value), 'trades', [])
    ]
    assert isinstance(decode('trades', sent[0].value), Trades)
    assert {'never seen'} == {t.order_type for t in trades} and {'0', '1'} == {t.quantity for t in trades}
    assert feed.counts['zero_quantity'] > 3 and feed.counts['dead_letters'] == 0
    assert [reason.split(':')[0] for reason in health.reasons()] == ['BTC/USD', "the exchange's clock"]


def test_only_a_healthy_list_makes_a_refusal_the_operators_mistake():
    unknown = httpx.Response(200, json={'error': ['EQuery:Unknown asset pair']})

    def listing(reply):
        return lambda request: reply if 'AssetPairs' in str(request.url) else unknown

    for reply in (httpx.Response(502, text=HTML), httpx.Response(200, json={'error': [], 'result': {}})):
        with pytest.raises(ConnectionError):
            kraken([listing(reply)])[0].trade_page('BTC/UDS', '0')
    pairs = httpx.Response(200, json={'error': [], 'result': {'XXBTZUSD': {'wsname': 'XBT/USD'}}})
    with pytest.raises(ValueError, match='does not list BTC/UDS; the nearest are BTC/USD'):
        kraken([listing(pairs)])[0].trade_page('BTC/UDS', '0')
    with pytest.raises(ConnectionError, match='Unknown asset pair'):
        kraken([listing(pairs)])[0].trade_page('BTC/USD', '0')
