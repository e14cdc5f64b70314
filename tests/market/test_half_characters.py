"""Half a character in an answer, a frame nested without end, a number of thousands of digits: nothing of it ends anything."""

import asyncio
import json
import logging

import httpx
import msgspec
import pytest

from crypto_rt.core.health import Health
from crypto_rt.core.messages import ServiceEvent, Subscription, dead_letter, decode, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.core.times import now_ms
from crypto_rt.market.exchange import Frame
from crypto_rt.market.exchange_health import muted, with_silence
from crypto_rt.market.feed import Feed
from crypto_rt.market.feed_output import FeedOutput
from crypto_rt.market.kraken.answers import ExchangeError
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.kraken.frames import parse_rest_trades
from crypto_rt.market.kraken.stream import read
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.services import trades as service

HALF = '\ud800'


class Briefly(Kraken):
    "Its stream brings heartbeats for two seconds; REST is what the test makes of it."

    async def stream(self, symbols):
        yield [Frame('connected'), Frame('ack', symbol='ETH/USD', channel='trade', exchange_ms=now_ms())]
        for _ in range(40):
            await asyncio.sleep(0.05)
            yield [Frame('heartbeat')]


class Sent:
    "A producer that keeps what it is given."

    def __init__(self):
        self.client, self.kept = self, []

    def poll(self, seconds):
        pass

    def send(self, topic, key, value):
        key.encode()
        self.kept.append((topic, value))


@pytest.mark.parametrize(
    'answer',
    [
        {'error': [f'EGeneral:{HALF}']},
        {
            'error': [],
            'result': {
                'X': [HALF, ['100.5', '0.1', now_ms() / 1000 - 30, 'b', 'l', '', 7]],
                'last': '1',
            },
        },
        {'error': [], 'result': {HALF: [], '\ud801': [], 'last': '1'}},
    ],
)
def test_half_a_character_in_an_answer_does_not_end_the_service(monkeypatch, answer):
    monkeypatch.setattr(service, 'COUNTS_EVERY_MS', 300)
    body, producer, health = json.dumps(answer).encode(), Sent(), Health(logging.getLogger('test'))
    settings = load_settings(env={})
    exchange = Briefly(settings, httpx.MockTransport(lambda _: httpx.Response(200, content=body)), no_wait)
    feed = Feed([SymbolState('ETH/USD', since_ms=now_ms() - 60_000, fetch_first=True)])
    sender = service.Sender(producer, feed, 'r', exchange, health)
    asyncio.run(service.drive(settings, feed, exchange, sender, health=health))
    told = [decode('service_events', value) for topic, value in producer.kept if topic == 'service_events']
    lines = [line for event in told for line in event.degraded]
    assert any('?' in line for line in lines) or 'dead_letters' in [topic for topic, _ in producer.kept]


def no_wait(seconds):
    "Wait for nothing."


def test_what_is_said_of_a_fault_can_be_sent():
    health, feed = Health(logging.getLogger('test')), Feed([SymbolState('ETH/USD')])
    health.fails(f'a clock {HALF}', f'was {HALF}')
    outside = [Subscription('ETH/USD', 'trade', 'refused', now_ms(), f'EGeneral:{HALF}')]
    subscribed = with_silence(outside, feed)
    event = ServiceEvent(
        service='trades',
        kind='counts',
        at_ms=now_ms(),
        degraded=health.reasons() + muted(subscribed),
        subscriptions=subscribed,
    )
    assert decode('service_events', encode(event)).subscriptions[0].why == 'EGeneral:?'
    with pytest.raises(UnicodeEncodeError):
        encode(msgspec.structs.replace(event, subscriptions=outside))


def test_a_dead_letter_can_be_sent_whatever_it_quotes():
    letter = dead_letter('trades', b'raw', f'was {HALF}', f'x/{HALF}', key=f'{HALF}/USD')
    assert decode('dead_letters', encode(letter)).reason == 'was ?'
    out = FeedOutput('live').dead_letter(f'{HALF}/USD', b'raw', f'was {HALF}')
    assert out.key.encode() == b'?/USD'


@pytest.mark.parametrize(
    'raw',
    [
        b'{"channel":"trade","data":[{"symbol":' + b'[' * 100_000,
        b'{"channel":"trade","type":"update","data":[{"symbol":' + b'[' * 100_000 + b']' * 100_000 + b'}]}',
        b'{"method":"subscribe","error":' + b'[' * 990 + b']' * 990 + b'}',
        b'{"channel":"status","data":[{"system":' + b'[' * 985 + b']' * 985 + b'}]}',
    ],
)
def test_a_frame_nested_without_end_is_a_bad_frame(raw):
    assert read(raw).kind == 'bad'


@pytest.mark.parametrize('last', ['"' + '9' * 4000 + '"', '9' * 4000, '"\u0661"', '""', '-1', '"1.5"', '[]'])
def test_a_cursor_that_is_no_instant_is_a_malformed_reply(last):
    body = f'{{"error":[],"result":{{"X":[["1","2",1762795433.5,"b","l","",7]],"last":{last}}}}}'.encode()
    with pytest.raises(ExchangeError, match='expected nanoseconds as last'):
        parse_rest_trades(body)
