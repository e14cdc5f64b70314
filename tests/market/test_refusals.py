"""Only a refusal that says so, and two lists half a minute apart, make a symbol one that there is not."""

import asyncio

import pytest

from crypto_rt.market.exchange import Frame
from crypto_rt.market.exchange_health import LISTS_APART_MS, RefusalCheck
from crypto_rt.market.feed import Feed
from crypto_rt.market.kraken.frames import read_frame
from crypto_rt.market.symbol_state import SymbolState


class Lists:
    url = 'https://example'

    def __init__(self, *lists):
        self.lists = [*lists]

    def symbols(self):
        return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]


def nack(text):
    raw = f'{{"method":"subscribe","success":false,"error":"{text}","symbol":"ETH/USD"}}'
    return read_frame(raw.encode())._replace(channel='trade')


async def looks(exchange, frame, apart_ms=LISTS_APART_MS):
    at, feed = [0], Feed([SymbolState('ETH/USD')], 'live')
    check = RefusalCheck(exchange, clock=lambda: at[0])
    feed.take([Frame('connected'), frame], 1_762_795_434_000)
    for _ in range(3):
        check.look(feed)
        if check.task:
            await asyncio.wait([check.task])
        check.look(feed)
        at[0] += apart_ms
    return check


@pytest.mark.parametrize(
    'text', ['EService:Throttled', 'EAPI:Rate limit exceeded', 'EService:Unavailable', 'new']
)
def test_a_refusal_that_may_pass_suspects_nobody(text):
    assert not asyncio.run(looks(Lists(['BTC/USD']), nack(text))).suspects


def test_one_list_that_was_cut_short_proves_nothing():
    unknown = nack('Currency pair not supported ETH/USD')
    assert not asyncio.run(looks(Lists(['BTC/USD'], ['BTC/USD', 'ETH/USD']), unknown)).suspects
    asyncio.run(looks(Lists(['BTC/USD']), unknown, apart_ms=1000))
    asyncio.run(looks(Lists([]), unknown))
    with pytest.raises(ValueError, match='does not list ETH/USD'):
        asyncio.run(looks(Lists(['BTC/USD']), unknown))
