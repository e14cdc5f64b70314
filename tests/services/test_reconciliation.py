"Our candles against those of others: real ones equal, every planted difference is found, and no excuse covers what it does not explain."

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.candles.aggregation import candles_of_trades
from crypto_rt.candles.comparison import FIELDS, Known, Sides, known_of, reconcile
from crypto_rt.market.files.candles import read_candles
from crypto_rt.market.files.trades import read_trades
from crypto_rt.market.kraken.frames import exchange_candle
from crypto_rt.verify.candles import verify_candles
from tests.repeat import many
from tests.services.builders import NOON, folded, trades_of

VERDICTS = ('compared', 'exact', 'explained', 'unexplained')


def kraken_minutes(shared):
    "Kraken's own minutes, and ours from its trades."
    folder = shared / 'data/kraken-rest'
    theirs = list(read_candles(folder / 'nautilus_http_ohlc.json'))
    return list(candles_of_trades(read_trades(folder / 'nautilus_http_trades.json'), 60, 2000)), theirs


# --- real data


def test_krakens_trades_equal_krakens_candles(here, shared):
    folder = shared / 'data/kraken-rest'
    result = verify_candles(here, folder / 'nautilus_http_trades.json', folder / 'nautilus_http_ohlc.json')
    assert (
        result['ok']
        and [result[name] for name in VERDICTS] == [411, 410, 1, 0]
        and result['reasons'] == {'cut_first': 1}
    )
    assert 'seen from trade 10218208 on' in result['evidence'][0]['evidence']


def test_trades_of_2024_equal_the_candles_of_somebody_else(here, shared):
    folder = shared / 'data/canonical'
    result = verify_candles(
        here,
        folder / 'trades/BTC-USDT_20240808T2354.parquet',
        folder / 'candles/BTC-USDT_1m_2024-07-26.parquet',
    )
    assert (
        result['ok']
        and [result[name] for name in VERDICTS] == [12, 10, 2, 0]
        and result['reasons'] == {'cut_first': 1, 'cut_last': 1}
    )


@pytest.mark.parametrize(
    'absent, exact, explained', [('hole', 2468, {'left_out': 1091}), ('empty', 3559, {})]
)
def test_a_quiet_market_with_its_empty_minutes(here, shared, absent, exact, explained):
    folder = shared / 'data/canonical'
    result = verify_candles(
        here,
        folder / 'trades/XRP-ETH_20191011.parquet',
        folder / 'candles/XRP-ETH_1m_20191011.parquet',
        absent,
    )
    assert result['ok'] and result['compared'] == 3560 and result['unexplained'] == 0
    assert (result['exact'], result['reasons']) == (exact, {'cut_first': 1, **explained}), (
        'the first minute is not known to be whole'
    )
    assert (
        sum(line['windows'] for line in result['evidence']) == result['explained']
        and result['evidence_left_out'] == 0
    )


def test_a_difference_in_any_field_of_any_minute_of_kraken_is_found(shared):
    ours, theirs = kraken_minutes(shared)
    sides = Sides(known_of(theirs, True), ends_ms=1_762_820_035_982)
    base = {m.start_ms: m for m in reconcile(ours, theirs, sides)}
    assert sides.known == Known(True, 1)
    by_start = {c.start_ms: c for c in theirs}
    for at in base:
        near = [c for c in ours if abs(c.start_ms - at) <= 60_000]
        for field in (*FIELDS, 'trade_count', 'vwap'):
            for planted in bent(by_start[at], field):
                around = [c for c in theirs if abs(c.start_ms - at) <= 60_000 and c.start_ms != at]
                verdict = next(m for m in reconcile(near, [*around, planted], sides) if m.start_ms == at)
                if base[at].verdict == 'exact':
                    assert verdict.verdict == 'unexplained' and field in verdict.evidence, (field, verdict)
                else:
                    assert verdict != base[at], (
                        field,
                        'the cut minute may be explained still, but its evidence tells',
                    )


def bent(candle, field):
    "The candle with one field a little higher, and a little lower."
    value = getattr(candle, field)
    if field == 'trade_count':
        return [
            msgspec.structs.replace(candle, trade_count=value + step) for step in (1, -1) if value + step >= 0
        ]
    step = 1e-8 if field == 'volume' else 0.1
    return [
        msgspec.structs.replace(candle, **{field: f'{float(value) + by:.8f}'})
        for by in (step, -step)
        if float(value) + by >= 0
    ]


def test_a_planted_difference_fails_the_verification_of_files(here, shared, tmp_path):
    folder = shared / 'data/canonical'
    frame = pd.read_parquet(folder / 'candles/BTC-USDT_1m_2024-07-26.parquet')
    row = frame.index[frame.start_ms == 1_723_161_600_000][0]
    for field in FIELDS:
        planted = frame.copy()
        planted.loc[row, field] += 0.01 * (-1 if field == 'low' else 1)
        planted.to_parquet(tmp_path / 'planted.parquet')
        result = verify_candles(
            here, folder / 'trades/BTC-USDT_20240808T2354.parquet', tmp_path / 'planted.parquet'
        )
        assert not result['ok'] and result['unexplained'] == 1
        assert (
            result['evidence'][0]['start'] == '2024-08-09T00:00:00Z'
            and field in result['evidence'][0]['evidence']
        ), 'and it is the first line'
    frame.drop(row).to_parquet(tmp_path / 'planted.parquet')
    result = verify_candles(
        here, folder / 'trades/BTC-USDT_20240808T2354.parquet', tmp_path / 'planted.parquet'
    )
    assert result['unexplained'] == 1 and result['evidence'][0]['evidence'] == 'they have no candle for it'


@hypothesis_settings(max_examples=many(60), deadline=None)
@given(
    first=st.integers(1, 30),
    last=st.integers(80, 119),
    hole=st.tuples(st.integers(31, 79), st.integers(1, 20)),
)
def test_what_we_do_not_have_is_explained_and_nothing_else(first, last, hole):
    theirs = [msgspec.structs.replace(c, source='exchange', is_partial=False) for c in folded(range(120))]
    lost = range(hole[0], min(hole[0] + hole[1], last))
    ours = folded([n for n in range(first, last + 1) if n not in lost])
    found = reconcile(ours, theirs, Sides(Known(counts=True), ends_ms=NOON + last * 7_300))
    assert all(m.verdict != 'unexplained' for m in found)
    touched = {(NOON + n * 7_300) // 60_000 * 60_000 for n in lost}
    whole = [m for m in found if m.verdict == 'exact']
    assert touched.isdisjoint(m.start_ms for m in whole)
    assert len(found) - len(whole) <= len(touched | {m.start_ms for m in found if m.reason == 'hole'}) + 2
    planted = (
        [msgspec.structs.replace(c, volume='99') if c.start_ms == whole[0].start_ms else c for c in theirs]
        if whole
        else theirs
    )
    assert sum(
        m.verdict == 'unexplained'
        for m in reconcile(ours, planted, Sides(Known(counts=True), ends_ms=NOON + last * 7_300))
    ) == bool(whole)


def test_a_hole_explains_only_as_many_trades_as_it_has():
    theirs = [msgspec.structs.replace(c, source='exchange', is_partial=False) for c in folded(range(120))]
    ours = folded([n for n in range(120) if not 40 <= n <= 41])
    more = [msgspec.structs.replace(c, trade_count=c.trade_count + 1) for c in theirs]
    assert not any(m.verdict == 'unexplained' for m in reconcile(ours, theirs, Sides(Known(counts=True))))
    assert any(m.reason == 'hole' for m in reconcile(ours, theirs, Sides(Known(counts=True))))
    assert not any(m.reason == 'hole' for m in reconcile(ours, more, Sides(Known(counts=True))))


def test_a_silence_longer_than_the_file_of_others_is_no_excuse_where_they_list_empty_minutes():
    ours = folded([0, 1, 60, 61])
    assert [c.is_partial or c.is_empty for c in ours]
    gap = [
        exchange_candle(
            'BTC/USD', 60, start_ms=NOON + n * 60_000, ohlc=('107',) * 4, volume='0', vwap='0', trade_count=0
        )
        for n in range(1, 7)
    ]
    found = reconcile(folded([0, 1, *range(2, 3), 60]), gap, Sides(Known(counts=True)))
    assert found and all(m.verdict != 'exact' or m.start_ms in {c.start_ms for c in gap} for m in found)


# --- words


def test_what_cannot_be_compared_is_an_error_that_says_why(here, tmp_path):
    pd.DataFrame(
        [dict(symbol='BTC/USD', **msgspec.structs.asdict(t)) for t in trades_of(range(20))]
    ).to_parquet(tmp_path / 't.parquet')
    pd.DataFrame(
        [dict(symbol='ETH/USD', start_ms=NOON + n * 60_000, **dict.fromkeys(FIELDS, 1.0)) for n in range(3)]
    ).to_parquet(tmp_path / 'c.parquet')
    with pytest.raises(
        ValueError, match=r'no symbol is in both: t.parquet has BTC/USD, c.parquet has ETH/USD'
    ):
        verify_candles(here, tmp_path / 't.parquet', tmp_path / 'c.parquet')
    with pytest.raises(ValueError, match='both --trades F and --candles F'):
        verify_candles(here, candles=tmp_path / 'c.parquet')
    with pytest.raises(ValueError, match='is a candles file'):
        verify_candles(here, tmp_path / 'c.parquet', tmp_path / 'c.parquet')


def test_files_without_names_take_the_name_of_the_other(here, tmp_path):
    rows = trades_of(range(200))
    pd.DataFrame([dict(symbol='XRP/ETH', **msgspec.structs.asdict(t)) for t in rows]).to_parquet(
        tmp_path / 't.parquet'
    )
    (tmp_path / 't.csv').write_text(
        ''.join(f'{t.event_ms / 1000:.4f},{t.price},{t.quantity}\n' for t in rows)
    )
    candles = [c for c in folded(range(200)) if not c.is_empty]
    (tmp_path / 'c.csv').write_text(
        ''.join(
            f'{c.start_ms // 1000},{c.open},{c.high},{c.low},{c.close},{c.volume},{c.trade_count}\n'
            for c in candles
        )
    )
    pd.DataFrame(
        [
            dict(symbol='LTC/EUR', start_ms=c.start_ms, **{f: float(getattr(c, f)) for f in FIELDS})
            for c in candles
        ]
    ).to_parquet(tmp_path / 'c.parquet')
    for trades, other, symbol in (
        ('t.parquet', 'c.csv', 'XRP/ETH'),
        ('t.csv', 'c.parquet', 'LTC/EUR'),
        ('t.csv', 'c.csv', 'BTC/USD'),
    ):
        result = verify_candles(here, tmp_path / trades, tmp_path / other)
        assert result['ok'] and result['symbols'] == [symbol] and result['exact'] == len(candles) - 1, (
            trades,
            other,
        )
