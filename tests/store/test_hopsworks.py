"""The Hopsworks backend through the unmodified client: on the double, and with `-m hopsworks_live` on the cluster that HOPSWORKS_* names."""

import json
import os
import re
import time

import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Trade, Trades, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.store.conform import canonical_digest, to_frame
from crypto_rt.store.embedded.store import open_embedded_store
from crypto_rt.store.hopsworks import groups as hopsworks_store
from crypto_rt.store.hopsworks import view as hopsworks_views
from crypto_rt.store.hopsworks.client import bound_requests, disconnect, without_side_effects
from crypto_rt.store.hopsworks.groups import write_options
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.store.schema import FeatureDef
from crypto_rt.verify.backends import (
    MINUTE,
    NOON,
    SCHEMA,
    awkward_rows,
    fill_backend,
    symbols_of,
    verify_store,
)
from tests.store.builders import candle, indicators, prediction
from tests.store.hopsworks_double import Double

CLUSTER = {name: value for name, value in os.environ.items() if name.startswith('HOPSWORKS_')}
KEY = dict(symbol='BTC/USD', interval_seconds=60)
PLACES = [
    'double',
    *([pytest.param('cluster', marks=pytest.mark.hopsworks_live)] if 'HOPSWORKS_API_KEY' in CLUSTER else []),
]


@pytest.fixture(scope='module', params=PLACES)
def place(request, tmp_path_factory):
    "The double, or None on a cluster; the environment names it."
    before = dict(os.environ)
    double = None
    if request.param == 'double':
        double = Double(request.getfixturevalue('kafka_broker'), tmp_path_factory.mktemp('double'))
        os.environ.update(double.environment)
    yield double
    disconnect()
    os.environ.clear()
    os.environ.update(before)
    if double:
        double.close()
        assert double.cluster.unknown == []


@pytest.fixture(scope='module')
def verified(place):
    "What `crypto-rt verify store` says; it runs before a store is open, as a process has one connection."
    return verify_store(load_settings(), ['embedded', 'hopsworks'], 2)


@pytest.fixture(scope='module')
def store(verified, tmp_path_factory):
    store = open_feature_store(
        load_settings(
            store=dict(backend='hopsworks'), data=dict(directory=str(tmp_path_factory.mktemp('data')))
        )
    )
    yield store
    for made in [*store.views.values(), *store.groups.values()]:
        made.discard()
    store.close()


@pytest.fixture
def double(place, store):
    if place is None:
        pytest.skip('a cluster cannot be told to fail')
    yield place
    place.cluster.faults.clear()


def fresh(store, name, once=False):
    "Return a group of this test's own."
    return store.get_or_create_feature_group(
        f'{name}_{os.getpid()}', 1, primary_key=['symbol'], schema=SCHEMA, once=once
    )


def minutes(count, first=0, symbol='BTC/USD'):
    return [
        dict(
            symbol=symbol,
            start_ms=NOON + n * MINUTE,
            revision=0,
            available_ms=NOON + (n + 1) * MINUTE,
            value=n / 3,
            trades=n,
            flat=False,
            note=None,
        )
        for n in range(first, first + count)
    ]


# --- the same numbers


def test_verify_store_finds_both_backends_equal(verified):
    assert (
        verified['ok'] and verified['mismatched'] == [] and verified['backends'] == ['embedded', 'hopsworks']
    )
    assert verified['rows'] > 150 and verified['vectors_checked'] == 7 and verified['frames_checked'] == 6
    assert json.loads(json.dumps(verified))['sha256'] == verified['sha256']


@pytest.fixture(scope='module')
def sides(store, tmp_path_factory):
    embedded = open_embedded_store(tmp_path_factory.mktemp('embedded'))
    seeds, suffix = [7], f'm{os.getpid()}'
    yield [fill_backend('embedded', embedded, seeds, suffix), fill_backend('hopsworks', store, seeds, suffix)]
    embedded.close()


def batch(side, as_of=None):
    return canonical_digest(side.view.get_batch_data(NOON + 5 * MINUTE, NOON + 30 * MINUTE, as_of=as_of))


MUTATIONS = {
    'known at the same instant does not count': ('batch_sql', r'>= r(\d)', r'> r\1'),
    'the oldest known wins': ('batch_sql', r'_rank = max\(_rank\)', '_rank = min(_rank)'),
    'the first revision wins': ('batch_sql', r'ORDER BY "revision" DESC', 'ORDER BY "revision"'),
}


@pytest.mark.parametrize('name', MUTATIONS)
def test_a_wrong_join_is_seen(sides, monkeypatch, name):
    where, old, new = MUTATIONS[name]
    right = batch(sides[0])
    assert batch(sides[1]) == right
    original = getattr(hopsworks_views, where)

    def changed(*arguments):
        sql, count = re.subn(old, new, original(*arguments))
        assert count
        return sql

    monkeypatch.setattr(hopsworks_views, where, changed)
    assert batch(sides[1]) != right


def test_a_wrong_bound_is_seen(sides, monkeypatch):
    original = hopsworks_views.tests_of

    def changed(*arguments, **options):
        tests = original(*arguments, **options)
        return [(name, '<=' if sign == '<' else sign, value) for name, sign, value in tests]

    monkeypatch.setattr(hopsworks_views, 'tests_of', changed)
    assert batch(sides[1]) != batch(sides[0])


def test_an_old_row_does_not_replace_a_newer_one_online(double, store, monkeypatch):
    group = fresh(store, 'newer')
    view = store.get_or_create_feature_view('newer', 1, query=group.select(['value']))
    group.insert(minutes(1, first=5))
    group.insert(minutes(1))
    assert view.get_feature_vector({'symbol': 'BTC/USD'}).event_ms == {'': NOON + 5 * MINUTE}
    original = write_options

    def careless(*arguments):
        options = original(*arguments)
        options['online_ingestion_options'].pop('upsert_if_newer')
        return options

    monkeypatch.setattr(hopsworks_store, 'write_options', careless)
    group.insert(minutes(1))
    assert view.get_feature_vector({'symbol': 'BTC/USD'}).event_ms == {'': NOON}


def test_our_messages_come_back_equal(store):
    rows = {
        'candles': [candle(n) for n in range(5)] + [candle(2, '101', revision=1)],
        'technical_indicators': [indicators(n) for n in range(5)],
        'predictions': [prediction(n) for n in range(3)],
    }
    for name, some in rows.items():
        group = open_group(store, name)
        group.insert(some)
        group.materialize()
        assert canonical_digest(group.read(all_revisions=True)) == canonical_digest(
            to_frame(name, sorted(some, key=lambda m: (m.start_ms, m.revision)))
        )
    assert open_group(store, 'candles').history(KEY, last=3) == [
        candle(2, '101', revision=1),
        candle(3),
        candle(4),
    ]
    assert open_group(store, 'candles').entities() == [('BTC/USD', 60)]


def test_groups_that_never_change_are_offline_and_keep_one_row_each(store):
    names = {'trade_id': 'bigint', 'event_ms': 'bigint', 'available_ms': 'bigint', 'text': 'string'}
    schema = [
        FeatureDef('symbol', 'string', False),
        *(FeatureDef(name, type_, False) for name, type_ in names.items()),
    ]
    group = store.get_or_create_feature_group(
        f'once_{os.getpid()}',
        1,
        primary_key=['symbol', 'trade_id'],
        schema=schema,
        event_time='event_ms',
        once=True,
    )
    rows = [
        dict(symbol='A/B', trade_id=n, event_ms=NOON + n // 2, available_ms=NOON + n, text='x' * 5000)
        for n in range(6)
    ]
    group.insert(rows[:4], wait=True)
    group.insert(rows[2:])
    group.materialize()
    assert group.read().to_dict('records') == rows and group.entities() == [('A/B',)]
    assert group.read(NOON + 1, NOON + 2)['trade_id'].tolist() == [2, 3]


# --- how the client is used


def test_rows_land_as_avro_with_the_right_headers(double, store):
    group = fresh(store, 'headers')
    before = len(double.cluster.headers)
    group.insert(minutes(10) + minutes(10, symbol='ETH/USD'))
    double.cluster.drain()
    came = double.cluster.headers[before:]
    assert len(came) == 20 and all(headers['upsertIfNewer'] == '1' for headers in came)
    assert sum('storage' not in headers for headers in came) == 2
    assert not any(
        'executions' in line
        for line in double.cluster.asked
        if 'POST' in line and group.definition.name in line
    )


def test_the_service_takes_a_batch_twice_and_sets_aside_what_does_not_fit(store):
    writer = StoreWriter(store, load_settings())
    some = [candle(n, symbol='SVC/USD') for n in range(3)]
    sent = [
        Received(key='SVC/USD', value=raw, topic='candles', partition=0, offset=place)
        for place, raw in enumerate([*map(encode, some), b'{"type"'])
    ]
    trades = Trades(
        'SVC/USD',
        [
            Trade(trade_id=n, price='1', quantity='2', side='buy', order_type='market', event_ms=NOON + n)
            for n in range(5)
        ],
        NOON,
        'live',
    )
    for _ in range(2):
        assert len(writer.take(sent)) == 1
        assert (
            writer.take(
                [Received(key='SVC/USD', value=encode(trades), topic='trades', partition=0, offset=0)]
            )
            == []
        )
    writer.groups['candles'].materialize()
    writer.groups['trades'].materialize()
    assert writer.groups['candles'].history(dict(symbol='SVC/USD', interval_seconds=60)) == some
    assert writer.groups['trades'].history(dict(symbol='SVC/USD')) == trades.trades
    assert writer.open_from('candles', 0) is None and writer.counts == {'stored': 16, 'dead_letters': 2}


def test_what_is_not_materialized_is_not_read(double, store):
    group = fresh(store, 'late')
    assert len(group.read()) == 0 and group.entities() == []
    group.insert(minutes(3))
    assert len(group.read()) == 0
    group.materialize()
    assert len(group.read()) == 3


def test_another_schema_needs_another_version(store):
    group = fresh(store, 'schema')
    with pytest.raises(ValueError, match=r'another schema .*value.* use version 2'):
        store.get_or_create_feature_group(
            group.definition.name,
            1,
            primary_key=['symbol'],
            schema=[f if f.name != 'value' else FeatureDef('value', 'string') for f in SCHEMA],
        )
    store.groups.clear()
    again = fresh(store, 'schema')
    assert (again.definition.schema, again.definition.identity) == (
        group.definition.schema,
        group.definition.identity,
    )


def test_another_query_needs_another_version(store):
    group = fresh(store, 'query')
    store.get_or_create_feature_view('query', 1, query=group.select(['value']))
    with pytest.raises(ValueError, match='another query: use version 2'):
        store.get_or_create_feature_view('query', 1, query=group.select(['trades']))


@pytest.mark.parametrize('where', ['online_ingestion', 'byok'])
def test_an_insert_is_repeated_whole_and_stored_once(double, store, where):
    group = fresh(store, 'repeated')
    double.fail(where, status=500, times=2)
    group.insert(minutes(4))
    group.insert(minutes(4))
    group.materialize()
    assert double.cluster.faults == []
    assert len(group.read(all_revisions=True)) == 4


def test_a_group_whose_creation_was_answered_by_an_error_is_there(double, store):
    double.fail('POST /hopsworks-api/api/project/119/featurestores/67/featuregroups', status=503, after=True)
    group = fresh(store, 'answer_lost')
    group.insert(minutes(1))


def test_a_slow_answer_is_given_up_and_asked_again(double, store):
    group = fresh(store, 'slow')
    bound_requests(1.0)
    try:
        double.fail('online_ingestion', wait_seconds=3.0)
        started = time.monotonic()
        group.insert(minutes(2))
        assert 1.0 < time.monotonic() - started < 3.0
    finally:
        bound_requests(30.0)


def test_a_refused_key_is_said_at_once_and_not_shown(double, store):
    group = fresh(store, 'refused')
    double.fail('byok', status=401)
    with pytest.raises(PermissionError, match=r'refuses the key .*HOPSWORKS_API_KEY') as refused:
        group.insert(minutes(1))
    assert double.cluster.api_key not in str(refused.value) and double.cluster.faults == []


def test_a_failed_job_is_said_and_its_rows_come_with_the_next(double, store):
    group = fresh(store, 'job')
    group.insert(minutes(3))
    double.cluster.job_states.append('FAILED')
    with pytest.raises(RuntimeError, match='ended as FAILED'):
        group.materialize()
    group.materialize()
    assert len(group.read()) == 3


def test_a_failed_read_is_repeated(double, store):
    group = fresh(store, 'read')
    group.insert(minutes(3))
    group.materialize()
    double.flight.fail_next = 1
    assert len(group.read()) == 3


def test_a_broker_that_is_down_loses_nothing(double, store):
    group = fresh(store, 'broker')
    login, store.login = store.login, store.login._replace(timeout_seconds=0.5)
    double.cluster.shown_broker = '127.0.0.1:9'
    try:
        with pytest.raises(ConnectionError, match='inserting 4 rows into broker'):
            group.insert(minutes(4))
    finally:
        store.login, double.cluster.shown_broker = login, double.cluster.broker
    group.insert(minutes(4))
    group.materialize()
    assert len(group.read(all_revisions=True)) == 4


def test_a_record_that_comes_twice_is_stored_once(double, store):
    group = fresh(store, 'twice')
    double.cluster.duplicate = True
    try:
        group.insert(awkward_rows(3, symbols_of(9)))
        group.materialize()
    finally:
        double.cluster.duplicate = False
    frame = group.read(all_revisions=True)
    assert len(frame) == len(
        {tuple(row) for row in frame[['symbol', 'start_ms', 'revision']].itertuples(index=False)}
    )


def test_the_double_refuses_what_it_does_not_know(double, store):
    with pytest.raises(Exception, match='501'), without_side_effects():
        fresh(store, 'strict').handle().get_storage_connector_provenance()
    assert len(double.cluster.unknown) == 1
    double.cluster.unknown.clear()
