"""Files of trades and of candles become the candles and indicators that live would have stored."""

import time

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.backfill import fill
from crypto_rt.backfill.exchange import backfill_exchange
from crypto_rt.backfill.files import backfill_file
from crypto_rt.candles.aggregation import candles_of_trades, resample
from crypto_rt.core.amounts import plain_decimal
from crypto_rt.core.messages import Trade, Trades
from crypto_rt.features.table import FEATURE_NAMES
from crypto_rt.store.conform import canonical_digest
from crypto_rt.store.export import export, floats
from crypto_rt.store.open import candle_history, open_feature_store
from tests.backfill.builders import KEY, NOON, Newest, candle, stored, trades_between
from tests.repeat import many

OHLCV = ['open', 'high', 'low', 'close', 'volume']


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


@given(
    st.lists(
        st.tuples(st.integers(0, 4 * 3600), st.integers(1, 10**9), st.integers(1, 10**6)),
        min_size=1,
        max_size=60,
    )
)
@hypothesis_settings(max_examples=many(60), deadline=None)
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
