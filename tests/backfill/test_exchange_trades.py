"""An exchange's trades, page by page: broken off or killed anywhere, the result is that of a run in peace."""

import asyncio
import signal
import sys

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.backfill import exchange as backfill
from crypto_rt.backfill.exchange import backfill_trades
from crypto_rt.core.settings import load_settings
from crypto_rt.core.times import now_ms
from crypto_rt.market.exchange import TradePage
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.sandbox.exchange import SandboxExchange
from crypto_rt.sandbox.random_market import Simulation
from crypto_rt.sandbox.server import serving
from crypto_rt.store.conform import canonical_digest
from crypto_rt.store.open import candle_history, open_feature_store
from tests.backfill.builders import NOON, stored, trades_between
from tests.repeat import many


class Market:
    "Pages of trades, as Kraken serves them; it can break down after some calls."

    def __init__(self, trades, now_ms, calls=10**9, page=1000):
        self.all, self.now_ms, self.calls, self.asked, self.page = trades, now_ms, calls, [], page

    def time_ms(self):
        return self.now_ms

    first_cursor = Kraken.first_cursor

    def trade_page(self, symbol, cursor):
        assert isinstance(cursor, str) and cursor.isdigit()
        self.asked.append(cursor)
        self.calls -= 1
        if self.calls < 0:
            raise ConnectionError('gone')
        rows = [t for t in self.all if t.event_ms * 10**6 > int(cursor)][: self.page]
        after = str(rows[-1].event_ms * 10**6) if rows else cursor
        return TradePage(rows, after, len(rows) < 1000 or after == cursor)


HOUR = 3_600_000


@hypothesis_settings(
    max_examples=many(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    breaks=st.lists(st.integers(1, 9), max_size=4),
    since=st.integers(0, 90),
    until=st.integers(200, 500),
    every=st.integers(1, 3),
)
def test_broken_off_anywhere_the_result_is_the_same(tmp_path_factory, breaks, since, until, every):
    trades = trades_between(0, 6000, 5_000, silent=range(1000, 1900))
    span = dict(
        symbols=['BTC/USD'], since_ms=NOON + since * 60_000, until_ms=NOON + until * 60_000, progress=False
    )
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backfill, 'EVERY_PAGES', every)
        for broken in ([], breaks):
            here = load_settings(
                '/dev/null', env={}, data=dict(directory=str(tmp_path_factory.mktemp('b')), symbols='BTC/USD')
            )
            for calls in broken:
                try:
                    backfill_trades(here, Market(trades, NOON + 9 * HOUR, calls), **span)
                except ConnectionError:
                    continue
            backfill_trades(here, Market(trades, NOON + 9 * HOUR), **span)
            again = backfill_trades(here, market := Market(trades, NOON + 9 * HOUR), **span)
            assert again == {'BTC/USD': {'trades': 0, 'candles': 0, 'indicators': 0}} and not market.asked
            results.append(
                [
                    canonical_digest(stored(here, n), ('ingest_ms', 'available_ms'))
                    for n in ('trades', 'candles', 'technical_indicators')
                ]
            )
    assert results[0] == results[1]
    candles = stored(here, 'candles')
    inside = [t for t in trades if span['since_ms'] <= t.event_ms < span['until_ms']]
    assert not candles.is_partial.any()
    for seconds in (60, 300, 900, 3600):
        first, last = (
            max(-(-span['since_ms'] // (seconds * 1000)), inside[0].event_ms // (seconds * 1000)),
            span['until_ms'] // (seconds * 1000),
        )
        assert candles[candles.interval_seconds == seconds].start_ms.tolist() == [
            n * seconds * 1000 for n in range(first, last)
        ]
    assert stored(here, 'trades').trade_id.tolist() == [t.trade_id for t in inside]


def test_a_later_until_goes_on_and_an_earlier_since_begins_anew(settings):
    trades = trades_between(0, 3000, 5_000)
    market = Market(trades, NOON + 9 * HOUR)
    span = dict(symbols=['BTC/USD'], progress=False)
    first = backfill_trades(
        settings, market, since_ms=NOON + HOUR, until_ms=NOON + 2 * HOUR + 600_000, **span
    )
    more = backfill_trades(settings, market, since_ms=NOON + HOUR, until_ms=NOON + 3 * HOUR, **span)
    assert (
        first['BTC/USD']['candles'] == 70 + 14 + 4 + 1 and more['BTC/USD']['candles'] == 50 + 10 + 4 - 0 + 1
    )
    assert int(market.asked[-1]) >= (NOON + 2 * HOUR) * 10**6 - 1
    backfill_trades(settings, market, since_ms=NOON, until_ms=NOON + 3 * HOUR, **span)
    past = candle_history(open_feature_store(settings), 'BTC/USD', 60)
    assert (
        len(past) == 180
        and not any(c.is_partial for c in past)
        and past[60].first_trade_id == past[59].last_trade_id + 1
    )


def test_a_hole_of_the_exchange_is_partial_and_no_trade_at_all_is_nothing(settings):
    trades = [t for t in trades_between(0, 2000, 5_000) if not 5500 <= t.trade_id < 5510]
    backfill_trades(
        settings,
        Market(trades, NOON + 9 * HOUR),
        symbols=['BTC/USD'],
        since_ms=NOON,
        until_ms=NOON + 2 * HOUR,
        progress=False,
    )
    past = candle_history(open_feature_store(settings), 'BTC/USD', 60)
    assert {(c.start_ms - NOON) // 60_000 for c in past if c.is_partial} <= {41, 42} and sum(
        c.is_partial for c in past
    ) == 2
    done = backfill_trades(
        settings,
        Market([], NOON + 9 * HOUR),
        symbols=['ETH/USD'],
        since_ms=NOON,
        until_ms=None,
        progress=False,
    )
    assert done == {'ETH/USD': {'trades': 0, 'candles': 0, 'indicators': 0}}
    market = Market(trades_between(0, 100, 5_000), NOON + 9 * HOUR)
    assert backfill_trades(
        settings,
        market,
        symbols=['XRP/USD'],
        since_ms=0,
        until_ms=NOON + 400_000,
        intervals=[60],
        progress=False,
    )['XRP/USD'] == {'trades': 80, 'candles': 6, 'indicators': 6}
    assert market.asked[0] == '0', 'from the first trade on'


CHILD = """
import sys
from crypto_rt.backfill import exchange as backfill
from crypto_rt.market.exchanges import open_exchange
from crypto_rt.core.settings import load_settings
directory, url, since, until = sys.argv[1:]
backfill.EVERY_PAGES = 1
settings = load_settings('/dev/null', env={}, data=dict(directory=directory, symbols='BTC/USD'), exchange=dict(rest_url=url))
print('go', flush=True)
print(backfill.backfill_trades(settings, open_exchange(settings), ['BTC/USD'], int(since), int(until), progress=False), flush=True)
"""


def test_killed_and_run_again_it_equals_a_run_in_peace(tmp_path):
    async def runs():
        until = now_ms() // HOUR * HOUR - 24 * HOUR
        since = until - 6 * HOUR
        async with serving(SandboxExchange(Simulation(7), 1.0)) as (_, url):

            async def child(directory, kill_after=None):
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    '-c',
                    CHILD,
                    str(tmp_path / directory),
                    url,
                    str(since),
                    str(until),
                    stdout=asyncio.subprocess.PIPE,
                )
                await process.stdout.readline()
                if kill_after is not None:
                    note = tmp_path / directory / 'backfill/BTC-USD.json'
                    seen = note.read_bytes() if note.is_file() else b''
                    async with asyncio.timeout(60):
                        while (
                            process.returncode is None
                            and (note.read_bytes() if note.is_file() else b'') == seen
                        ):
                            await asyncio.sleep(0.01)
                    await asyncio.sleep(kill_after)
                    if process.returncode is None:
                        process.kill()
                return await process.wait()

            killed = [await child('killed', 0.05 * n) for n in range(3)]
            assert -signal.SIGKILL in killed, killed
            assert await child('killed') == 0 and await child('peace') == 0
            fresh = load_settings(
                '/dev/null',
                env={},
                data=dict(directory=str(tmp_path / 'peace'), symbols='BTC/USD'),
                exchange=dict(rest_url=url),
            )
            return since, until, fresh

    since, until, peace = asyncio.run(asyncio.wait_for(runs(), 150))
    killed = msgspec.structs.replace(
        peace, data=msgspec.structs.replace(peace.data, directory=str(tmp_path / 'killed'))
    )
    for name in ('trades', 'candles', 'technical_indicators'):
        ours, theirs = stored(peace, name), stored(killed, name)
        assert len(ours) > 0 and canonical_digest(ours, ('ingest_ms', 'available_ms')) == canonical_digest(
            theirs, ('ingest_ms', 'available_ms')
        ), name
    market = Simulation(7)
    rows = market.rows('BTC/USD', since * 10**6 - 1, until * 10**6 - 1, 1 << 30)
    assert stored(peace, 'trades').trade_id.tolist() == [r.trade_id for r in rows]
    minutes = (until - rows[0].ns // 10**6 // 60_000 * 60_000) // 60_000  # from the first trade on
    assert (
        not stored(peace, 'candles').is_partial.any()
        and len(candle_history(open_feature_store(peace), 'BTC/USD', 60)) == minutes
    )
