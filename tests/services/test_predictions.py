"""Predictions: point in time, coverage, reasons to abstain, identity after a restart."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import TechnicalIndicators, decode, encode
from crypto_rt.core.settings import DataSettings, PredictionSettings, Settings
from crypto_rt.features.vectors import vector_of
from crypto_rt.models.predictions import (
    BASELINE_VERSION,
    conformal_width,
    feature_hash,
    predict,
    realised_log_returns,
)
from crypto_rt.models.registry import Distribution
from crypto_rt.services.context import ContextJoin, JoinedStep
from crypto_rt.services.predictions import Champions, Closes, PredictionStep

START = 1_722_470_400_000
SETTINGS = Settings()


def features(i: int, close: float, **other: object) -> TechnicalIndicators:
    at = START + i * 60_000
    fields = dict(
        symbol='BTC/USD',
        interval_seconds=60,
        start_ms=at,
        revision=0,
        end_ms=at + 60_000,
        close=close,
        values={'a': 1.0, 'b': None},
        warm_up=0,
        feature_set='core-v1',
        is_partial=False,
        available_ms=at + 62_000,
    )
    return TechnicalIndicators(**fields | other)


def walk(n: int, seed: int = 1) -> dict[int, float]:
    rng = np.random.default_rng(seed)
    prices = 30_000 * np.exp(np.cumsum(rng.standard_t(4, n) * 4e-4))
    return {START + i * 60_000: float(p) for i, p in enumerate(prices)}


def coverage(closes: dict[int, float], settings: Settings, every: int = 1) -> tuple[float, int]:
    "Share of realised log returns within the baseline's interval, and of how many."
    horizon, inside, n = settings.data.horizon_seconds * 1000, 0, 0
    step = settings.data.interval_seconds * 1000
    for at in list(closes)[settings.predictions.calibration_candles + horizon // step :: every]:
        after = closes.get(at + horizon)
        if after is None:
            continue
        x = features(
            0,
            closes[at],
            start_ms=at,
            end_ms=at + step,
            available_ms=at + step,
            interval_seconds=step // 1000,
        )
        p = predict(x, closes, None, settings)
        if p.status == 'baseline':
            n += 1
            inside += p.lower <= math.log(after / closes[at]) <= p.upper
    return inside / n, n


def test_baseline_covers_what_it_promises_on_a_random_walk():
    "Independent returns: binomial, so within 4 standard errors (0.0134 of 8,000) and the 1/(n+1) of the rank."
    settings = Settings(data=DataSettings(horizon_seconds=60))
    share, n = coverage(walk(8_510), settings)
    assert n > 7_900 and abs(share - 0.9) <= 4 * math.sqrt(0.09 / n) + 1 / 501, (share, n)


@pytest.mark.parametrize('level', [0.5, 0.8, 0.95])
def test_other_levels(level):
    settings = Settings(
        data=DataSettings(horizon_seconds=60),
        predictions=PredictionSettings(level=level, calibration_candles=100),
    )
    share, n = coverage(walk(4_000, 3), settings)
    assert abs(share - level) <= 4 * math.sqrt(level * (1 - level) / n) + 1 / 101, (share, n)


def test_baseline_on_real_candles(shared, record_property):
    "Real returns overlap and cluster, so only a wide band is asserted; the figure is recorded."
    import pyarrow.parquet as pq

    rows = pq.read_table(
        next((shared / 'data/canonical/candles').glob('BTC-USDT_1m_*.parquet')), columns=['start_ms', 'close']
    ).to_pylist()
    share, n = coverage({r['start_ms']: r['close'] for r in rows}, SETTINGS, every=7)
    record_property('coverage', share)
    assert 0.87 <= share <= 0.93 and n > 5_000, (share, n)


@given(st.lists(st.floats(-1, 1), max_size=200), st.floats(0.5, 0.99))
def test_width_is_the_smallest_that_the_rank_allows(errors, level):
    width = conformal_width(errors, level)
    rank = math.ceil((len(errors) + 1) * level - 1e-9)
    if width is None:
        assert rank > len(errors)
    else:
        assert sum(abs(e) <= width for e in errors) >= rank and sum(abs(e) < width for e in errors) < rank


@given(st.integers(520, 900))
def test_the_future_changes_nothing(at):
    closes = walk(1000)
    poisoned = {start: c if start <= START + at * 60_000 else 1e-9 for start, c in closes.items()}
    past = {start: c for start, c in closes.items() if start <= START + at * 60_000}
    x = features(at, closes[START + at * 60_000])
    assert (
        predict(x, closes, None, SETTINGS)
        == predict(x, poisoned, None, SETTINGS)
        == predict(x, past, None, SETTINGS)
    )


def test_holes_have_no_returns():
    closes = walk(600)
    del closes[START + 590 * 60_000]
    returns = realised_log_returns(
        closes, START + 599 * 60_000, interval_seconds=60, horizon_seconds=300, last=500
    )
    assert len(returns) == 498  # the one that ends there and the one that starts there


class Model:
    version, digest, feature_names, feature_set, level = 'm-1', 'd', ('a',), 'core-v1', 0.9

    def __init__(self, answer=(0.001, -0.002, 0.003)):
        self.answer = answer and Distribution(*answer)

    def distribution(self, values):
        return self.answer


def test_prediction_describes_itself():
    closes = walk(600)
    x = features(599, closes[START + 599 * 60_000])
    base, ok = (
        predict(x, closes, None, SETTINGS),
        predict(x, closes, model=Model(), settings=SETTINGS, made_at_ms=x.available_ms + 5),
    )
    assert (base.status, base.model_version, base.expected_log_return, base.lower) == (
        'baseline',
        BASELINE_VERSION,
        0.0,
        -base.upper,
    )
    assert (
        base.target_ms == base.expires_ms == x.end_ms + 300_000
        and base.flags == []
        and base.expected_price == x.close
    )
    assert (ok.status, ok.model_version, ok.lower, ok.upper) == ('ok', 'm-1', -0.002, 0.003)
    assert ok.expected_price == x.close * math.exp(0.001) and ok.trace == {
        'candle_ms': 2000,
        'predicted_ms': 5,
    }
    assert (
        base.feature_hash == ok.feature_hash == feature_hash(vector_of(x, None, ()))
        and base.model_digest != ok.model_digest
    )
    assert base.feature_set == ok.feature_set == ''  # the values are those of no set
    assert decode('predictions', encode(ok)) == ok


@pytest.mark.parametrize(
    ('change', 'model', 'now', 'reason'),
    [
        (dict(is_partial=True), None, 0, 'partial or unproven candle'),
        ({}, None, 181_001, 'stale input'),
        (dict(warm_up=3), Model(), 0, 'warming up: 3'),
        (dict(values={}), Model(), 0, 'features missing: a'),
        ({}, Model((math.nan, 0, 0)), 0, 'the model gave'),
        ({}, Model((0.0, 0.1, -0.1)), 0, 'the model gave'),
        ({}, Model(None), 0, 'the model failed: TypeError'),
        ({}, Model((0.0, -0.1, 0.1, (0.0, 0.1, 0.05, 0.2, 0.3, 0.4, 0.5))), 0, 'quantiles that rise'),
        ({}, Model((0.0, -0.1, 0.1, (0.0,) * 6 + (math.nan,))), 0, 'quantiles that rise'),
    ],
)
def test_abstains(change, model, now, reason):
    closes = walk(600)
    x = features(599, closes[START + 599 * 60_000], **change)
    p = predict(x, closes, model=model, settings=SETTINGS, made_at_ms=x.end_ms + now if now else None)
    assert p.status == 'abstain' and p.expected_log_return is p.lower is p.upper is p.expected_price is None
    assert len(p.reasons) == 1 and reason in p.reasons[0]


def test_short_calibration_is_flagged_and_too_short_abstains():
    closes = walk(30)
    assert predict(features(12, 1.0), closes, None, SETTINGS).status == 'abstain'
    p = predict(features(13, 1.0), closes, None, SETTINGS)
    assert p.status == 'baseline' and p.flags == ['short_calibration']


@given(st.dictionaries(st.text(min_size=1), st.none() | st.floats(allow_nan=False)))
def test_feature_hash_sees_every_bit_and_no_order(values):
    assert feature_hash(values) == feature_hash(dict(reversed(values.items())))
    for name, value in values.items():
        changed = 0.5 if value is None else float(np.nextafter(value, 0.5 if value != 0.5 else 1))
        assert feature_hash({**values, name: changed}) != feature_hash(values)


def joined(predictions: PredictionStep) -> JoinedStep:
    "Return the step behind a join that has nothing to join: every row is complete at once."
    return JoinedStep('predictions', ContextJoin(), predictions)


def step(closes, find=lambda *_: None, clock=None) -> JoinedStep:
    return joined(
        PredictionStep(
            SETTINGS,
            Closes(SETTINGS, lambda x, *place: {s: c for s, c in closes.items() if s < x.start_ms}),
            Champions(find),
            clock,
        )
    )


def test_step_gives_the_same_after_a_kill_and_across_a_moved_partition():
    closes = walk(3000)
    messages = [
        Received(
            key='BTC/USD',
            value=encode(features(i, closes[START + i * 60_000])),
            topic='technical_indicators',
            partition=0,
            offset=i,
        )
        for i in range(3000)
    ]
    never = step(closes)
    whole = list(never.take(messages[600:]))
    assert len(next(iter(never.step.closes.known.values()))[0]) <= 4 * 505 + 1
    repeated = [m._replace(offset=3000 + i) for i, m in enumerate(messages[2700:])]
    assert list(never.take(repeated)) == []  # the indicators' service came back and said it again
    for cut in (601, 1500, 2990):
        assert list(step(closes).take(messages[cut : cut + 5])) == whole[cut - 600 : cut - 595]
    away = step(closes)
    assert (
        list(away.take(messages[700:710])) + list(away.take(messages[900:910]))
        == whole[100:110] + whole[300:310]
    )
    (dead,) = step(closes).take(
        [Received(key='BTC/USD', value=b'[]', topic='technical_indicators', partition=1, offset=0)]
    )
    assert dead.topic == 'dead_letters'


def test_partitions_do_not_disturb_each_other():
    closes = walk(800)
    begun = []

    def history(x, partition, offset):
        begun.append((partition, offset))
        return {s: c for s, c in closes.items() if s < START + (offset + 600) * 60_000}

    it = joined(PredictionStep(SETTINGS, Closes(SETTINGS, history), Champions(lambda *_: None)))
    one = [
        Received(
            key='BTC/USD',
            value=encode(features(600 + i, closes[START + (600 + i) * 60_000])),
            topic='technical_indicators',
            partition=0,
            offset=i,
        )
        for i in range(200)
    ]
    other = [
        Received(
            key='ETH/USD',
            value=encode(features(600 + i, 1.0, symbol='ETH/USD')),
            topic='technical_indicators',
            partition=1,
            offset=i,
        )
        for i in range(2)
    ]
    alone = list(step(closes).take(one))
    assert (
        list(it.take(one[:100])) + [o for m in other for o in it.take([m])][:0] + list(it.take(one[100:]))
        == alone
    )
    assert begun == [(0, 0), (1, 0)]


def test_champion_is_asked_rarely_and_a_silent_registry_changes_nothing():
    now, answers = [0.0], iter([None, Model(), OSError('gone'), None])

    def find(*_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    champions, seen = Champions(find, clock=lambda: now[0]), []
    for now[0] in (0, 9, 10, 15, 20, 29, 30):
        model = champions.of('BTC/USD', 60)
        seen.append(model and model.version)
    assert seen == [None, None, 'm-1', 'm-1', 'm-1', 'm-1', None]


def test_only_a_live_clock_finds_input_stale():
    closes = walk(600)
    message = Received(
        key='BTC/USD',
        value=encode(features(599, closes[START + 599 * 60_000])),
        topic='technical_indicators',
        partition=0,
        offset=0,
    )
    (replayed,), (live,) = (
        step(closes).take([message]),
        step(closes, clock=lambda: START + 900 * 60_000).take([message]),
    )
    assert decode('predictions', replayed.value).status == 'baseline'
    assert 'stale' in decode('predictions', live.value).reasons[0]
    assert msgspec.json.decode(replayed.value)['made_at_ms'] == START + 599 * 60_000 + 62_000


def test_a_prediction_says_its_shape():
    "Quantiles around the expected return, a probability of a rise, and the volatility of an hour in per cent."
    closes = walk(600)
    x = features(599, closes[START + 599 * 60_000])
    base = predict(x, closes, None, SETTINGS)
    names = ['q05', 'q10', 'q25', 'q50', 'q75', 'q90', 'q95']
    cuts = [getattr(base, name) for name in names]
    assert cuts == sorted(cuts) and (base.q05, base.q95, base.q50) == (base.lower, base.upper, 0.0)
    assert base.probability_up == 0.5
    errors = realised_log_returns(closes, x.start_ms, interval_seconds=60, horizon_seconds=300, last=500)
    assert base.volatility == pytest.approx(100 * np.sqrt(np.mean(np.square(errors)) * 12))
    shaped = Model((0.001, -0.002, 0.003, (-0.002, -0.001, 0.0, 0.001, 0.002, 0.0025, 0.003), 0.0015))
    said = predict(x, closes, model=shaped, settings=SETTINGS)
    assert (said.q10, said.q75, said.probability_up) == (-0.001, 0.002, 0.75)
    assert said.volatility == pytest.approx(100 * 0.0015 * np.sqrt(12))
    old = predict(x, closes, model=Model(), settings=SETTINGS)
    assert old.status == 'ok' and old.q50 is old.probability_up is old.volatility is None
