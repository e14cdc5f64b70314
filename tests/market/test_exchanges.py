"""A second exchange is a folder of its own: trades, back-fill and reconciliation use it, and no line elsewhere changes."""

import asyncio
import os
import subprocess
import sys

import pytest

from crypto_rt.backfill.exchange import backfill_exchange, backfill_trades
from crypto_rt.bus.reading import tail
from crypto_rt.bus.topics import ensure_topics
from crypto_rt.core.messages import Gap, Trades, Watermark, decode
from crypto_rt.core.settings import load_settings, to_env
from crypto_rt.market.exchanges import exchange_names, open_exchange
from crypto_rt.market.feed import Feed
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.services.reconcile import exchange_of, reconcile_once
from crypto_rt.services.trades import drive
from crypto_rt.store.open import candle_history, open_feature_store, open_group
from crypto_rt.system.plan import resolve

NOON = 1_762_776_000_000
COUNT = 720  # trades, one each ten seconds

EXCHANGE = '''
"""An exchange that pages by trade id, names its markets in lower case and knows no heartbeat."""
import asyncio
from decimal import Decimal
from crypto_rt.core.messages import Candle, Trade
from crypto_rt.core.symbols import unknown_symbol
from crypto_rt.market.exchange import Exchange, ExchangeLimits, Frame, TradePage, check_interval

NOON, COUNT, LOST = 1_762_776_000_000, 720, range(100, 130)
MARKETS = {'BTC/USD': 'btcusd'}


def rows(market):
    "What it keeps: the id, the time, the price and the amount of each trade, from 1."
    assert market == 'btcusd', market
    return [(n, NOON + 10_000 * (n - 1), f'{100 + n % 7}.5', '0.25') for n in range(1, COUNT + 1)]


class LittleExchange(Exchange):
    name, url = 'little', 'https://little.example'
    limits = ExchangeLimits(trades=100, candles=50, intervals=(60, 180))

    def __init__(self, settings):
        self.settings, self.closed = settings, False

    async def stream(self, symbols):
        yield [Frame('connected')]
        yield [Frame('ack', symbol=symbol, channel='trade') for symbol in symbols]
        for symbol in symbols:
            for start in range(0, COUNT, 60):
                items = [(symbol, n, price, amount, 'buy', '', at) for n, at, price, amount in rows(MARKETS[symbol])[start : start + 60]]
                yield [Frame('trade', trades=[item for item in items if item[1] not in LOST])]
        yield [Frame('replay_end', exchange_ms=NOON + 10_000 * COUNT)]
        while True:
            await asyncio.sleep(0.01)
            yield []

    def symbols(self):
        return list(MARKETS)

    def status(self):
        return 'online'

    def is_there(self, timeout_seconds):
        return True

    def time_ms(self):
        return NOON + 10_000 * COUNT + 60_000

    def first_cursor(self, since_ms):
        return str(max(1, -(-(since_ms - NOON) // 10_000) + 1))

    def trade_page(self, symbol, cursor):
        if symbol not in MARKETS:
            raise unknown_symbol(symbol, MARKETS, self.url)
        found = rows(MARKETS[symbol])[int(cursor) - 1 : int(cursor) - 1 + self.limits.trades]
        trades = [Trade(trade_id=n, price=price, quantity=amount, side='buy', order_type='', event_ms=at) for n, at, price, amount in found]
        after = int(cursor) + len(found)
        return TradePage(trades, str(after), after > COUNT)

    def candles(self, symbol, interval_seconds):
        check_interval(self, interval_seconds)
        long_ms, found = interval_seconds * 1000, []
        for start in range(NOON, NOON + 10_000 * COUNT, long_ms):
            some = [row for row in rows(MARKETS[symbol]) if start <= row[1] < start + long_ms]
            prices, amounts = [Decimal(row[2]) for row in some], [Decimal(row[3]) for row in some]
            worth, volume = sum(p * q for p, q in zip(prices, amounts)), sum(amounts)
            found.append(Candle(
                symbol=symbol, interval_seconds=interval_seconds, start_ms=start, revision=0, end_ms=start + long_ms,
                open=some[0][2], high=str(max(prices)), low=str(min(prices)), close=some[-1][2], volume=f'{volume:f}'.rstrip('0').rstrip('.'),
                quote_volume=f'{worth:f}', vwap=f'{(worth / volume).quantize(Decimal("1e-8")).normalize():f}', trade_count=len(some), buy_volume='0',
                first_trade_id=-1, last_trade_id=-1, bid=None, ask=None, is_empty=False, is_partial=False, source='exchange',
                available_ms=start + long_ms + 2000,
            ))
        return found[-self.limits.candles :]

    def close(self):
        self.closed = True
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    "The exchange as a package beside this one, as an installer would lay it down."
    folder = tmp_path / 'site'
    (folder / 'little_exchange').mkdir(parents=True)
    (folder / 'little_exchange' / '__init__.py').write_text(EXCHANGE)
    facts = folder / 'little_exchange-1.0.dist-info'
    facts.mkdir()
    (facts / 'METADATA').write_text('Metadata-Version: 2.1\nName: little-exchange\nVersion: 1.0\n')
    (facts / 'entry_points.txt').write_text(
        '[crypto_rt.exchanges]\nlittle = little_exchange:LittleExchange\n'
    )
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop('little_exchange', None)


def settings_in(folder, **more):
    return load_settings(
        env={},
        data=dict(directory=str(folder), symbols='BTC/USD', backfill_intervals='60, 180'),
        exchange=dict(name='little'),
        **more,
    )


def test_it_is_found_by_its_name_and_else_the_names_are_told(installed, tmp_path):
    assert exchange_names() == ['kraken', 'little']
    assert open_exchange(settings_in(tmp_path)).url == 'https://little.example'
    with pytest.raises(ValueError, match='must be one of kraken, little, was litle'):
        open_exchange(load_settings(env={}, exchange=dict(name='litle')))
    assert resolve(settings_in(tmp_path))[1] == 'live', 'it answers, so `up` needs no simulation'


def test_its_stream_is_read_and_its_gaps_are_filled_by_its_own_pages(installed, tmp_path):
    settings, sent = settings_in(tmp_path), []
    feed = Feed([SymbolState('BTC/USD', TradeSequence(0, cursor_ms=NOON))], 'replay')
    asyncio.run(drive(settings, feed, open_exchange(settings), sent.extend, until_end=True))
    told = [decode(m.topic, m.value) for m in sent]
    trades = [t for m in told if isinstance(m, Trades) for t in m.trades]
    assert sorted(t.trade_id for t in trades) == list(range(1, COUNT + 1))
    assert {
        t.trade_id for m in told if isinstance(m, Trades) and m.source == 'rest' for t in m.trades
    } >= set(range(100, 130))
    assert [(g.first_missing, g.last_missing, g.state) for g in told if isinstance(g, Gap)][-1] == (
        100,
        129,
        'filled',
    )
    assert [m.contiguous_through for m in told if isinstance(m, Watermark)][-1] == COUNT


def test_its_past_is_back_filled_and_equals_its_candles(installed, tmp_path):
    settings = settings_in(tmp_path)
    exchange = open_exchange(settings)
    added = backfill_trades(settings, exchange, since_ms=NOON, until_ms=NOON + 7_200_000, progress=False)
    assert added['BTC/USD']['trades'] == COUNT and added['BTC/USD']['candles'] == 120 + 40
    store = open_feature_store(settings)
    assert open_group(store, 'trades').read().trade_id.tolist() == list(range(1, COUNT + 1))
    assert len(candle_history(store, 'BTC/USD', 180)) == 40
    store.close()
    assert backfill_exchange(settings, exchange, progress=False)['BTC/USD']['candles'] == 0
    figures = reconcile_once(settings, exchange_of(settings))
    assert (figures['compared'], figures['exact'], figures['unexplained']) == (50, 50, 0), figures
    with pytest.raises(ValueError, match='does not list BTC/UDS; the nearest are BTC/USD'):
        backfill_trades(settings, exchange, symbols=['BTC/UDS'], since_ms=NOON, progress=False)


def test_the_service_of_another_process_reads_it_onto_kafka(installed, tmp_path, kafka_broker):
    kafka = dict(broker=kafka_broker, topic_prefix=f'little{os.getpid()}.')
    settings = settings_in(tmp_path, kafka=kafka, run=dict(source='replay', id='run', until_idle=True))
    ensure_topics(settings)
    code = (
        'from crypto_rt.services.trades import run_trades\n'
        'from crypto_rt.core.settings import load_settings\n'
        'run_trades(load_settings())'
    )
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get('PYTHONPATH')])])
    env = os.environ | to_env(settings) | {'PYTHONPATH': path}
    done = subprocess.run([sys.executable, '-c', code], env=env, timeout=60, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told = [decode('trades', m.value) for m in tail(settings, 'trades', 10_000)]
    ids = [t.trade_id for m in told if isinstance(m, Trades) for t in m.trades]
    assert sorted(ids) == list(range(1, COUNT + 1))
