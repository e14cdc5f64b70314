"""Kraken's frames and replies, as they were recorded."""

import json
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt.core.amounts import plain_decimal
from crypto_rt.core.messages import Trade, Trades, decode, encode
from crypto_rt.core.symbols import normalise_symbol
from crypto_rt.market.kraken.answers import parse_asset_pairs
from crypto_rt.market.kraken.frames import (
    decode_trade_frame,
    decode_trade_frame_python,
    parse_rest_ohlc,
    parse_rest_trades,
    read_frame,
)
from tests.repeat import many

KINDS = {
    'status': 'status',
    'subscribe_ack': 'ack',
    'heartbeat': 'heartbeat',
    'pong': 'pong',
    'method_error': 'error',
    'trade_update': 'trade',
    'trade_snapshot': 'trade',
    'ticker_update': 'ticker',
    'ticker_snapshot': 'ticker',
}


def test_every_recorded_frame_is_read_on_purpose(shared):
    lines = [
        json.loads(line)
        for line in (shared / 'data/kraken-ws-v2/frames_recorded_by_others.jsonl').read_text().splitlines()
    ]
    seen = Counter()
    for line in lines:
        frame = read_frame(line['raw'].encode())
        expected = KINDS.get(line['kind'], 'other')
        if line['kind'] in ('subscribe_error', 'method_error'):
            expected = 'nack' if json.loads(line['raw'])['method'] == 'subscribe' else 'error'
        assert frame.kind == expected, line
        assert frame.kind != 'trade' or (
            frame.trades and frame.snapshot == (line['kind'] == 'trade_snapshot')
        )
        seen[frame.kind] += 1
    assert seen == {
        'status': 5,
        'ack': 9,
        'nack': 5,
        'error': 1,
        'heartbeat': 2,
        'pong': 1,
        'trade': 8,
        'ticker': 3,
        'other': 10,
    }
    assert sum(seen.values()) == len(lines) == 44


def test_the_replies_of_rest(shared):
    folder = shared / 'data/kraken-rest'
    trades, last, bad = parse_rest_trades((folder / 'nautilus_http_trades.json').read_bytes(), 'BTC/USDT')
    assert bad == []
    assert len(trades) == 1000 and last == '1762820035982277754'
    assert [t.trade_id for t in trades] == list(range(10218208, 10219208))
    candles, last_ms = parse_rest_ohlc((folder / 'nautilus_http_ohlc.json').read_bytes(), 'BTC/USDT', 60)
    assert len(candles) == 720 and last_ms == 1762820160000 == candles[-1].start_ms
    assert sum(c.is_empty for c in candles) == sum(c.trade_count == 0 for c in candles) == 215
    pairs = parse_asset_pairs((folder / 'cryptofeed_AssetPairs_20210417.json').read_bytes())
    assert {'BTC/USD', 'ETH/BTC', 'DOGE/EUR'} <= set(pairs)
    with pytest.raises(ConnectionError, match='7 columns'):
        parse_rest_trades((folder / 'xchange_example-trades-data.json').read_bytes())


def test_names_without_a_slash_are_cut_as_asset_pairs_says(shared):
    raw = json.loads((shared / 'data/kraken-rest/cryptofeed_AssetPairs_20210417.json').read_text())['result']
    wrong = {
        key
        for key, pair in raw.items()
        if 'wsname' in pair
        for name in (key, pair['altname'])
        if normalise_symbol(name) != normalise_symbol(pair['wsname'])
    }
    assert wrong == set()


amounts = st.builds(
    lambda whole, decimals, form: form.format(Decimal(f'{whole}.{decimals}')),
    st.integers(0, 10**12),
    st.text('0123456789', min_size=1, max_size=12),
    st.sampled_from(['{}', '{:f}', '{:.14e}']),
).filter(lambda text: Decimal(text) > 0 and Decimal(text).normalize().as_tuple().exponent >= -12)
items = st.fixed_dictionaries(
    {
        'symbol': st.sampled_from(['BTC/USD', 'ETH/BTC', 'DOGE/EUR', '1INCH/USD']),
        'side': st.sampled_from(['buy', 'sell']),
        'ord_type': st.sampled_from(['limit', 'market']),
        'trade_id': st.integers(0, 2**53),
        'micros': st.integers(10**15, 4 * 10**15),
    }
)


def frame_of(rows, kind='update'):
    from datetime import UTC, datetime, timedelta

    parts = []
    for row, price, quantity in rows:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row['micros'])
        parts.append(
            f'{{"symbol":"{row["symbol"]}","side":"{row["side"]}","price":{price},"qty":{quantity},"ord_type":"{row["ord_type"]}",'
            f'"trade_id":{row["trade_id"]},"timestamp":"{at:%Y-%m-%dT%H:%M:%S.%fZ}"}}'
        )
    return f'{{"channel":"trade","type":"{kind}","data":[{",".join(parts)}]}}'.encode()


@settings(max_examples=many(200), deadline=None)
@given(st.lists(st.tuples(items, amounts, amounts), max_size=4))
def test_trades_are_decoded_exactly_and_alike_in_both_languages(rows):
    raw = frame_of(rows)
    found = decode_trade_frame_python(raw)
    assert found == [tuple(t) for t in decode_trade_frame(raw)]
    for (row, price, quantity), (symbol, trade_id, p, q, side, order_type, event_ms) in zip(
        rows, found, strict=True
    ):
        assert (Decimal(p), Decimal(q)) == (Decimal(price), Decimal(quantity))
        assert 'e' not in (p + q).lower() and not any('.' in text and text.endswith('0') for text in (p, q))
        assert (symbol, trade_id, side, order_type, event_ms) == (
            row['symbol'],
            row['trade_id'],
            row['side'],
            row['ord_type'],
            row['micros'] // 1000,
        )


GOOD = b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":1.5,"qty":2,"ord_type":"limit","trade_id":7,"timestamp":"2026-09-25T17:48:26.844359Z"}]}'


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (b'1.5', b'0'),
        (b'1.5', b'-1'),
        (b'1.5', b'NaN'),
        (b'1.5', b'"x"'),
        (b'1.5', b'1e-13'),
        (b'1.5', b'1e30'),
        (b'1.5', b'null'),
        (b'1.5', b'01'),
        (b'1.5', b'"1.5"'),
        (b'1.5', b'true'),
        (b'"limit"', b'""'),
        (b'"limit"', b'null'),
        (b':7,', b':9223372036854775808,'),
        (b'"qty":2', b'"qty":-1'),
        (b'"buy"', b'"hold"'),
        (b'"limit"', b'7'),
        (b':7,', b':-7,'),
        (b':7,', b':7.5,'),
        (b':7,', b':"7",'),
        (b'BTC/USD', b'BTCUSD'),
        (b'2026-09-25T17:48:26.844359Z', b'yesterday'),
        (b'2026-09-25', b'1970-09-25'),
        (b'T17', b'T25'),
        (b'"trade_id":7,', b''),
        (b'update', b'upset'),
        (b']}', b']'),
        (b']}', b']}x'),
    ],
)
def test_malformed_trades_are_refused_in_both_languages(old, new):
    assert decode_trade_frame_python(GOOD) == [tuple(t) for t in decode_trade_frame(GOOD)]
    bad = GOOD.replace(old, new)
    for reader in (decode_trade_frame_python, decode_trade_frame):
        with pytest.raises(ValueError):
            reader(bad)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ('symbol', 'side', 'price', 'qty', 'ord_type', 'trade_id', 'timestamp', 'new')


@settings(max_examples=many(200), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), JSON, st.booleans()), max_size=4))
def test_each_trade_of_a_frame_is_judged_alone(wounds):
    good = json.loads(GOOD)['data'][0]
    items = []
    for n, (field, value, without) in enumerate(wounds):
        item = good | {'trade_id': 100 + n, field: value}
        if without:
            del item[field]
        items.append(item)
    raw = json.dumps({'channel': 'trade', 'type': 'update', 'data': [good, *items, good]}).encode()
    frame = read_frame(raw)
    assert frame.kind == 'trade'
    assert len(frame.trades) + len(frame.bad_trades) == len(items) + 2
    assert frame.trades[0] == frame.trades[-1] == ('BTC/USD', 7, '1.5', '2', 'buy', 'limit', 1790358506844)
    for n, (field, _, _) in enumerate(wounds):
        if field in ('ord_type', 'new'):  # these only describe it
            assert 100 + n in [trade[1] for trade in frame.trades]
    for symbol, *fields in frame.trades:  # every message can hold what was taken
        message = Trades(symbol, [Trade(*fields)], 1790358506844, 'live')
        assert decode('trades', encode(message)) == message


@pytest.mark.parametrize('old', [b'"limit"', b'"update"'])
@pytest.mark.parametrize('new', [b'"iceberg"', b'"stop-loss"', b'""', b'null', b'7', b'{"a":[1]}'])
def test_words_that_nobody_has_seen_are_kept(old, new):
    frame = read_frame(GOOD.replace(old, new))
    assert (len(frame.trades), frame.bad_trades) == (1, [])
    if old == b'"limit"' and new[:1] == b'"':
        assert frame.trades[0][5] == json.loads(new)


@settings(max_examples=many(300), deadline=None)
@given(
    st.binary(max_size=200)
    | st.integers(0, len(GOOD)).map(lambda n: GOOD[:n])
    | st.text(max_size=50).map(str.encode)
)
def test_no_bytes_crash_the_reader(raw):
    try:
        read_frame(raw)
    except ValueError:
        pass
    try:
        parse_rest_trades(raw)
    except (ValueError, ConnectionError):
        pass


@given(st.decimals(0, 10**15, places=12, allow_nan=False))
def test_an_amount_keeps_its_value(number):
    assert Decimal(plain_decimal(str(number))) == number == Decimal(plain_decimal(number))
