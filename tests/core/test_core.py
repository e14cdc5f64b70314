"""The decoder of exchange frames: exact, and never more than a ValueError."""

from __future__ import annotations

import json
import random
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt._core import CandleFold, decode_trade_frame
from crypto_rt.core.times import rfc3339_ms
from tests.repeat import many

FRAME = (
    b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":63348.4,"qty":9.417e-05,'
    b'"ord_type":"limit","trade_id":104622323,"timestamp":"2026-08-02T05:43:39.154709Z"}]}'
)


def frame(**fields: object) -> bytes:
    trade = json.loads(FRAME)['data'][0] | fields
    return json.dumps({'data': [trade], 'type': 'snapshot', 'channel': 'trade'}).encode()


def test_a_frame_becomes_exact_rows() -> None:
    assert decode_trade_frame(FRAME) == [
        ('BTC/USD', 104622323, '63348.4', '0.00009417', 'sell', 'limit', 1785649419154)
    ]
    assert decode_trade_frame(b'{"channel":"trade","type":"snapshot","data":[]}') == []


@given(
    st.decimals(min_value=Decimal('1e-12'), max_value=Decimal(10) ** 20 - 1, places=12),
    st.sampled_from(['f', 'e', 'E']),
)
def test_amounts_are_taken_from_the_bytes(amount: Decimal, form: str) -> None:
    text = format(amount, form if form == 'f' else f'.40{form}')
    raw = FRAME.replace(b'63348.4', text.encode())
    price = decode_trade_frame(raw)[0][2]
    assert Decimal(price) == amount
    assert 'e' not in price.lower() and not ('.' in price and price.endswith('0'))


@given(st.datetimes(datetime(2002, 1, 1), datetime(2200, 1, 1)), st.integers(0, 999), st.integers(1, 9))
def test_timestamps_equal_python_s(instant: datetime, nanos: int, digits: int) -> None:
    text = f'{instant:%Y-%m-%dT%H:%M:%S}.' + f'{instant:%f}{nanos:03}'[:digits] + 'Z'
    assert decode_trade_frame(frame(timestamp=text))[0][6] == rfc3339_ms(text)


@pytest.mark.parametrize(
    'fields, why',
    [
        ({'price': 0}, 'price above 0'),
        ({'qty': -1}, 'qty that is not negative'),
        ({'price': '63348.4'}, 'expected price'),
        ({'price': float('nan')}, 'expected a value'),
        ({'trade_id': 1.5}, 'integer trade_id'),
        ({'side': 'hold'}, "side 'buy' or 'sell'"),
        ({'ord_type': 'stop'}, "ord_type 'limit' or 'market'"),
        ({'symbol': 'BTC-USD'}, 'a symbol such as BTC/USD'),
        ({'timestamp': '2026-08-02'}, 'expected a timestamp'),
        ({'timestamp': 1785649419}, 'expected a timestamp'),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_trade_frame(frame(**fields))


@settings(max_examples=many(500), deadline=None)
@given(
    st.binary(max_size=300)
    | st.lists(st.tuples(st.integers(0, len(FRAME) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_any_bytes_give_rows_or_a_value_error(damage: bytes | list[tuple[int, int]]) -> None:
    raw = bytearray(FRAME)
    for at, byte in [] if isinstance(damage, bytes) else damage:
        raw[at] = byte
    try:
        rows = decode_trade_frame(damage if isinstance(damage, bytes) else bytes(raw))
    except ValueError:
        return
    assert all(Decimal(row[2]) > 0 and Decimal(row[3]) >= 0 and row[1] >= 0 for row in rows)


def test_real_frames_are_read_or_refused_on_purpose(shared: Path) -> None:
    folder, trades = shared / 'data/kraken-ws-v2', 0
    for line in (folder / 'frames_recorded_by_others.jsonl').read_text().splitlines():
        raw = json.loads(line)['raw']
        try:
            content = json.loads(raw, parse_float=Decimal)
        except ValueError:
            content = {}
        if isinstance(content, dict) and content.get('channel') == 'trade' and 'data' in content:
            rows = decode_trade_frame(raw.encode())
            assert [(Decimal(r[2]), Decimal(r[3])) for r in rows] == [
                (t['price'], t['qty']) for t in content['data']
            ]
            trades += len(rows)
        else:
            with pytest.raises(ValueError, match='expected'):
                decode_trade_frame(raw.encode())
    assert trades > 5


def test_damaged_real_frames_give_rows_or_a_value_error(shared: Path) -> None:
    rng, taken = random.Random(5), 0
    lines = (shared / 'data/kraken-ws-v2/frames_recorded_by_others.jsonl').read_text().splitlines()
    for raw in (json.loads(line)['raw'].encode() for line in lines):
        for _ in range(50 * bool(raw)):
            damage = bytearray(raw)
            for _ in range(rng.randint(1, 3)):
                damage[rng.randrange(len(damage))] = (
                    rng.choice(b'{}[]":,.-eE0189 \\') if rng.random() < 0.7 else rng.randrange(256)
                )
            try:
                taken += len(
                    decode_trade_frame(
                        bytes(damage[: rng.randint(1, len(damage))] if rng.random() < 0.1 else damage)
                    )
                )
            except ValueError:
                pass
    assert taken > 10


def test_numbers_of_a_fold_are_checked() -> None:
    for bad in ((0,), (-5,), (60, -1), (60, 0, -1)):
        with pytest.raises(ValueError, match='must be from'):
            CandleFold(*bad)
