"""A past brought in by the exchange and by files equals what live would have stored, and a second run changes nothing."""

import math
import time

import msgspec
import pandas as pd
import pytest

from crypto_rt import backfill
from crypto_rt.feature_store import candle_history, canonical_digest, open_feature_store, open_group
from crypto_rt.indicators import FEATURE_NAMES, indicators_of
from crypto_rt.messages import Candle, Trade, Trades
from crypto_rt.settings import load_settings

NOON = 1_762_776_000_000
KEY = dict(symbol='BTC/USD', interval_seconds=60)
OHLCV = ['open', 'high', 'low', 'close', 'volume']


def candle(n, symbol='BTC/USD', **other):
    start, price = NOON + n * 60_000, 100 + 10 * math.sin(n / 30) + (n * 7919 % 31) / 10
    values = dict(symbol=symbol, interval_seconds=60, start_ms=start, revision=0, end_ms=start + 60_000, open=f'{price:.2f}1', high=f'{price + 1:.2f}1',
                  low=f'{price - 1:.2f}1', close=f'{price + 0.3:.2f}1', volume='1.5', quote_volume='150', vwap=f'{price:.2f}1', trade_count=3, buy_volume='1',
                  first_trade_id=-1, last_trade_id=-1, bid=None, ask=None, is_empty=False, is_partial=False, source='exchange',
                  available_ms=start + 62_000)  # fmt: skip
    return Candle(**values | other)


class Exchange:
    "Its newest 720 candles, as the REST client gives them."

    def __init__(self, until):
        self.until, self.asked = until, []

    def ohlc(self, symbol, interval_seconds):
        self.asked.append(symbol)
        return [candle(n, symbol) for n in range(self.until - 720, self.until)], 0


@pytest.fixture
def settings(tmp_path):
    return load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD,ETH/USD'))


def stored(settings, name):
    store = open_feature_store(settings)
    frame = open_group(store, name).read()
    store.close()
    return frame


def test_an_empty_store_gets_the_exchanges_past_and_a_second_run_adds_nothing(settings):
    added = backfill.backfill_exchange(settings, Exchange(720), progress=False)
    assert added == {symbol: {'candles': 720, 'indicators': 720} for symbol in settings.data.symbols}
    before = [canonical_digest(stored(settings, name)) for name in ('candles', 'technical_indicators')]
    added = backfill.backfill_exchange(settings, Exchange(720), progress=False)
    assert added == {symbol: {'candles': 0, 'indicators': 0} for symbol in settings.data.symbols}
    assert before == [canonical_digest(stored(settings, name)) for name in ('candles', 'technical_indicators')]
    store = open_feature_store(settings)
    expected = indicators_of([candle(n) for n in range(720)])
    assert open_group(store, 'technical_indicators').history(KEY) == expected and expected[-1].warm_up == 0


def test_a_store_that_is_behind_is_brought_up_with_the_indicators_of_the_joined_past(settings):
    backfill.backfill_exchange(settings, Exchange(720), progress=False)
    assert backfill.backfill_exchange(settings, Exchange(1000), progress=False)['BTC/USD'] == {'candles': 280, 'indicators': 280}
    store = open_feature_store(settings)
    assert candle_history(store, **KEY) == [candle(n) for n in range(1000)]
    assert open_group(store, 'technical_indicators').history(KEY) == indicators_of([candle(n) for n in range(1000)])


def test_what_live_has_seen_whole_stays_and_what_it_saw_in_part_is_revised(settings):
    store = open_feature_store(settings)
    live = [candle(n, source='trades', high='200', close='100.5', is_partial=n == 700) for n in range(700, 705)]
    open_group(store, 'candles').insert(live)
    open_group(store, 'technical_indicators').insert(indicators_of(live))
    backfill.backfill_exchange(settings, Exchange(720), progress=False)
    past = {(c.start_ms - NOON) // 60_000: c for c in candle_history(store, **KEY)}
    assert [past[n].close for n in range(701, 705)] == ['100.5'] * 4 and past[700].source == 'exchange' and past[700].revision == 1
    old = open_group(store, 'candles').read(as_of=past[700].available_ms - 1, equal=KEY)
    assert old.close.iloc[-1] != '100.5', 'before it was known, it was not'
    assert open_group(store, 'candles').read(all_revisions=True, equal=KEY).is_partial.sum() == 1
    features = open_group(store, 'technical_indicators').history(KEY)
    assert len(features) == 720 and {f.revision for f in features if f.start_ms == past[700].start_ms} == {1}


def test_an_interval_that_the_exchange_has_not_is_no_error(tmp_path, caplog):
    settings = load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path), interval_seconds=10, horizon_seconds=30))
    assert backfill.backfill_exchange(settings, Exchange(720), progress=False) == {}
    assert 'nothing to back-fill' in caplog.text


def test_a_hole_resets_the_indicators_and_empty_windows_do_not(settings, tmp_path):
    rows = [candle(n) for n in range(400) if n not in range(300, 305)]
    frame = backfill.floats(pd.DataFrame([msgspec.structs.asdict(c) for c in rows]))[['symbol', 'start_ms', *OHLCV, 'trade_count']]
    frame.to_parquet(tmp_path / 'c.parquet')
    for absent, after in (('hole', True), ('empty', False)):
        chosen = msgspec.structs.replace(settings, data=msgspec.structs.replace(settings.data, directory=str(tmp_path / absent)))
        done = backfill.backfill_file(chosen, tmp_path / 'c.parquet', absent=absent, progress=False)
        rows = sum(map(len, (range(395 if after else 400), range(80 if not after else 79), range(27), range(7))))
        assert done == {'symbols': ['BTC/USD'], 'intervals': [60, 300, 900, 3600], 'trades': 0, 'candles': rows, 'indicators': rows}
        features = stored(chosen, 'technical_indicators').query('interval_seconds == 60').set_index('start_ms')
        assert bool(features.warm_up[NOON + 305 * 60_000] > features.warm_up[NOON + 299 * 60_000]) is after
    assert backfill.backfill_file(chosen, tmp_path / 'c.parquet', absent='empty', progress=False)['candles'] == 0


def test_an_export_is_a_candles_file_again(settings, tmp_path):
    backfill.backfill_exchange(settings, Exchange(720), progress=False)
    out = tmp_path / 'out.parquet'
    assert backfill.export(settings, 'candles', 'BTC/USD', out) == 720
    frame = pd.read_parquet(out)
    assert frame[OHLCV].dtypes.eq('float64').all() and {'interval_seconds', 'trade_count', 'is_empty', 'is_partial', 'vwap', 'revision'} <= set(frame)
    again = msgspec.structs.replace(settings, data=msgspec.structs.replace(settings.data, directory=str(tmp_path / 'again')))
    assert backfill.backfill_file(again, out, interval_seconds=60, progress=False)['candles'] == 720
    columns = [*OHLCV, 'start_ms', 'end_ms', 'vwap', 'trade_count']
    ours, theirs = stored(settings, 'candles'), stored(again, 'candles')
    assert canonical_digest(ours[ours.symbol == 'BTC/USD'][columns]) == canonical_digest(theirs[columns])
    since, until = NOON + 10 * 60_000, NOON + 20 * 60_000
    assert backfill.export(settings, 'features', 'ETH/USD', out, since=since, until=until) == 10
    assert set(FEATURE_NAMES) <= set(pd.read_parquet(out)) and not list(tmp_path.glob('*.tmp'))


def test_trades_become_the_candles_that_live_would_have_made(settings, tmp_path):
    rows = [dict(symbol='BTC/USD', trade_id=n, price=f'{100 + n % 7}.50', quantity='0.25', side='buy', event_ms=NOON + n * 17_000) for n in range(400)]
    pd.DataFrame(rows).to_parquet(tmp_path / 'trades.parquet')
    done = backfill.backfill_file(settings, tmp_path / 'trades.parquet', progress=False)
    past = candle_history(open_feature_store(settings), **KEY)
    assert len(past) == 400 * 17 // 60 + 1 and done['trades'] == 400 and sum(c.trade_count for c in past) == 400
    assert past[0].open == '100.5' and all(c.source == 'trades' for c in past)
    batch = Trades('BTC/USD', [Trade(n, '1', '1', 'buy', '', NOON + n) for n in range(3)], NOON, 'replay')
    assert [c.trade_count for c in backfill.candles_of_trades([batch], 60, 2000)] == [3]


def test_errors_name_what_was_expected(settings, tmp_path):
    with pytest.raises(ValueError, match='outcomes are not stored yet; there are trades, candles, indicators, features, predictions'):
        backfill.export(settings, 'outcomes', 'BTC/USD', tmp_path / 'o.parquet')
    with pytest.raises(ValueError, match='no trades of BTC/USD are stored; there are none yet'):
        backfill.export(settings, 'trades', 'BTC/USD', tmp_path / 'o.parquet')
    with pytest.raises(ValueError, match='no candles of BTC/USD at 60 s are stored; there are none yet'):
        backfill.export(settings, 'candles', 'BTC/USD', tmp_path / 'o.parquet')
    (tmp_path / 'x.txt').write_text('hello')
    with pytest.raises(ValueError, match='x'):
        backfill.backfill_file(settings, tmp_path / 'x.txt', progress=False)
    with pytest.raises(FileNotFoundError):
        backfill.backfill_file(settings, tmp_path / 'no.parquet', progress=False)


def test_recorded_trades_equal_another_partys_candles(settings, shared, tmp_path):
    canonical = shared / 'data/canonical'
    backfill.backfill_file(settings, canonical / 'trades/BTC-USDT_20240808T2354.parquet', progress=False)
    backfill.export(settings, 'candles', 'BTC/USDT', tmp_path / 'o.parquet')
    ours = pd.read_parquet(tmp_path / 'o.parquet').set_index('start_ms')
    theirs = pd.read_parquet(canonical / 'candles/BTC-USDT_1m_2024-07-26.parquet').set_index('start_ms')
    full = ours[~ours.is_partial].index.intersection(theirs.index)[:10]
    assert len(full) == 10 and (ours.loc[full, OHLCV].round(8) == theirs.loc[full, OHLCV].round(8)).all().all()


def test_a_month_of_kraken_with_outages_is_stored_row_by_row_as_it_is(settings, shared, tmp_path):
    file = shared / 'data/canonical/candles/BTC-USD_1m_kraken_2023-03.parquet'
    began = time.monotonic()
    rows = pd.read_parquet(file).iloc[:5000]
    rows.to_parquet(tmp_path / 'part.parquet')
    done = backfill.backfill_file(settings, tmp_path / 'part.parquet', progress=False)
    backfill.export(settings, 'candles', 'BTC/USD', tmp_path / 'o.parquet')
    ours = pd.read_parquet(tmp_path / 'o.parquet')
    assert done['intervals'] == [60, 300, 900, 3600] and len(ours) == 5000 and (ours[OHLCV].round(8).to_numpy() == rows[OHLCV].round(8).to_numpy()).all()
    print(f'5,000 candles with indicators in {time.monotonic() - began:.1f} s')
