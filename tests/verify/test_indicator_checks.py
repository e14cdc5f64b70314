"""`verify indicators`: right on anyone's file, and it finds planted defects."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from crypto_rt.features.definition import Feature
from crypto_rt.features.indicators import indicators_of
from crypto_rt.features.table import FEATURES, WARM_UP, FeatureTable
from crypto_rt.store.open import candles_before
from crypto_rt.verify import indicators as checks
from crypto_rt.verify.indicators import (
    by_symbol,
    compare_series,
    look_aheads,
    value_differences,
    verify_indicators,
)
from tests.features.builders import walk

SMALL = FeatureTable(
    [f for f in FEATURES if f.name in ('log_return_1', 'sma_gap_20', 'slope_20', 'stochastic_k', 'rsi_14')]
)


def with_row(**fields) -> FeatureTable:
    row = Feature(
        name='planted',
        family='trend',
        warm_up=1,
        low=-math.inf,
        high=math.inf,
        flat=None,
        tolerance='bits',
        inputs=('close',),
        meaning='a defect',
        function=lambda x: 0.0,
    )
    return FeatureTable([*SMALL.features, row._replace(**fields)])


def csv_of(candles, path):
    path.write_text(
        ''.join(
            f'{c.start_ms // 1000},{c.open},{c.high},{c.low},{c.close},{c.volume},{c.trade_count}\n'
            for c in candles
        )
    )
    return path


@pytest.fixture(scope='module')
def candles():
    return walk(900, 31, wild=True)


def test_a_file_with_a_hole_and_repeats_passes(tmp_path, candles):
    file = csv_of([*candles[:300], *candles[340:700], *candles[200:300]], tmp_path / 'BTCUSD_1.csv')
    figures = verify_indicators(file, 97, ['BTC/USD'])
    assert figures['ok'] and figures['candles'] == 660 and figures['holes'] == 1
    assert (
        figures['restarts'] == 6
        and figures['values'] > 15_000
        and figures['bits_mismatched'] == figures['peeks_mismatched'] == 0
    )
    assert (
        figures['worst_relative_error'] == 0
        and figures['futures_replaced'] == 6
        and figures['pasts_changed'] == 0
    )
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize('every', [1, 7, 500, 10_000])
def test_any_length_of_a_life(candles, every):
    part = candles[:60] if every == 1 else candles[:520]
    figures = compare_series(part, every, SMALL)
    assert figures['restarts'] == (len(part) - 1) // every
    assert not figures['differing'] and not figures['peeks_mismatched'] and not figures['pasts_changed']


def test_two_symbols_are_kept_apart(candles):
    other = [
        msgspec.structs.replace(c, symbol='ETH/USD', open=c.close, high=c.close, low=c.close)
        for c in candles[:120]
    ]
    for part in (candles[:120], other):
        assert not compare_series(part, 50, SMALL)['differing']


def test_state_that_candles_do_not_tell_is_found(candles):
    total = [0.0]

    def cumulative(x):
        total[0] += x.volume[-1]
        return total[0]

    figures = compare_series(candles[:300], 97, with_row(function=cumulative, inputs=('volume',)))
    assert (
        figures['bits_mismatched']
        and figures['peeks_mismatched']
        and figures['pasts_changed']
        and list(figures['differing']) == ['planted']
    )


def test_a_window_longer_than_what_is_stored_is_found(candles, monkeypatch):
    figures = compare_series(candles[:300], 97, with_row(function=lambda x: float(len(x.close))))
    assert not figures['differing']  # 1,500 candles are restored, and the file has fewer
    true = candles_before
    monkeypatch.setattr(checks, 'candles_before', lambda *place: true(*place, last=250))
    figures = compare_series(candles, 97, SMALL)
    assert set(figures['differing']) == {'rsi_14'} and figures['differing']['rsi_14']['nulls'] > 0


def test_a_handle_opened_on_too_few_candles_is_found(candles, monkeypatch):
    "The warm-up of RSI would have to be 400; here it claims 20."
    table = FeatureTable([f._replace(warm_up=20) if f.name == 'rsi_14' else f for f in SMALL.features])
    true = candles_before
    monkeypatch.setattr(checks, 'candles_before', lambda *place: true(*place, last=40))
    figures = compare_series(candles, 97, table)
    assert figures['bits_mismatched'] > 500 and list(figures['differing']) == ['rsi_14']


def test_a_batch_that_looks_one_candle_ahead_is_found(candles, monkeypatch):
    def ahead(rows, table):
        told = indicators_of(rows, table)
        nexts = [*[x.values['log_return_1'] for x in told[1:]], 0.0]
        return [
            msgspec.structs.replace(x, values=x.values | {'log_return_1': after})
            for x, after in zip(told, nexts, strict=True)
        ]

    monkeypatch.setattr(checks, 'indicators_of', ahead)
    figures = compare_series(candles[:300], 97, SMALL)
    assert figures['pasts_changed'] == figures['futures_replaced'] and figures['bits_mismatched'] > 100


def test_a_batch_that_is_scaled_by_its_whole_series_is_found(candles, monkeypatch):
    def scaled(rows, table):
        told = indicators_of(rows, table)
        most = max(abs(x.values['sma_gap_20'] or 0) for x in told) or 1
        return [
            msgspec.structs.replace(x, values=x.values | {'sma_gap_20': (x.values['sma_gap_20'] or 0) / most})
            for x in told
        ]

    monkeypatch.setattr(checks, 'indicators_of', scaled)
    assert look_aheads(candles[:300], scaled(candles[:300], SMALL), table=SMALL)['pasts_changed']


def test_last_digits_count_in_their_class_only(candles):
    straight = indicators_of(candles[:120], SMALL)
    other = [
        msgspec.structs.replace(x, values={n: v and math.nextafter(v, 9) for n, v in x.values.items()})
        for x in straight
    ]
    found = value_differences(straight, other, SMALL)
    assert (
        set(found['differing']) == {'log_return_1', 'sma_gap_20'}
        and 0 < found['worst_relative_error'] < 1e-12
    )
    other = [
        msgspec.structs.replace(
            x, values=x.values | {'slope_20': x.values['slope_20'] and x.values['slope_20'] * (1 + 1e-6)}
        )
        for x in straight
    ]
    assert list(value_differences(straight, other, SMALL)['differing']) == ['slope_20']


def test_what_cannot_be_checked_is_said(tmp_path, candles):
    file = csv_of(candles[:50], tmp_path / 'BTCUSD_1.csv')
    with pytest.raises(ValueError, match='--restart-every must be 1 or more candles, was 0'):
        verify_indicators(file, 0)


def test_command_line(tmp_path, candles, capsys):
    from apps.cli import main

    file = csv_of(candles[:150], tmp_path / 'BTCUSD_1.csv')
    assert (
        main(
            ['verify', 'indicators', '--candles', str(file), '--symbols', 'BTC/USD', '--restart-every', '40']
        )
        == 0
    )
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures['ok'] and figures['restarts'] == 3 and figures['symbols'] == ['BTC/USD']
    assert main(['verify', 'indicators']) not in (0, None)
    assert '--candles' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['BTC-USDT_1m_2024-07-26', 'BTC-USD_1m_kraken_2023-03'])
def test_slices_of_real_candles(shared, name):
    "Whole files take a minute each: `crypto-rt verify indicators --candles F --restart-every 97`."
    (found,) = by_symbol(shared / 'data/canonical/candles' / f'{name}.parquet').values()
    figures = compare_series(found[5000 : 5000 + 2 * WARM_UP + 1200], 97)
    assert figures['values'] > 60_000 and figures['restarts'] >= 20
    assert not figures['differing'] and not figures['peeks_mismatched'] and not figures['pasts_changed']
