"""Files of others, real ones, and files that are wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crypto_rt.market.files.candles import read_candles
from crypto_rt.market.files.forms import file_kind, sniff
from crypto_rt.market.files.trades import read_frames, read_trades, trade_symbols

FORMS = {
    'canonical/trades/BTC-USDT_20240808T2354.parquet': 'trades_parquet',
    'canonical/trades/XRP-ETH_20191011.parquet': 'trades_parquet',
    'kraken-ws-v2/DERIVED_replay_BTC-USDT_20251110.jsonl': 'trades_frames',
    'kraken-ws-v2/frames_recorded_by_others.jsonl': 'trades_frames',
    'kraken-rest/nautilus_http_trades.json': 'trades_rest',
    'kraken-rest/krakennet_GetTradeHistory.json': 'trades_rest',
    'kraken-rest/xchange_example-trades-data.json': 'trades_rest',
    'trades/csv_BCHEUR.csv': 'trades_csv',
    'canonical/candles/BTC-USDT_5m_2024-01-01.parquet': 'candles_parquet',
    'kraken-rest/nautilus_http_ohlc.json': 'candles_rest',
    'kraken-rest/krakennet_GetKlines.json': 'candles_rest',
}


@pytest.mark.parametrize('name', FORMS)
def test_each_form_is_recognised_and_read(shared, name):
    path = shared / 'data' / name
    assert file_kind(path) == FORMS[name]
    if sniff(path) == 'candles':
        assert next(iter(read_candles(path))).start_ms
    else:
        assert next(iter(read_trades(path, ['BCH/EUR'] if name.endswith('csv') else None))).trades


@pytest.mark.parametrize(
    'name',
    [
        'kraken-rest/nautilus_http_ticker.json',
        'README.md',
        'news/coindesk_20260925.xml',
        'trades/spot_BTCUSDT_20240808T2354-20240809T0005.parquet',
    ],
)
def test_every_other_file_is_refused_with_a_reason(shared, name):
    with pytest.raises(ValueError, match='expected'):
        file_kind(shared / 'data' / name)


def test_the_same_trades_in_three_forms(shared):
    frames = [
        t
        for m in read_trades(shared / 'data/kraken-ws-v2/DERIVED_replay_BTC-USDT_20251110.jsonl')
        for t in m.trades
    ]
    rest = [t for m in read_trades(shared / 'data/kraken-rest/nautilus_http_trades.json') for t in m.trades]
    assert len(frames) == 1000 and frames == rest
    assert trade_symbols(shared / 'data/kraken-ws-v2/DERIVED_replay_BTC-USDT_20251110.jsonl') == ['BTC/USDT']
    assert trade_symbols(shared / 'data/kraken-rest/nautilus_http_trades.json') == ['BTC/USDT']


def test_a_parquet_of_trades(shared):
    path = shared / 'data/canonical/trades/BTC-USDT_20240808T2354.parquet'
    messages = list(read_trades(path))
    trades = [t for m in messages for t in m.trades]
    assert len(trades) == 19_904 and max(len(m.trades) for m in messages) == 1000
    assert [t.trade_id for t in trades] == list(range(trades[0].trade_id, trades[0].trade_id + 19_904))
    assert messages[0].ingest_ms < messages[0].trades[-1].event_ms, (
        'the receiver ran behind the exchange, and that is kept'
    )
    assert trade_symbols(path) == ['BTC/USDT'] and list(read_trades(path, ['ETH/USDT'])) == []


def test_candles_of_krakens_own_reply_and_of_parquet(shared):
    rest = list(read_candles(shared / 'data/kraken-rest/nautilus_http_ohlc.json'))
    assert len(rest) == 720 and {c.interval_seconds for c in rest} == {60} and rest[0].symbol == 'BTC/USDT'
    holes = list(read_candles(shared / 'data/canonical/candles/BTC-USD_1m_kraken_2023-03.parquet'))
    filled = list(
        read_candles(shared / 'data/canonical/candles/BTC-USD_1m_kraken_2023-03.parquet', absent='empty')
    )
    assert len(holes) == 30_179 and not any(c.is_empty for c in holes)
    assert len(filled) == (holes[-1].start_ms - holes[0].start_ms) // 60_000 + 1
    assert sum(c.is_empty for c in filled) == len(filled) - len(holes)


def test_several_symbols_come_in_the_order_of_time(tmp_path):
    n, start = 50, 1_700_000_000_000
    table = pa.table(
        {
            'symbol': ['A/USD'] * n + ['B/USD'] * n,
            'trade_id': list(range(n)) * 2,
            'price': ['1.50'] * 2 * n,
            'quantity': ['2'] * 2 * n,
            'side': ['buy'] * 2 * n,
            'event_ms': [start + 100 * i for i in range(n)] + [start + 100 * i + 50 for i in range(n)],
        }
    )
    pq.write_table(table, tmp_path / 'two.parquet')
    times = [t.event_ms for m in read_trades(tmp_path / 'two.parquet') for t in m.trades]
    assert times == sorted(times) and len(times) == 2 * n
    assert sum(len(m.trades) for m in read_trades(tmp_path / 'two.parquet', ['b/usd'])) == n


@pytest.mark.parametrize(
    ('column', 'value', 'words'),
    [
        ('event_ms', 1_700_000_000, 'look like seconds'),
        ('event_ms', 1_700_000_000_000_000, 'microseconds'),
        ('price', '0', 'positive'),
        ('price', '-1', 'positive'),
        ('price', 'NaN', 'positive'),
        ('quantity', 'x', 'decimal number'),
        ('side', 'hold', 'buy or sell'),
        ('symbol', 'BITCOIN', 'a pair such as'),
    ],
)
def test_a_wrong_row_is_named(tmp_path, column, value, words):
    row = {
        'symbol': 'BTC/USD',
        'trade_id': 1,
        'price': '1',
        'quantity': '1',
        'side': 'buy',
        'event_ms': 1_700_000_000_000,
    }
    pq.write_table(pa.Table.from_pylist([row, row | {column: value}]), tmp_path / 'f.parquet')
    with pytest.raises(ValueError, match=rf'f\.parquet, row 2, column {column}: .*{words}'):
        list(read_trades(tmp_path / 'f.parquet'))


def test_a_damaged_line_of_a_recording_is_kept_for_replay(tmp_path):
    good = '{"channel":"heartbeat"}'
    (tmp_path / 'r.jsonl').write_text(
        '\n'.join(
            [
                json.dumps({'t': 1762796304.5, 'raw': good}),
                good,
                good[:9],
                '',
                json.dumps({'t': 1762796304500, 'raw': good}),
            ]
        )
    )
    assert list(read_frames(tmp_path / 'r.jsonl')) == [
        (1762796304500, good.encode()),
        (None, good.encode()),
        (None, good[:9].encode()),
        (1762796304500, good.encode()),
    ]


def test_a_damaged_or_empty_file(tmp_path):
    (tmp_path / 'cut.parquet').write_bytes(b'PAR1' + b'\0' * 50)
    (tmp_path / 'empty.csv').write_bytes(b'')
    for name, words in (('cut.parquet', 'damaged Parquet'), ('empty.csv', 'the file is empty')):
        with pytest.raises(ValueError, match=words):
            file_kind(tmp_path / name)
