"""What the API remembers, and what it sends: without a server."""

import asyncio
import json

from apps.client import Client
from apps.hub import Hub
from apps.recent import RecentGaps, RecentMessages, RecentNews, decode_message
from crypto_rt.core.messages import Gap, encode
from crypto_rt.core.settings import load_settings
from tests.apps.builders import START, candle, forming, signal, story


def test_a_queue_is_bounded():
    async def scene():
        hub = Hub(load_settings('/dev/null', {}, api={'client_queue': 3}), 'live')
        client = Client(['BTC/USD'], ['candles'], 3)
        hub.join(client, None, None)
        hub.receive([decode_message('candles', encode(candle(i))) for i in range(50)])
        return client

    client = asyncio.run(scene())
    assert client.too_slow.is_set() and len(client.waiting) == 4


def test_of_a_burst_of_forming_candles_only_the_last_is_sent():
    async def scene():
        hub = Hub(load_settings('/dev/null', {}), 'replay')
        hub.receive(
            [decode_message('candles_forming', encode(forming(0, close=str(n)))) for n in range(100, 200)]
        )
        return hub

    hub = asyncio.run(scene())
    assert hub.seq == 2 and hub.recent.latest('candles_forming', 'BTC/USD').struct.close == '199'


def test_memory_is_bounded():
    recent = RecentMessages(limit=10)
    for i in range(100):
        recent.add(decode_message('candles', encode(candle(i))))
    assert (
        len(recent.structs('candles', 'BTC/USD')) <= 20
        and recent.latest('candles', 'BTC/USD').struct.start_ms == START + 99 * 60_000
    )


def test_memory_for_news_is_bounded():
    news = RecentNews(limit=10)
    for i in range(100):
        news.add(story(i))
        news.add(signal(i))
        news.add(signal(i + 1000))
    assert len(news.stories) <= 20 and len(news.signals) <= 21 and news.newest()[0].news_id == 'n99'


def gap(i, state='open', revision=0):
    return Gap(
        symbol='BTC/USD',
        first_missing=i,
        last_missing=i,
        opened_ms=START,
        updated_ms=START + i,
        state=state,
        found=0,
        revision=revision,
        epoch=0,
    )


def test_of_a_gap_the_latest_revision_is_kept():
    gaps = RecentGaps()
    for row in (gap(1), gap(1, 'filled', revision=1), gap(1), gap(2)):
        gaps.add(row)
    assert gaps.counts() == {'open': 1, 'filled': 1, 'exchange_holes': 0, 'timed_out': 0}


def test_memory_for_gaps_is_bounded():
    gaps = RecentGaps(limit=10)
    for i in range(100):
        gaps.add(gap(i))
    assert len(gaps.rows) <= 20 and max(row.first_missing for row in gaps.rows.values()) == 99


def test_who_comes_while_the_past_is_read_is_told_the_state_when_it_is_known():
    async def scene():
        hub = Hub(load_settings('/dev/null', {}), 'live')
        client = Client(['BTC/USD'], ['candles'], 8)
        hub.join(client, None, None)
        hub.receive([decode_message('candles', encode(candle(0)))], publish=False)
        hub.receive([])
        hub.receive([])
        return [json.loads(text) for text in client.waiting]

    first, again = asyncio.run(scene())
    assert (
        first['data']['latest']['candles'] == {}
        and again['data']['latest']['candles']['BTC/USD']['start_ms'] == START
    )
    assert again['type'] == 'snapshot' and again['seq'] == first['seq'] + 1


def test_a_bug_costs_the_message_that_meets_it_and_not_those_behind_it(monkeypatch):
    kept = RecentMessages.add

    def add(self, message):
        return {}[7] if message.struct.start_ms == candle(1).start_ms else kept(self, message)

    async def scene():
        hub = Hub(load_settings('/dev/null', {}), 'replay')
        hub.receive([decode_message('candles', encode(candle(i))) for i in range(3)])
        return hub

    monkeypatch.setattr(RecentMessages, 'add', add)
    hub = asyncio.run(scene())
    assert [c.start_ms for c in hub.recent.structs('candles', 'BTC/USD')] == [
        candle(0).start_ms,
        candle(2).start_ms,
    ]
    assert hub.undecodable == {'candles': 1}
