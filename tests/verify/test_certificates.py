"""The certificate of serving: what was shown to the model is what the store holds, through restarts, and what is bent is found."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from msgspec import structs

from crypto_rt.core.messages import Candle
from crypto_rt.core.settings import DataSettings, Settings
from crypto_rt.features.indicators import indicators_of
from crypto_rt.features.vectors import FeatureRows, vector_of
from crypto_rt.models.predictions import predict
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.verify.serving import verify_serving
from tests.services.test_candle_replay import candles_file
from tests.system.test_system import Up, run

START = 1_722_470_400_000


def candle(symbol, minute, close, revision=0, late_ms=0):
    start, price = START + minute * 60_000, f'{close:.2f}'
    return Candle(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=revision,
        end_ms=start + 60_000,
        open=price,
        high=price,
        low=price,
        close=price,
        volume='2',
        quote_volume=f'{2 * close:.2f}',
        vwap=price,
        trade_count=3,
        buy_volume='1',
        first_trade_id=3 * minute,
        last_trade_id=3 * minute + 2,
        bid=None,
        ask=None,
        is_empty=False,
        is_partial=False,
        source='trades',
        available_ms=start + 62_000 + late_ms,
    )


@pytest.fixture
def served(tmp_path):
    "A store as the services would have left it: two symbols, 120 minutes, 240 predictions."
    settings = Settings(
        data=DataSettings(directory=str(tmp_path), symbols=('BTC/USD', 'ETH/USD'), horizon_seconds=300)
    )
    candles = {
        s: [candle(s, i, base * (1 + (7 * i % 11) / 500)) for i in range(120)]
        for s, base in (('BTC/USD', 60_000), ('ETH/USD', 3_000))
    }
    rows, leader = {s: indicators_of(each) for s, each in candles.items()}, FeatureRows()
    for row in rows['BTC/USD']:
        leader.take(row)
    made = [
        predict(
            x,
            {c.start_ms: float(c.close) for c in candles[s]},
            None,
            settings,
            vector=vector_of(x, leader.as_of(x.end_ms), ()),
        )
        for s, each in rows.items()
        for x in each
    ]
    store = open_feature_store(settings)
    for name, items in (
        ('candles', candles.values()),
        ('technical_indicators', rows.values()),
        ('predictions', [made]),
    ):
        open_group(store, name).insert([item for each in items for item in each])
    yield settings, store, candles, rows, made
    store.close()


def test_what_was_served_is_what_is_stored(served):
    figures = verify_serving(served[0])
    assert figures['ok'] and (
        figures['checked'],
        figures['mismatched'],
        figures['features_recomputed'],
        figures['went_without'],
    ) == (240, 0, 240, 0)
    assert verify_serving(served[0], ('ETH/USD',), START + 60_000 * 100)['checked'] == 20


def test_nothing_to_check_is_not_ok(tmp_path):
    figures = verify_serving(Settings(data=DataSettings(directory=str(tmp_path))))
    assert not figures['ok'] and figures['checked'] == 0


def test_a_value_that_was_changed_is_found(served):
    settings, store, _, rows, _ = served
    x = rows['ETH/USD'][70]
    open_group(store, 'technical_indicators').insert(
        [structs.replace(x, values=x.values | {'log_return_1': x.values['log_return_1'] + 1e-15})]
    )
    figures = verify_serving(settings)
    assert not figures['ok'] and (figures['mismatched'], figures['features_mismatched']) == (1, 1)
    assert '2024-08-01T01:10' in figures['mismatches'][0] and 'log_return_1' in figures['features_unlike'][0]


def test_a_leader_that_was_not_known_yet_is_found(served):
    settings, store, _, rows, _ = served
    x, future = (
        rows['ETH/USD'][70],
        rows['BTC/USD'][70],
    )  # of the same minute: known two seconds after its end
    peeked = vector_of(x, structs.replace(future, available_ms=x.end_ms), ())
    open_group(store, 'predictions').insert([predict(x, {}, None, settings, vector=peeked)])
    figures = verify_serving(settings)
    assert (figures['mismatched'], figures['features_mismatched']) == (1, 0)


def test_a_prediction_made_too_early_and_one_of_another_set_are_found(served):
    settings, store, _, rows, made = served
    open_group(store, 'predictions').insert(
        [
            structs.replace(made[-1], made_at_ms=rows['ETH/USD'][-1].available_ms - 1),
            structs.replace(made[-2], feature_set='core-v99'),
        ]
    )
    figures = verify_serving(settings)
    assert (
        figures['mismatched'] == 2
        and 'before the features' in figures['mismatches'][1]
        and 'core-v99' in figures['mismatches'][0]
    )


def test_a_revised_candle_leaves_the_first_prediction_certified(served):
    settings, store, candles, _, _ = served
    late = candle('BTC/USD', 119, 61_000, 1, late_ms=90_000)
    again = structs.replace(indicators_of([*candles['BTC/USD'][:-1], late])[-1], revision=1)
    open_group(store, 'candles').insert([late])
    open_group(store, 'technical_indicators').insert([again])
    figures = verify_serving(settings)
    assert figures['ok'] and figures['checked'] == 240, figures
    open_group(store, 'predictions').insert([predict(again, {}, None, settings)])
    figures = verify_serving(settings)
    assert figures['ok'] and figures['checked'] == 241, figures


def test_one_that_did_not_wait_is_compared_with_nothing_and_counted(served):
    settings, store, _, rows, _ = served
    open_group(store, 'predictions').insert(
        [predict(rows['ETH/USD'][70], {}, None, settings, late=('leader_late',))]
    )
    figures = verify_serving(settings)
    assert figures['ok'] and figures['went_without'] == 1


def test_served_equals_stored_through_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CRYPTO_RT_FEATURES_LEADER', 'BTC/USDT')
    file = candles_file(
        tmp_path / 'two.parquet', {'BTC/USDT': [*range(700)], 'ETH/USDT': [*range(300), *range(303, 700)]}
    )
    system = Up(
        tmp_path,
        '--source',
        'replay',
        '--file',
        file,
        '--speed',
        '40000',
        '--until-idle',
        '--log-level',
        'DEBUG',
    )
    killed, deadline = [], time.monotonic() + 120
    while system.process.poll() is None:
        assert time.monotonic() < deadline, system.said()[-3000:]
        time.sleep(1.5)
        for service in ('predictions', 'indicators'):
            started = re.findall(rf'{service} started as (\d+)', system.said())
            if started and int(started[-1]) not in killed and killed.count(0) < 6:
                killed += [int(started[-1]), 0]
                os.kill(killed[-2], signal.SIGKILL)
    assert system.process.wait() == 0, system.said()[-3000:]
    assert killed.count(0) >= 4
    figures = json.loads(run('verify', 'serving', '--data-dir', tmp_path / 'data').stdout.splitlines()[-1])
    assert figures['ok'] and (figures['checked'], figures['went_without']) == (1397, 0), figures
