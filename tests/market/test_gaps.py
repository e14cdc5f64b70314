"""Gaps on record: what the feed tells of holes, late trades, new epochs, clocks and quotes."""

import base64

import msgspec
import pytest

from crypto_rt.core.messages import EPOCH_BITS, Dropped, Gap, Trade, Watermark, decode, encode
from crypto_rt.market.exchange import Frame
from crypto_rt.market.files.trades import read_frames, read_trades
from crypto_rt.market.kraken.frames import read_frame
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.market.watermark_clock import skew_of
from crypto_rt.services.trades import Recorder
from tests.market.builders import START, _line, frame, ids, messages, opened, trade

EPOCH = 1 << EPOCH_BITS


def states(outs):
    return [(m.first_missing, m.last_missing, m.state, m.found, m.revision) for m in messages(outs, Gap)]


# --- gaps on record


def test_a_hole_opens_and_is_filled_and_every_change_is_told():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    out = feed.take([frame([101]), frame([105]), frame([109])], START + 11_000)
    assert (
        states(out) == [(102, 104, 'open', 0, 0), (106, 108, 'open', 0, 0)] and messages(out, Watermark) == []
    )
    assert states(feed.take([frame([103, 104])], START + 11_500)) == []
    assert states(feed.take([frame([102])], START + 11_600)) == [(102, 104, 'filled', 3, 1)]
    out = feed.take_rest_page(
        'BTC/USD', trades=[trade(n) for n in range(101, 110)], is_last=True, here_ms=START + 12_000
    )
    assert states(out) == [(106, 108, 'filled', 3, 1)] and ids(out) == [106, 107, 108]
    assert len(messages(feed.take([], START + 12_100), Watermark)) == 1


def test_a_hole_of_the_exchange_is_declared_with_its_exact_range():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)))
    feed.take([frame([111])], START)
    out = feed.take_rest_page(
        'BTC/USD',
        trades=[trade(n) for n in (101, 102, 105, 106, 110, 111, 112)],
        is_last=True,
        here_ms=START,
    )
    latest = {m.first_missing: m for m in sorted(messages(out, Gap), key=lambda m: m.revision)}
    assert {(m.first_missing, m.last_missing) for m in latest.values() if m.state == 'exchange_hole'} == {
        (103, 104),
        (107, 109),
    }
    assert not feed.states['BTC/USD'].gaps.open and all(m.state != 'open' for m in latest.values())
    assert ids(feed.take([frame([108])], START)) == [108], 'should it come after all, it is taken'


def test_without_an_answer_a_gap_times_out_and_its_trades_stay_wanted(caplog):
    feed = opened(
        SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)), gap_timeout_seconds=10
    )
    feed.take([frame([105])], START)
    assert states(feed.take([], START + 9_000)) == []
    out = feed.take([], START + 10_001)
    assert (
        states(out) == [(101, 104, 'timed_out', 0, 1)]
        and len(messages(out, Watermark)) == 1
        and 'could not be had in time' in caplog.text
    )
    assert feed.rest_requests(START + 20_000) == [] and len(feed.rest_requests(START + 71_000)) == 1
    out = feed.take_rest_page(
        'BTC/USD', trades=[trade(n) for n in range(100, 106)], is_last=True, here_ms=START + 71_500
    )
    assert ids(out) == [101, 102, 103, 104] and states(out) == [(101, 104, 'filled', 4, 2)]
    assert feed.rest_requests(START + 200_000) == []


def test_the_time_out_waits_for_the_connection_and_for_progress():
    feed = opened(
        SymbolState('BTC/USD', TradeSequence(100, cursor_ms=START + 10_000)), gap_timeout_seconds=10
    )
    feed.take([frame([3000])], START)
    feed.take_rest_page(
        'BTC/USD', trades=[trade(n) for n in range(101, 1101)], is_last=False, here_ms=START + 9_000
    )
    assert states(feed.take([], START + 15_000)) == []
    feed.take([Frame('disconnected', text='gone')], START + 15_500)
    assert states(feed.take([], START + 60_000)) == []


def test_an_earlier_lifes_gap_goes_on_with_its_next_revision():
    record = Gap(
        symbol='BTC/USD',
        first_missing=102,
        last_missing=104,
        opened_ms=START,
        updated_ms=START,
        state='open',
        found=0,
        revision=3,
        epoch=0,
    )
    feed = opened(SymbolState('BTC/USD', TradeSequence(101, cursor_ms=START + 10_000)))
    feed.restore_gaps([record], START)
    assert states(feed.take([frame([105])], START + 20_000)) == [], 'it is on record already'
    assert states(feed.take([frame([102, 103, 104])], START + 20_000)) == [(102, 104, 'filled', 3, 4)]
    feed = opened(SymbolState('BTC/USD', TradeSequence(200)))
    feed.restore_gaps([record], START)
    assert states(feed.take([frame([201])], START + 20_000)) == [(102, 104, 'filled', 3, 4)], (
        'filled before the kill, told after it'
    )


# --- bad input


def test_a_book_that_begins_again_is_a_new_epoch():
    feed = opened(SymbolState('BTC/USD', TradeSequence(1000)))
    feed.take([frame([1001, 1002])], START + 400_000)
    out = feed.take([frame([5, 6], at=START + 200_000)], START + 400_000)
    assert ids(out) == [EPOCH + 5, EPOCH + 6] and feed.counts['epochs'] == 1
    (record,) = messages(out, Gap)
    assert (record.first_missing, record.last_missing, record.state, record.epoch) == (
        EPOCH,
        EPOCH + 4,
        'exchange_hole',
        1,
    )
    assert ids(
        feed.take([frame([1001, 1002, 7], snapshot=True), frame([7, 9], at=START + 200_100)], START + 400_000)
    ) == [EPOCH + 7, EPOCH + 9]
    assert feed.states['BTC/USD'].sequence.ids.gaps() == [(EPOCH + 8, EPOCH + 8)]
    out = feed.take_rest_page(
        'BTC/USD',
        trades=[trade(n, START + 200_000 + n) for n in range(5, 12)],
        is_last=True,
        here_ms=START + 400_000,
    )
    assert sorted(ids(out)) == [EPOCH + n for n in (8, 10, 11)]


def test_repeated_and_late_trades_are_no_new_epoch():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)))
    feed.take([frame(range(101, 151))], START + 100_000)
    feed.take([frame(range(101, 151), snapshot=True), frame([120]), frame([149, 150])], START + 100_000)
    assert feed.counts['epochs'] == 0 and feed.counts['duplicates'] == 53


@pytest.mark.parametrize('source', ['live', 'replay'])
def test_a_trade_from_the_future_is_put_aside_with_its_bytes(source):
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)), source)
    out = feed.take(
        [frame([101]), frame([102], at=START + 80_000), frame([103], at=START + 3_600_000)], START + 12_000
    )
    letters = [decode(o.topic, o.value) for o in out if o.topic == 'dead_letters']
    assert (
        ids(out) == [101]
        and [base64.b64decode(x.raw) for x in letters] == [b'{"raw":1}'] * 2
        and 'ahead of the clock' in letters[0].reason
    )
    assert (
        feed.clock.exchange_ms == START + 10_100
        and feed.counts['received'] == feed.counts['published'] + feed.counts['dead_letters'] == 3
    )
    assert messages(out, Dropped) == [Dropped('BTC/USD', 0, 2, START + 12_000)]


# --- clocks and quotes


def test_the_skew_is_measured_and_alarmed(caplog):
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)), 'live', max_skew_ms=5000)
    feed.clock.see_rest_time(skew_of(START, START + 1270, START + 1290))
    assert feed.counts['skew_ms'] == -780 and feed.counts['skew_alarms'] == 0
    feed.clock.see_rest_time(skew_of(START + 60_000, START, START))
    assert feed.counts['skew_ms'] == -780 and feed.counts['skew_alarms'] == 0, 'a leap needs a second witness'
    feed.clock.see_rest_time(skew_of(START + 60_000, START, START))
    assert feed.counts['skew_alarms'] == 1 and 'clock is 60500 ms behind' in caplog.text


def test_the_best_quotes_are_in_the_marks_until_the_connection_ends():
    feed = opened(SymbolState('BTC/USD', TradeSequence(100)))
    nack = read_frame(
        b'{"error":"Currency pair not supported BTC/USD","method":"subscribe","success":false,"symbol":"BTC/USD","req_id":2}'
    )._replace(channel='ticker')
    ticker = read_frame(
        b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1.40,"ask":0}]}'
    )
    (mark,) = messages(feed.take([nack, ticker, frame([101])], START + 20_000), Watermark)
    assert (mark.bid, mark.ask) == ('1.4', None) and not feed.refused, 'a refused ticker is harmless'
    feed.take([Frame('disconnected'), Frame('connected')], START + 21_000)
    assert not feed.quotes


# --- the recorder


def test_a_recording_is_read_back_whole_across_its_files(tmp_path):
    recorder = Recorder(tmp_path / 'r.jsonl', most_bytes=5_000)
    raws = [_line('BTC/USD', n).encode() for n in range(1, 101)]
    for n, raw in enumerate(raws):
        recorder([Frame('connected'), Frame('trade', raw)], START + n)
    recorder([Frame('bad', b'\xff{')], START)
    recorder.file.close()
    files = [tmp_path / f'r.jsonl.{n}' for n in range(1, len(list(tmp_path.iterdir())))] + [
        tmp_path / 'r.jsonl'
    ]
    assert len(files) > 3 and [f.stat().st_size < 6000 for f in files] == [True] * len(files)
    kept = [item for f in files for item in read_frames(f)]
    assert [raw for _, raw in kept[:-1]] == raws and [t for t, _ in kept[:-1]] == [
        START + n for n in range(100)
    ]
    told = [t for batch in read_trades(files[0]) for t in batch.trades]
    assert told == [
        Trade(trade_id=n, price='1.5', quantity='2', side='buy', order_type='limit', event_ms=START + 10 * n)
        for n in range(1, len(told) + 1)
    ]


def test_frames_of_any_shape_do_not_break_the_feed():
    for raw in (
        b'{"channel":"ticker","data":[{"symbol":"BTC/USD"}]}',
        b'{"channel":"trade","type":"update","data":[]}',
    ):
        assert messages(opened(SymbolState('BTC/USD', TradeSequence(1))).take([read_frame(raw)], START)) == []
    assert msgspec.json.decode(encode(Dropped('BTC/USD', 1, 0, START)))['type'] == 'dropped'
