"""The sequence of a symbol's trade ids: what is a new book of the exchange, and what is only a repeated trade."""

import pytest

from crypto_rt.core.messages import Trade
from crypto_rt.market.sequence import EPOCH_IDS, TradeSequence

START = 1_762_776_000_000


def trades(*ids: int) -> list[Trade]:
    return [
        Trade(trade_id=n, price='1', quantity='1', side='buy', order_type='limit', event_ms=START + 100 * n)
        for n in ids
    ]


@pytest.mark.parametrize('lost', [[88], [88, 89], [100], []])
def test_what_came_before_the_beginning_is_no_new_book_when_it_comes_again(lost):
    "REST repeats, after it has filled a hole, trades that came before the first id was settled."
    sequence = TradeSequence()
    numbered, resets = sequence.number(trades(*(n for n in range(87, 123) if n not in lost)))
    sequence.take(numbered)
    sequence.ids.begin()
    for again in (trades(*lost), trades(*range(87, 123)), trades(*range(90, 130))):
        numbered, found = sequence.number(again)
        resets += found
        sequence.take(numbered)
    assert resets == [] and sequence.contiguous_id == 129 and sequence.newest_ms == START + 12_900


def test_an_id_that_goes_back_while_time_goes_on_is_a_new_book():
    sequence = TradeSequence()
    sequence.take(sequence.number(trades(*range(87, 123)))[0])
    sequence.ids.begin()
    later = Trade(
        trade_id=1, price='1', quantity='1', side='buy', order_type='limit', event_ms=START + 60_000
    )
    assert [reset.epoch for reset in sequence.number([later])[1]] == [1]


def test_a_reset_tells_the_newest_id_before_it_though_it_comes_in_the_same_batch():
    sequence = TradeSequence(100)
    batch = trades(101, 102) + [
        Trade(trade_id=3, price='1', quantity='1', side='buy', order_type='limit', event_ms=START + 60_000)
    ]
    _, (reset,) = sequence.number(batch)
    assert (reset.before_id, reset.first_id) == (102, 3 + EPOCH_IDS)
