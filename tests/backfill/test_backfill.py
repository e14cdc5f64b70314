"""A past brought in by the exchange and by files equals what live would have stored, and a second run changes nothing."""

import asyncio
import math
import signal
import sys
import time
from functools import partial

import msgspec
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.backfill import exchange as backfill
from crypto_rt.backfill import fill
from crypto_rt.backfill.exchange import backfill_exchange, backfill_trades
from crypto_rt.backfill.files import backfill_file
from crypto_rt.backfill.fill import recompute
from crypto_rt.backfill.fill import store_indicators as backfill_store_indicators
from crypto_rt.bus.steps import Received
from crypto_rt.candles.aggregation import candles_of_trades, resample
from crypto_rt.core.amounts import plain_decimal
from crypto_rt.core.messages import Candle, Trade, Trades, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.core.times import now_ms
from crypto_rt.features.indicators import indicators_of
from crypto_rt.features.table import FEATURE_NAMES, TABLE, FeatureTable
from crypto_rt.market.exchange import TradePage
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.sandbox.exchange import SandboxExchange
from crypto_rt.sandbox.random_market import Simulation
from crypto_rt.sandbox.server import serving
from crypto_rt.services import feature_store
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.store.conform import canonical_digest
from crypto_rt.store.export import export, floats
from crypto_rt.store.open import candle_history, open_feature_store, open_group
from crypto_rt.store.schema import GROUPS, indicator_groups

NOON = 1_762_776_000_000
KEY = dict(symbol='BTC/USD', interval_seconds=60)
OHLCV = ['open', 'high', 'low', 'close', 'volume']


def candle(n, symbol='BTC/USD', **other):
    start, price = NOON + n * 60_000, 100 + 10 * math.sin(n / 30) + (n * 7919 % 31) / 10
    values = dict(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=0,
        end_ms=start + 60_000,
        open=f'{price:.2f}1',
        high=f'{price + 1:.2f}1',
        low=f'{price - 1:.2f}1',
        close=f'{price + 0.3:.2f}1',
        volume='1.5',
        quote_volume='150',
        vwap=f'{price:.2f}1',
        trade_count=3,
        buy_volume='1',
        first_trade_id=-1,
        last_trade_id=-1,
        bid=None,
        ask=None,
        is_empty=False,
        is_partial=False,
        source='exchange',
        available_ms=start + 62_000,
    )
    return Candle(**values | other)


class Newest:
    "Its newest 720 candles, as the REST client gives them."

    def __init__(self, until):
        self.until, self.asked = until, []

    limits = Kraken.limits

    def candles(self, symbol, interval_seconds):
        self.asked.append(symbol)
        return [candle(n, symbol) for n in range(self.until - 720, self.until)]


@pytest.fixture
def settings(tmp_path):
    return load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD,ETH/USD'))


def stored(settings, name):
    store = open_feature_store(settings)
    frame = open_group(store, name).read()
    store.close()
    return frame


def test_an_empty_store_gets_the_exchanges_past_and_a_second_run_adds_nothing(settings):
    added = backfill_exchange(settings, Newest(720), progress=False)
    assert added == {symbol: {'candles': 720, 'indicators': 720} for symbol in settings.data.symbols}
    before = [canonical_digest(stored(settings, name)) for name in ('candles', 'technical_indicators')]
    added = backfill_exchange(settings, Newest(720), progress=False)
    assert added == {symbol: {'candles': 0, 'indicators': 0} for symbol in settings.data.symbols}
    assert before == [
        canonical_digest(stored(settings, name)) for name in ('candles', 'technical_indicators')
    ]
    store = open_feature_store(settings)
    expected = indicators_of([candle(n) for n in range(720)])
    assert open_group(store, 'technical_indicators').history(KEY) == expected and expected[-1].warm_up == 0


def test_a_store_that_is_behind_is_brought_up_with_the_indicators_of_the_joined_past(settings):
    backfill_exchange(settings, Newest(720), progress=False)
    assert backfill_exchange(settings, Newest(1000), progress=False)['BTC/USD'] == {
        'candles': 280,
        'indicators': 280,
    }
    store = open_feature_store(settings)
    assert candle_history(store, **KEY) == [candle(n) for n in range(1000)]
    assert open_group(store, 'technical_indicators').history(KEY) == indicators_of(
        [candle(n) for n in range(1000)]
    )


def test_what_live_has_seen_whole_stays_and_what_it_saw_in_part_is_revised(settings):
    store = open_feature_store(settings)
    live = [
        candle(n, source='trades', high='200', close='100.5', is_partial=n == 700) for n in range(700, 705)
    ]
    open_group(store, 'candles').insert(live)
    open_group(store, 'technical_indicators').insert(indicators_of(live))
    backfill_exchange(settings, Newest(720), progress=False)
    past = {(c.start_ms - NOON) // 60_000: c for c in candle_history(store, **KEY)}
    assert (
        [past[n].close for n in range(701, 705)] == ['100.5'] * 4
        and past[700].source == 'exchange'
        and past[700].revision == 1
    )
    old = open_group(store, 'candles').read(as_of=past[700].available_ms - 1, equal=KEY)
    assert old.close.iloc[-1] != '100.5', 'before it was known, it was not'
    assert open_group(store, 'candles').read(all_revisions=True, equal=KEY).is_partial.sum() == 1
    features = open_group(store, 'technical_indicators').history(KEY)
    assert len(features) == 720 and {f.revision for f in features if f.start_ms == past[700].start_ms} == {1}


def test_an_interval_that_the_exchange_has_not_is_no_error(tmp_path, caplog):
    settings = load_settings(
        '/dev/null', env={}, data=dict(directory=str(tmp_path), interval_seconds=10, horizon_seconds=30)
    )
    assert backfill_exchange(settings, Newest(720), progress=False) == {}
    assert 'nothing to back-fill' in caplog.text


def test_a_hole_resets_the_indicators_and_empty_windows_do_not(settings, tmp_path):
    rows = [candle(n) for n in range(400) if n not in range(300, 305)]
    frame = floats(pd.DataFrame([msgspec.structs.asdict(c) for c in rows]))[
        ['symbol', 'start_ms', *OHLCV, 'trade_count']
    ]
    frame.to_parquet(tmp_path / 'c.parquet')
    for absent, after in (('hole', True), ('empty', False)):
        chosen = msgspec.structs.replace(
            settings, data=msgspec.structs.replace(settings.data, directory=str(tmp_path / absent))
        )
        done = backfill_file(chosen, tmp_path / 'c.parquet', absent=absent, progress=False)
        rows = sum(
            map(len, (range(395 if after else 400), range(80 if not after else 79), range(27), range(7)))
        )
        assert done == {
            'symbols': ['BTC/USD'],
            'intervals': [60, 300, 900, 3600],
            'trades': 0,
            'candles': rows,
            'indicators': rows,
        }
        features = (
            stored(chosen, 'technical_indicators').query('interval_seconds == 60').set_index('start_ms')
        )
        assert bool(features.warm_up[NOON + 305 * 60_000] > features.warm_up[NOON + 299 * 60_000]) is after
    assert backfill_file(chosen, tmp_path / 'c.parquet', absent='empty', progress=False)['candles'] == 0


def test_an_export_is_a_candles_file_again(settings, tmp_path):
    backfill_exchange(settings, Newest(720), progress=False)
    out = tmp_path / 'out.parquet'
    assert export(settings, 'candles', 'BTC/USD', out) == 720
    frame = pd.read_parquet(out)
    assert frame[OHLCV].dtypes.eq('float64').all() and {
        'interval_seconds',
        'trade_count',
        'is_empty',
        'is_partial',
        'vwap',
        'revision',
    } <= set(frame)
    again = msgspec.structs.replace(
        settings, data=msgspec.structs.replace(settings.data, directory=str(tmp_path / 'again'))
    )
    assert backfill_file(again, out, interval_seconds=60, progress=False)['candles'] == 720
    columns = [*OHLCV, 'start_ms', 'end_ms', 'vwap', 'trade_count']
    ours, theirs = stored(settings, 'candles'), stored(again, 'candles')
    assert canonical_digest(ours[ours.symbol == 'BTC/USD'][columns]) == canonical_digest(theirs[columns])
    since, until = NOON + 10 * 60_000, NOON + 20 * 60_000
    assert export(settings, 'features', 'ETH/USD', out, since=since, until=until) == 10
    assert set(FEATURE_NAMES) <= set(pd.read_parquet(out)) and not list(tmp_path.glob('*.tmp'))


def test_trades_become_the_candles_that_live_would_have_made(settings, tmp_path):
    rows = [
        dict(
            symbol='BTC/USD',
            trade_id=n,
            price=f'{100 + n % 7}.50',
            quantity='0.25',
            side='buy',
            event_ms=NOON + n * 17_000,
        )
        for n in range(400)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / 'trades.parquet')
    done = backfill_file(settings, tmp_path / 'trades.parquet', progress=False)
    past = candle_history(open_feature_store(settings), **KEY)
    assert (
        len(past) == 400 * 17 // 60 + 1 and done['trades'] == 400 and sum(c.trade_count for c in past) == 400
    )
    assert past[0].open == '100.5' and all(c.source == 'trades' for c in past)
    batch = Trades(
        'BTC/USD',
        [
            Trade(trade_id=n, price='1', quantity='1', side='buy', order_type='', event_ms=NOON + n)
            for n in range(3)
        ],
        NOON,
        'replay',
    )
    assert [c.trade_count for c in candles_of_trades([batch], 60, 2000)] == [3]


def test_errors_name_what_was_expected(settings, tmp_path):
    with pytest.raises(
        ValueError,
        match='outcomes are not stored yet; there are trades, candles, indicators, features, predictions',
    ):
        export(settings, 'outcomes', 'BTC/USD', tmp_path / 'o.parquet')
    with pytest.raises(ValueError, match='no trades of BTC/USD are stored; there are none yet'):
        export(settings, 'trades', 'BTC/USD', tmp_path / 'o.parquet')
    with pytest.raises(ValueError, match='no candles of BTC/USD at 60 s are stored; there are none yet'):
        export(settings, 'candles', 'BTC/USD', tmp_path / 'o.parquet')
    (tmp_path / 'x.txt').write_text('hello')
    with pytest.raises(ValueError, match='x'):
        backfill_file(settings, tmp_path / 'x.txt', progress=False)
    with pytest.raises(FileNotFoundError):
        backfill_file(settings, tmp_path / 'no.parquet', progress=False)


def test_recorded_trades_equal_another_partys_candles(settings, shared, tmp_path):
    canonical = shared / 'data/canonical'
    backfill_file(settings, canonical / 'trades/BTC-USDT_20240808T2354.parquet', progress=False)
    export(settings, 'candles', 'BTC/USDT', tmp_path / 'o.parquet')
    ours = pd.read_parquet(tmp_path / 'o.parquet').set_index('start_ms')
    theirs = pd.read_parquet(canonical / 'candles/BTC-USDT_1m_2024-07-26.parquet').set_index('start_ms')
    full = ours[~ours.is_partial].index.intersection(theirs.index)[:10]
    assert (
        len(full) == 10 and (ours.loc[full, OHLCV].round(8) == theirs.loc[full, OHLCV].round(8)).all().all()
    )


def test_a_month_of_kraken_with_outages_is_stored_row_by_row_as_it_is(settings, shared, tmp_path):
    file = shared / 'data/canonical/candles/BTC-USD_1m_kraken_2023-03.parquet'
    began = time.monotonic()
    rows = pd.read_parquet(file).iloc[:5000]
    rows.to_parquet(tmp_path / 'part.parquet')
    done = backfill_file(settings, tmp_path / 'part.parquet', progress=False)
    export(settings, 'candles', 'BTC/USD', tmp_path / 'o.parquet')
    ours = pd.read_parquet(tmp_path / 'o.parquet')
    assert (
        done['intervals'] == [60, 300, 900, 3600]
        and len(ours) == 5000
        and (ours[OHLCV].round(8).to_numpy() == rows[OHLCV].round(8).to_numpy()).all()
    )
    print(f'5,000 candles with indicators in {time.monotonic() - began:.1f} s')


# --- several lengths


def trades_between(first, last, every_ms=7_300, silent=()):
    "Trades with ids that follow each other, at a steady pace but for a silence."
    at = [n for n in range(first, last) if n not in silent]
    return [
        Trade(
            trade_id=5000 + n,
            price=f'{100 + k * 7 % 13}.{k % 10}1',
            quantity=f'0.{k % 97 + 1:04}1234',
            side='buy' if k % 3 else 'sell',
            order_type='limit',
            event_ms=NOON + k * every_ms,
        )
        for n, k in enumerate(at)
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 4 * 3600), st.integers(1, 10**9), st.integers(1, 10**6)),
        min_size=1,
        max_size=60,
    )
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_longer_candles_of_candles_equal_those_of_trades(rows):
    trades = [
        Trade(
            trade_id=n,
            price=f'{price / 1e5:.5f}',
            quantity=f'{quantity / 1e4:.4f}',
            side='buy' if n % 2 else 'sell',
            order_type='',
            event_ms=NOON + at * 1000,
        )
        for n, (at, price, quantity) in enumerate(sorted(rows), 1)
    ]
    made = list(candles_of_trades([Trades('BTC/USD', trades, NOON, 'replay')], [60, 300, 3600], 2000))
    of = {seconds: [c for c in made if c.interval_seconds == seconds] for seconds in (60, 300, 3600)}
    for seconds in (300, 3600):
        merged = list(resample(of[60], seconds))
        for ours, theirs in zip(merged, of[seconds], strict=True):
            if ours.is_partial == theirs.is_partial or not ours.is_partial:
                assert msgspec.structs.replace(ours, available_ms=0) == msgspec.structs.replace(
                    theirs, available_ms=0
                )
            else:
                assert ours.start_ms in (merged[0].start_ms, merged[-1].start_ms), (
                    'only the ends know less in minutes'
                )
                alike = (
                    'open',
                    'high',
                    'low',
                    'close',
                    'volume',
                    'quote_volume',
                    'vwap',
                    'trade_count',
                    'buy_volume',
                    'first_trade_id',
                    'last_trade_id',
                )
                assert [getattr(ours, f) for f in alike] == [getattr(theirs, f) for f in alike]


def test_krakens_csv_of_trades_and_of_candles_give_all_lengths(settings, shared, tmp_path):
    rows = trades_between(0, 3000, silent=range(700, 760))
    (tmp_path / 'trades.csv').write_text(
        ''.join(f'{t.event_ms / 1000:.4f},{t.price},{t.quantity}\n' for t in rows)
    )
    done = backfill_file(settings, tmp_path / 'trades.csv', symbols=['BTC/USD'], progress=False)
    assert done['intervals'] == [60, 300, 900, 3600] and done['trades'] == 0, (
        'a CSV has no ids, so its trades are not stored'
    )
    store = open_feature_store(settings)
    past = {seconds: candle_history(store, 'BTC/USD', seconds) for seconds in done['intervals']}
    minutes = [c for c in past[60] if not c.is_empty]
    (tmp_path / 'ohlcvt.csv').write_text(
        ''.join(
            f'{c.start_ms // 1000},{c.open},{c.high},{c.low},{c.close},{c.volume},{c.trade_count}\n'
            for c in minutes
        )
    )
    again = msgspec.structs.replace(
        settings, data=msgspec.structs.replace(settings.data, directory=str(tmp_path / 'again'))
    )
    backfill_file(again, tmp_path / 'ohlcvt.csv', symbols=['BTC/USD'], absent='empty', progress=False)
    other = open_feature_store(again)
    for seconds, ours in past.items():
        theirs = candle_history(other, 'BTC/USD', seconds)
        assert [[getattr(c, f) for f in (*OHLCV, 'trade_count', 'is_empty')] for c in ours] == [
            [getattr(c, f) for f in (*OHLCV, 'trade_count', 'is_empty')] for c in theirs
        ]
    real = backfill_file(settings, shared / 'data/trades/csv_BCHEUR.csv', symbols=['BCH/EUR'], progress=False)
    assert real['symbols'] == ['BCH/EUR'] and real['candles'] == real['indicators'] > 0


def test_two_files_that_share_an_hour_make_it_whole(settings, tmp_path):
    rows = [candle(n) for n in range(0, 200)]
    frame = floats(pd.DataFrame([msgspec.structs.asdict(c) for c in rows]))[
        ['symbol', 'start_ms', *OHLCV, 'trade_count']
    ]
    frame.iloc[:90].to_parquet(tmp_path / 'a.parquet')
    frame.iloc[90:].sample(frac=1, random_state=7).to_parquet(tmp_path / 'b.parquet')
    backfill_file(settings, tmp_path / 'a.parquet', progress=False)
    assert candle_history(open_feature_store(settings), 'BTC/USD', 3600)[1].is_partial
    backfill_file(settings, tmp_path / 'b.parquet', progress=False, interval_seconds=60)
    backfill_file(settings, tmp_path / 'a.parquet', progress=False)
    frame.sort_values('start_ms').to_parquet(tmp_path / 'c.parquet')
    backfill_file(settings, tmp_path / 'c.parquet', progress=False)
    hours = candle_history(open_feature_store(settings), 'BTC/USD', 3600)
    assert [(c.is_partial, c.revision) for c in hours] == [(False, 0), (False, 1), (False, 0), (True, 0)]
    assert (
        hours[1].volume == '90'
        and hours[1].open == plain_decimal(f'{frame.open[60]}')
        and hours[1].close == plain_decimal(f'{frame.close[119]}')
    )


def test_a_long_file_is_written_in_pieces_and_gives_the_same(settings, tmp_path, monkeypatch):
    rows = [candle(n) for n in range(2000)]
    frame = floats(pd.DataFrame([msgspec.structs.asdict(c) for c in rows]))[
        ['symbol', 'start_ms', *OHLCV, 'trade_count']
    ]
    frame.to_parquet(tmp_path / 'c.parquet')
    backfill_file(settings, tmp_path / 'c.parquet', progress=False)
    monkeypatch.setattr(fill, 'PIECE', 150)
    again = msgspec.structs.replace(
        settings, data=msgspec.structs.replace(settings.data, directory=str(tmp_path / 'again'))
    )
    backfill_file(again, tmp_path / 'c.parquet', progress=False)
    assert canonical_digest(stored(settings, 'candles')) == canonical_digest(stored(again, 'candles'))
    ours, theirs = (stored(s, 'technical_indicators') for s in (settings, again))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6)


# --- over REST


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
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    assert (
        not stored(peace, 'candles').is_partial.any()
        and len(candle_history(open_feature_store(peace), 'BTC/USD', 60)) == 360
    )


# --- a feature set that has grown


def grow(monkeypatch):
    "Add a row to the table, as a release would; return the table."
    bigger = FeatureTable(
        (
            *TABLE.features,
            TABLE.features[0]._replace(name='grown', since=int(TABLE.newest.rpartition('v')[2]) + 1),
        )
    )
    monkeypatch.setattr(fill, 'indicators_of', partial(indicators_of, table=bigger))
    monkeypatch.setitem(GROUPS, 'technical_indicators', indicator_groups(bigger)[-1])
    monkeypatch.setattr(feature_store, 'indicator_groups', partial(indicator_groups, bigger))
    return bigger


def test_a_grown_set_is_computed_for_all_that_is_stored_and_only_once(settings, monkeypatch):
    "Broken off in between it goes on, what `up` begins with does it as well, and the older set stays as it is."
    monkeypatch.setattr(fill, 'PIECE', 300)
    backfill_exchange(settings, Newest(720), progress=False)
    backfill_exchange(settings, Newest(1900), progress=False)  # a hole of 460 between
    old = stored(settings, 'technical_indicators')
    bigger, calls, store_indicators = grow(monkeypatch), [], backfill_store_indicators

    def broken_off(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return store_indicators(*args)

    monkeypatch.setattr(fill, 'store_indicators', broken_off)
    with pytest.raises(KeyboardInterrupt):
        recompute(settings, ['BTC/USD'], progress=False)
    before = len(stored(settings, 'technical_indicators'))
    done = recompute(settings, settings.data.symbols, 60, progress=False, thorough=False)  # as `up` does
    assert 0 < before < 1440 and done['feature_set'] == bigger.newest and done['rows'] == 2 * 1440 - before
    assert [each['symbol'] for each in done['of_each']] == ['BTC/USD', 'ETH/USD']
    assert (
        recompute(settings, progress=False)['rows']
        == recompute(settings, progress=False, thorough=False)['rows']
        == 0
    )
    store, past = open_feature_store(settings), [candle(n) for n in (*range(720), *range(1180, 1900))]
    assert open_group(store, 'technical_indicators').history(KEY, last=2000) == indicators_of(past, bigger)
    assert canonical_digest(store.get_feature_group('technical_indicators', 1).read()) == canonical_digest(
        old
    )
    store.close()


def test_the_writer_serves_the_older_sets_and_seals_each_of_them(settings, monkeypatch):
    backfill_exchange(settings, Newest(720), progress=False)
    bigger = grow(monkeypatch)
    store = open_feature_store(settings)
    writer = StoreWriter(store, settings)
    made = indicators_of([candle(n) for n in range(1000)], bigger)[720:]
    letters = writer.take(
        [
            Received(key=row.symbol, value=encode(row), topic='technical_indicators', partition=0, offset=n)
            for n, row in enumerate(made)
        ]
    )
    versions = {version: store.get_feature_group('technical_indicators', version) for version in (1, 2)}
    assert letters == [] and writer.counts['stored'] == 280
    assert versions[2].history(KEY) == made and len(versions[1].history(KEY)) == 1000
    assert versions[1].history(KEY)[-1].values == {name: made[-1].values[name] for name in TABLE.names}
    sealed = store.seal(NOON + 86_400_000 * 2)
    assert [sealed['technical_indicators', version] for version in (1, 2)] == [1000 + 720, 280]
    assert versions[2].history(KEY) == made and len(versions[1].history(KEY)) == 1000
    store.close()
