"""Candles of a frame of trades: the fold's, whatever the order of the rows."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from pandas.testing import assert_frame_equal

from crypto_rt.candles.aggregation import candles_of, candles_of_trades
from crypto_rt.core.messages import Trades
from crypto_rt.testing import START_MS, random_trades
from tests.repeat import many

HOUR = random_trades(60, seed=7)


@settings(max_examples=many(20), deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([60, 300, 3600]))
def test_a_frame_gives_the_folds_candles_in_any_order_of_its_rows(rng, interval: int) -> None:
    batch = Trades('BTC/USD', HOUR, START_MS, 'replay')
    expected = list(candles_of_trades([batch], interval, 2000))
    rows = [*HOUR, *rng.choices(HOUR, k=9)]
    rng.shuffle(rows)
    frame = candles_of(pd.DataFrame(map(asdict, rows)), interval)
    assert frame.start_ms.tolist() == [candle.start_ms for candle in expected]
    assert frame.volume.tolist() == [float(candle.volume) for candle in expected]
    assert frame.close.tolist() == [float(candle.close) for candle in expected]
    assert frame.is_partial.tolist() == [candle.is_partial for candle in expected]


def test_numbers_and_signs_are_as_good_as_text() -> None:
    text = pd.DataFrame(map(asdict, HOUR))
    numbers = text.astype({'price': float, 'quantity': float}).assign(
        side=text.side.map({'buy': 1, 'sell': -1})
    )
    assert_frame_equal(candles_of(numbers), candles_of(text))


def test_symbols_do_not_mix() -> None:
    text = pd.DataFrame(map(asdict, HOUR))
    both = pd.concat([text.assign(symbol='ETH/USD'), text.assign(symbol='ADA/USD')])
    found = candles_of(both)
    assert found.symbol.unique().tolist() == ['ADA/USD', 'ETH/USD']
    for symbol in ('ADA/USD', 'ETH/USD'):
        mine = found[found.symbol == symbol].reset_index(drop=True)
        assert_frame_equal(mine, candles_of(text, symbol=symbol))


@pytest.mark.parametrize(('column', 'value'), [('price', -1.0), ('price', float('nan')), ('side', 0)])
def test_what_is_no_trade_is_refused(column: str, value: object) -> None:
    frame = pd.DataFrame(map(asdict, HOUR)).astype({'price': float})
    frame[column] = value
    with pytest.raises(ValueError, match='expected'):
        candles_of(frame)
