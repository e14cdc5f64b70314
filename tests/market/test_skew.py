"""No wait of ours becomes the exchange's time, and no single measurement makes the clock leap."""

import asyncio
import logging

import httpx
import pytest

from crypto_rt.core.health import Health
from crypto_rt.core.settings import ExchangeSettings, load_settings
from crypto_rt.core.times import SteadyClock
from crypto_rt.market.exchange import ClockReading, Exchange, Frame
from crypto_rt.market.feed import Feed
from crypto_rt.market.kraken import rest
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.watermark_clock import WatermarkClock, skew_of
from crypto_rt.services import trades
from crypto_rt.services.trades import SkewMeter, drive

BEGAN = 1_762_776_000_000


@pytest.mark.parametrize(
    'answers', [['ok'], ['timeout', 'ok'], ['limit', 'ok'], ['429', 'ok'], ['held', 'ok']]
)
def test_waits_and_retries_are_no_skew(monkeypatch, answers):
    at, left = [BEGAN], [each for each in answers if each != 'held']

    def sleep(seconds):
        at[0] += round(seconds * 1000)

    def answer(request):
        at[0] += 100
        what = left.pop(0)
        if what == 'timeout':
            at[0] += 10_000
            raise httpx.ReadTimeout('slow')
        if what == 'limit':
            return httpx.Response(200, json={'error': ['EAPI:Rate limit exceeded']})
        if what == '429':
            return httpx.Response(429, headers={'Retry-After': '30'})
        return httpx.Response(200, json={'error': [], 'result': {'unixtime': at[0] // 1000}})

    monkeypatch.setattr(rest, 'now_ms', lambda: at[0])
    monkeypatch.setattr(rest.time, 'monotonic', lambda: at[0] / 1000)
    exchange = Kraken(load_settings(env={}), httpx.MockTransport(answer), sleep)
    if 'held' in answers:
        exchange.client.held_until = at[0] / 1000 + 60
    reading = exchange.read_clock()
    assert reading.answered_ms - reading.asked_ms == 100 and abs(skew_of(*reading)) <= 550
    assert at[0] - BEGAN > 100 or answers == ['ok']


class Outside(Exchange):
    "Knows its time only."

    def time_ms(self):
        return BEGAN


@pytest.mark.parametrize(('took_ms', 'skew_ms'), [(2000, 1500), (2001, None)])
def test_a_long_round_trip_measures_nothing(monkeypatch, took_ms, skew_ms):
    monkeypatch.setattr(trades, 'now_ms', lambda: BEGAN)

    async def go():
        source, feed = Outside(), Feed([], 'live')
        source.read_clock = lambda: ClockReading(BEGAN, BEGAN - 2000, BEGAN - 2000 + took_ms)
        meter = SkewMeter(source, Health(logging.getLogger('test')))
        meter.look(feed, BEGAN)
        await asyncio.wait([meter.task])
        meter.look(feed, BEGAN)
        assert meter.task is None and not meter.health.reasons()
        return feed.clock.skew_ms

    assert asyncio.run(go()) == skew_ms


def test_an_exchange_without_a_reading_of_its_own_has_one():
    reading = Outside().read_clock()
    assert reading.exchange_ms == BEGAN and reading.answered_ms - reading.asked_ms < 1000


def test_a_leap_is_believed_at_the_second_measurement():
    clock = WatermarkClock('live', ExchangeSettings(max_skew_ms=5000))
    told = [(0, 0), (15_000, 0), (0, 0), (15_000, 0), (30_000, 0), (30_900, 30_900), (31_000, 30_900)]
    for says, expected in told:
        clock.see_rest_time(says)
        assert clock.skew_ms == expected, says


def test_acknowledgements_that_came_together_are_one_measurement():
    clock = WatermarkClock('live', ExchangeSettings(max_skew_ms=5000))
    clock.see_ack(BEGAN, BEGAN)
    for late in (20_000, 20_000, 20_010, 20_500):
        clock.see_ack(BEGAN + late - 20_000, BEGAN + late)
        assert clock.skew_ms == 0
    clock.see_ack(BEGAN + 1100, BEGAN + 21_100)
    assert clock.skew_ms == -20_000


@pytest.mark.parametrize('leapt_ms', [0, 3_600_000, -3_600_000])
def test_a_skew_is_measured_against_the_steady_clock(monkeypatch, leapt_ms):
    "The reading is by this machine's clock, which somebody has set; the feed goes by the steady one."
    monkeypatch.setattr(trades, 'now_ms', lambda: BEGAN + leapt_ms)

    async def go():
        source, feed = Outside(), Feed([], 'live')
        source.read_clock = lambda: ClockReading(BEGAN, BEGAN + leapt_ms - 100, BEGAN + leapt_ms + 100)
        meter = SkewMeter(source)
        meter.look(feed, BEGAN)
        await asyncio.wait([meter.task])
        meter.look(feed, BEGAN)
        return feed.clock.skew_ms

    assert asyncio.run(go()) == 500


class Setting(Outside):
    "Sends heartbeats, and sets the clock of this machine in between."

    def __init__(self, leaps):
        self.leaps = leaps

    async def stream(self, symbols):
        yield [Frame('connected')]
        for ms in self.leaps:
            self.wall_ms += ms
            yield [Frame('heartbeat')]

    wall_ms = BEGAN


def test_the_service_goes_by_a_clock_that_does_not_leap(monkeypatch):
    exchange, passed, moments = Setting([0, 3_600_000, -7_200_000, 0]), [0], []
    monkeypatch.setattr(trades, 'now_ms', lambda: exchange.wall_ms)
    monkeypatch.setattr(
        trades, 'SteadyClock', lambda: SteadyClock(lambda: exchange.wall_ms, lambda: passed[0])
    )

    def record(frames, here_ms):
        moments.append(here_ms)
        passed[0] += 1000

    asyncio.run(drive(load_settings(env={}), Feed([], 'live'), exchange, lambda out: None, record=record))
    assert moments == [BEGAN + 1000 * n for n in range(5)]
