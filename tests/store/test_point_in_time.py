"""Joins by what was known at a time, against a brute-force oracle, and with mutations that must be seen."""

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_rt.features.table import FEATURE_NAMES
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.interface import known_at
from crypto_rt.store.open import open_group, training_view
from tests.repeat import many
from tests.store.builders import DAY, KEY, NOON, SCHEMA, candle, indicators

events = st.lists(
    st.tuples(
        st.sampled_from(['A/B', 'C/D']),
        st.integers(0, 8),
        st.integers(0, 2),
        st.integers(0, 12),
        st.one_of(st.none(), st.integers(0, 99).map(float)),
    ),
    max_size=25,
)


def rows_of(some):
    unique = {(s, start, revision): (known, value) for s, start, revision, known, value in some}
    return [
        dict(
            symbol=s,
            start_ms=NOON + start * DAY // 3,
            revision=r,
            available_ms=NOON + known * DAY // 3,
            value=v,
        )
        for (s, start, r), (known, v) in unique.items()
    ]


def oracle(left, right, as_of, start, end):
    "For each left row, scan all right rows."
    out = []
    for symbol, at in sorted({(row['symbol'], row['start_ms']) for row in left}):
        row = known_at([r for r in left if (r['symbol'], r['start_ms']) == (symbol, at)], as_of)
        if row and start <= at < end:
            found = known_at(
                [r for r in right if r['symbol'] == symbol], min(row['available_ms'], as_of)
            ) or dict(start_ms=None, value=None)
            out.append(
                (
                    symbol,
                    at,
                    row['revision'],
                    row['available_ms'],
                    row['value'],
                    found['start_ms'],
                    found['value'],
                )
            )
    return out


def plain(frame):
    return [
        tuple(None if pd.isna(v) else v for v in row) for row in frame.astype(object).itertuples(index=False)
    ]


@settings(max_examples=many(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    left=events,
    right=events,
    as_of=st.integers(0, 14),
    window=st.tuples(st.integers(0, 4), st.integers(4, 9)),
    cut=st.integers(0, 25),
    seal=st.integers(-1, 9),
)
def test_point_in_time_join_equals_brute_force(tmp_path_factory, left, right, as_of, window, cut, seal):
    left, right = rows_of(left), rows_of(right)
    store = EmbeddedStore(tmp_path_factory.mktemp('store'))
    groups = [
        store.get_or_create_feature_group(name, 1, primary_key=['symbol'], schema=SCHEMA)
        for name in ('l', 'r')
    ]
    view = store.get_or_create_feature_view(
        'v', 1, query=groups[0].select(['value']).join(groups[1].select(['value']), ['symbol'], 'r_')
    )
    for group, rows in zip(groups, (left, right), strict=True):
        for part in (rows[:cut], rows[cut:], rows[: cut // 2]):
            if part:
                group.insert(part)
            if seal >= 0:
                group.materialize(NOON + seal * DAY // 3)
    start, end, known = NOON + window[0] * DAY // 3, NOON + window[1] * DAY // 3, NOON + as_of * DAY // 3
    assert plain(view.get_batch_data(start, end, as_of=known)) == oracle(
        left, right, as_of=known, start=start, end=end
    )
    assert plain(view.get_batch_data(start, end)) == oracle(
        left, right, as_of=NOON + 99 * DAY, start=start, end=end
    )
    vector = view.get_feature_vector({'symbol': 'A/B'})
    newest = [known_at([r for r in rows if r['symbol'] == 'A/B'], NOON + 99 * DAY) for rows in (left, right)]
    assert vector.values == tuple(row and row['value'] for row in newest)
    store.close()


def mutate(monkeypatch, name, old, new):
    users = [
        m for key, m in list(sys.modules.items()) if key.startswith('crypto_rt.store') and hasattr(m, name)
    ]
    real = getattr(users[0], name)

    def changed(*arguments, **options):
        sql = real(*arguments, **options)
        assert old in sql
        return sql.replace(old, new)

    for module in users:
        monkeypatch.setattr(module, name, changed)


@pytest.mark.parametrize(
    'name, old, new',
    [
        ('batch_sql', '>= r0', '> r0'),
        ('newest_sql', '_rank = max(_rank)', '_rank = _rank OR 0 = max(_rank)'),
        ('latest_sql', 'DESC', 'ASC'),
        ('batch_sql', 'ASOF LEFT', 'ASOF'),
    ],
)
def test_a_wrong_join_is_seen(store, monkeypatch, name, old, new):
    groups = [
        store.get_or_create_feature_group(n, 1, primary_key=['symbol'], schema=SCHEMA) for n in ('l', 'r')
    ]
    left = rows_of(
        [('A/B', n, r, n + r, float(n + r)) for n in range(4) for r in range(2)] + [('C/D', 1, 0, 1, 1.0)]
    )
    right = rows_of(
        [('A/B', n, 0, n, float(n)) for n in range(4)] + [('A/B', 0, 1, 3, 50.0), ('A/B', 0, 2, 4, 60.0)]
    )
    for group, rows in zip(groups, (left, right), strict=True):
        group.insert(rows)
    view = store.get_or_create_feature_view(
        'v', 1, query=groups[0].select(['value']).join(groups[1].select(['value']), ['symbol'], 'r_')
    )
    expected = oracle(left, right, as_of=NOON + 99 * DAY, start=NOON, end=NOON + 9 * DAY)
    assert plain(view.get_batch_data(NOON, NOON + 9 * DAY)) == expected
    mutate(monkeypatch, name, old, new)
    assert plain(view.get_batch_data(NOON, NOON + 9 * DAY)) != expected


def test_the_training_view_holds_features_and_what_was_known_of_the_candle(store):
    view = training_view(store)
    open_group(store, 'technical_indicators').insert([indicators(n, n / 7) for n in range(50)])
    open_group(store, 'candles').insert(
        [candle(n) for n in range(50)] + [candle(7, revision=1, delay=9_000_000, volume='9')]
    )
    frame = view.get_batch_data(NOON, NOON + 50 * 60_000, equal=KEY)
    assert (
        len(frame) == 50
        and set(FEATURE_NAMES) <= set(frame)
        and (frame.candle_start_ms == frame.start_ms).all()
    )
    assert frame.candle_volume.tolist() == ['1.5'] * 50, 'a revision that came later is not known'
    features, labels = view.training_data(NOON, NOON + 50 * 60_000, equal=KEY)
    assert (
        features.dtypes.eq('float64').all()
        and labels.shape == (50, 0)
        and features.index.names == ['symbol', 'interval_seconds', 'start_ms']
    )
    vector = view.get_feature_vector(KEY)
    assert (
        dict(zip(vector.names, vector.values, strict=True))[FEATURE_NAMES[-1]] == 49 / 7
        and vector.event_ms['candle_'] == NOON + 49 * 60_000
    )
    assert view.get_feature_vector(KEY | {'symbol': 'ETH/USD'}).event_ms == {'': None, 'candle_': None}
    last = frame.iloc[-1]
    assert all(
        np.array_equal(value, last[name], equal_nan=False) or pd.isna(last[name])
        for name, value in zip(vector.names, vector.values, strict=True)
    )


def test_bitcoins_features_stand_beside_ethers(store):
    candles = open_group(store, 'candles')
    candles.insert(
        [candle(n, str(100 + n)) for n in range(5)] + [candle(n, '7', symbol='ETH/USD') for n in range(5)]
    )
    query = (
        candles.select(['close'])
        .filter(symbol='ETH/USD')
        .join(candles.select(['close']).filter(symbol='BTC/USD'), ['interval_seconds'], 'bitcoin_')
    )
    view = store.get_or_create_feature_view('pair', 1, query=query)
    assert view.get_batch_data(NOON, NOON + DAY)[['close', 'bitcoin_close']].values.tolist() == [
        ['7', str(100 + n)] for n in range(5)
    ]
    assert view.get_feature_vector(KEY | {'symbol': 'ETH/USD'}).values == ('7', '104')
