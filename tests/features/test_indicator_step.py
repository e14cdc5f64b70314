"""Candles that are bad, missing, revised or repeated, and the step that starts from the store and the topic."""

from __future__ import annotations

import msgspec
import pytest

from crypto_rt.bus.steps import Out, Received
from crypto_rt.core.messages import decode, encode
from crypto_rt.features.indicators import Indicators, indicators_of
from crypto_rt.features.table import WARM_UP
from crypto_rt.services.indicators import IndicatorStep
from crypto_rt.store.open import candles_before
from tests.features.builders import START, _wild, candle, walk


@pytest.mark.parametrize(
    'bad',
    [
        dict(low='0'),
        dict(high='1'),
        dict(buy_volume='9'),
        dict(interval_seconds=300),
        dict(start_ms=START + 7),
    ],
)
def test_bad_candle_is_refused_and_changes_nothing(bad):
    candles = walk(60, 3)
    state, twin = Indicators('BTC/USD', 60, candles[:50]), Indicators('BTC/USD', 60, candles[:50])
    with pytest.raises(ValueError, match='expected'):
        state.update(msgspec.structs.replace(candles[50], **bad))
    assert [state.update(c) for c in candles[50:]] == [twin.update(c) for c in candles[50:]]


def test_hole_resets_empty_does_not_and_repeats_are_ignored():
    candles = walk(40, 3)
    state = Indicators('BTC/USD', 60)
    assert state.update(candles[0]).warm_up == WARM_UP - 1
    assert state.update(candles[0]) is None
    c = float(candles[0].close)
    assert state.update(candle(1, c, h=c, l=c, c=c, v=0, trade_count=0)).warm_up == WARM_UP - 2
    assert state.update(candles[5]).warm_up == WARM_UP - 1
    assert state.update(candles[3]) is None


@pytest.mark.parametrize('back', [0, 1, 100])
def test_revision_equals_a_history_that_always_had_it(back):
    candles, _ = _wild()
    at = 2000
    state = Indicators('BTC/USD', 60, candles[: at - 5])
    for c in candles[at - 5 : at + 1]:
        state.update(c)
    o = candles[at - back]
    late = msgspec.structs.replace(
        o, revision=1, high=f'{float(o.high) * 1.01:.8f}', volume='7700000000', buy_volume='1'
    )
    clean = [*candles[: at - back], late, *candles[at - back + 1 :]]
    assert state.update(late) == Indicators('BTC/USD', 60, clean[: at - back]).update(late)
    assert state.update(candles[at + 1]) == Indicators('BTC/USD', 60, clean[: at + 1]).update(candles[at + 1])
    assert state.update(late) is None


def test_unknown_order_flow_is_null():
    quiet = [
        msgspec.structs.replace(c, source='exchange', buy_volume='0', trade_count=0) for c in walk(30, 3)
    ]
    values = indicators_of(quiet)[-1].values
    assert [
        n
        for n, v in values.items()
        if v is None and n in ('order_flow_imbalance', 'trade_intensity', 'volume_ratio_20')
    ] == ['order_flow_imbalance', 'trade_intensity']


def test_step_recovers_with_equal_outputs_and_buries_the_undecodable():
    candles, vectors = _wild()
    messages = [
        Received(key='BTC/USD', value=encode(c), topic='candles', partition=0, offset=i)
        for i, c in enumerate(candles)
    ]
    step = IndicatorStep(lambda first, *place: [c for c in candles if c.start_ms < first.start_ms][-1500:])
    first = list(step.take(messages[1700:1720]))
    assert list(step.take(messages[1710:1720])) == first[10:]  # read again after a rebalance
    assert list(step.take(messages[1900:1905])) == [
        Out('technical_indicators', 'BTC/USD', encode(v)) for v in vectors[1900:1905]
    ]
    (dead,) = step.take([Received(key='BTC/USD', value=b'{', topic='candles', partition=0, offset=1905)])
    assert (
        dead.topic == 'dead_letters' and decode('dead_letters', dead.value).id == 'indicators/candles/0/1905'
    )


def test_warm_start_from_the_store_and_the_topic(tmp_path):
    "What the store has, and what only the topic has yet, together make a restart exact."
    from crypto_rt.core.settings import DataSettings, Settings
    from crypto_rt.store.open import open_feature_store, open_group

    candles, vectors = _wild()
    config = Settings(data=DataSettings(directory=str(tmp_path)))
    assert candles_before(config, 'BTC/USD', 60, candles[0].start_ms) == []
    store = open_feature_store(config)
    group = open_group(store, 'candles')
    group.insert(candles[:2400])
    group.flush()
    store.close()
    found = candles_before(
        config, 'BTC/USD', interval_seconds=60, before_ms=candles[2500].start_ms, behind=candles[2300:]
    )
    assert found == candles[1000:2500]
    again = Indicators('BTC/USD', 60, found)
    assert [again.update(c) for c in candles[2500:2600]] == vectors[2500:2600]


def test_a_revision_tells_all_features_that_it_changes():
    from msgspec import structs

    candles = walk(300, 5)
    late = structs.replace(
        candles[290], revision=1, close=candles[290].high, available_ms=candles[292].available_ms + 7
    )
    true = [*candles[:290], late, *candles[291:]]
    told = {}
    step = IndicatorStep(lambda first, *place: [])
    stream = [*candles[:293], late, *candles[293:]]
    for out in step.take(
        [
            Received(key=c.symbol, value=encode(c), topic='candles', partition=0, offset=i)
            for i, c in enumerate(stream)
        ]
    ):
        x = decode(out.topic, out.value)
        assert x.start_ms not in told or x.revision > told[x.start_ms].revision
        told[x.start_ms] = x
    assert [told[c.start_ms].values for c in true] == [x.values for x in indicators_of(true)]
    assert [told[c.start_ms].revision for c in true[288:]] == [0, 0, 1, 1, 1, *[0] * 7]
    assert told[candles[292].start_ms].available_ms == late.available_ms
