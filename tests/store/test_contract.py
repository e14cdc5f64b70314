"""What every backend of the feature store must do, and what a service that comes back reads from it: one suite, both backends."""

import multiprocessing
import os
import subprocess
from contextlib import contextmanager

import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Dropped, Gap, Trade, Trades, Watermark, encode
from crypto_rt.core.settings import load_settings, replace_environment, to_env
from crypto_rt.features.table import TABLE
from crypto_rt.market.recovery import initial_states
from crypto_rt.services.feature_store import StoreWriter, run_feature_store
from crypto_rt.services.trades import run_trades
from crypto_rt.store.catalogue import catalogue_text
from crypto_rt.store.hopsworks.client import disconnect
from crypto_rt.store.interface import TradePosition
from crypto_rt.store.open import candles_before, open_feature_store, open_group, training_view
from crypto_rt.store.positions import latest_gaps, stored_past
from crypto_rt.store.schema import FeatureDef
from crypto_rt.verify.gaps import verify_gaps
from tests.market.builders import _line, start, wait_until
from tests.store.builders import candle
from tests.store.hopsworks_double import Double

NOON, MINUTE = 1_762_776_000_000, 60_000
EPOCH = 1 << 48
NUMBERS = ('start_ms', 'revision', 'available_ms')
SCHEMA = (
    FeatureDef('symbol', 'string', False),
    *(FeatureDef(name, 'bigint', False) for name in NUMBERS),
    FeatureDef('value', 'double'),
)


@pytest.fixture(scope='module', params=['embedded', 'hopsworks'])
def backend(request, tmp_path_factory):
    "The name of a backend; for Hopsworks the double is up and the environment names it."
    before, double = dict(os.environ), None
    if request.param == 'hopsworks':
        double = Double(request.getfixturevalue('kafka_broker'), tmp_path_factory.mktemp('double'))
        os.environ.update(double.environment)
    yield request.param
    disconnect()
    os.environ.clear()
    os.environ.update(before)
    if double:
        double.close()
        assert double.cluster.unknown == []


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('data')


def settings_of(backend, folder, symbol='BTC/USD', **other):
    return load_settings(
        store=dict(backend=backend), data=dict(directory=str(folder), symbols=symbol), **other
    )


@contextmanager
def opened(settings):
    "A store of this process's own, as a service has it; all that was inserted can be read after it."
    store = open_feature_store(settings)
    try:
        yield store
        if settings.store.backend == 'hopsworks':
            for group in list(store.groups.values()):
                group.materialize()
    finally:
        store.close()


def rows(*values, symbol='A/B'):
    return [
        dict(
            symbol=symbol,
            start_ms=NOON + start * MINUTE,
            revision=revision,
            available_ms=NOON + known * MINUTE,
            value=value,
        )
        for start, revision, known, value in values
    ]


def trades(symbol, *ids, **other):
    some = [
        Trade(
            trade_id=n, price='1.5', quantity='2', side='buy', order_type='limit', event_ms=NOON + n % 10_000
        )
        for n in ids
    ]
    return Trades(symbol, some, NOON + 10_000, 'live', **other)


def gap(symbol, first, last, state='open', revision=0):
    return Gap(
        symbol=symbol,
        first_missing=first,
        last_missing=last,
        opened_ms=NOON,
        updated_ms=NOON + revision,
        state=state,
        found=0,
        revision=revision,
        epoch=0,
    )


def made(store, name, schema=SCHEMA):
    return store.get_or_create_feature_group(name, 1, primary_key=['symbol'], schema=schema)


# --- rows


def test_what_was_known_is_read_back_after_a_restart(backend, folder):
    chosen = settings_of(backend, folder)
    with opened(chosen) as store:
        group = made(store, 'restart')
        group.insert(rows((0, 0, 1, 100.0), (1, 0, 2, 102.0)))
        group.insert(rows((0, 1, 5, 101.0)))
        group.insert_sealed(rows((2, 0, 3, None)))
    with opened(chosen) as store:
        group = store.get_feature_group('restart', 1)
        assert group.definition == made(store, 'restart').definition
        assert group.read().value.dropna().tolist() == [101.0, 102.0] and group.read().value.isna().sum() == 1
        assert group.read(as_of=NOON + 2 * MINUTE).value.tolist() == [100.0, 102.0]
        assert group.read(all_revisions=True).revision.tolist() == [0, 1, 0, 0]
        assert group.entities() == [('A/B',)]
        assert group.extent()[3:] == (NOON, NOON + 2 * MINUTE)
        figures = group.statistics()['value']
        assert (figures['count'], figures['nulls'], figures['max']) == (2, 1, 102.0)
        assert 'restart' in catalogue_text(store, None) and 'value' in catalogue_text(store, 'restart')
        assert group in store.feature_groups() and store.get_feature_group('restart', 2) is None
        group.discard()
        assert store.get_feature_group('restart', 1) is None
        assert made(store, 'restart').read().empty


def test_a_group_gains_a_column_and_loses_nothing(backend, folder):
    chosen = settings_of(backend, folder)
    more = (FeatureDef('note', 'string'), FeatureDef('flag', 'boolean'))
    wider = (*SCHEMA[:4], *more, SCHEMA[4])
    with opened(chosen) as store:
        made(store, 'wider').insert(rows((0, 0, 1, 100.0), (1, 0, 2, 101.0)))
        made(store, 'wider').materialize(NOON + 1)
    with opened(chosen) as store:
        group = made(store, 'wider', wider)
        assert [f.name for f in group.definition.schema] == [f.name for f in wider]
        group.insert([row | dict(note='new', flag=True) for row in rows((2, 0, 3, 102.0))])
        with pytest.raises(ValueError, match=r'missing \[.note.\]'):
            group.insert([row | dict(flag=True) for row in rows((3, 0, 4, 103.0))])
    with opened(chosen) as store:
        group = made(store, 'wider', wider)
        frame = group.read()
        assert frame.value.tolist() == [100.0, 101.0, 102.0]
        assert frame.note.where(frame.note.notna(), None).tolist() == [None, None, 'new']
        assert frame.flag.tolist()[2] is True and frame.flag.isna().tolist() == [True, True, False]
        assert group.read(equal={'note': 'new'}).value.tolist() == [102.0]
        view = store.get_or_create_feature_view('wider', 1, query=group.select(['value', 'note']))
        assert view.get_batch_data(NOON, NOON + 9 * MINUTE).value.tolist() == [100.0, 101.0, 102.0]
        assert view.get_feature_vector({'symbol': 'A/B'}).values == (102.0, 'new')
        for schema in (SCHEMA, (*wider[:-1], FeatureDef('value', 'bigint'))):
            with pytest.raises(ValueError, match=r'another schema .* use version 2'):
                made(store, 'wider', schema)
        with pytest.raises(ValueError, match=r'another schema \(must differ\)'):
            made(store, 'wider', (*wider, FeatureDef('must', 'double', nullable=False)))


# --- trades


def test_a_batch_that_comes_again_is_stored_once(backend, folder):
    symbol, chosen = 'TWICE/USD', settings_of(backend, folder, 'TWICE/USD')
    batch = [
        (0, trades(symbol, 1, 2, 3, duplicates=1)),
        (1, Dropped(symbol, 2, 1, NOON)),
        (2, trades(symbol, 3, 4)),
    ]
    with opened(chosen) as store:
        for some in (batch, batch[1:]):
            store.insert_accounted('twice-log', 0, 2, some)
        store.insert_accounted('twice-log', 1, 0, [(0, gap(symbol, 90, 95))])
    with opened(chosen) as store:
        assert [t.trade_id for t in open_group(store, 'trades').history({'symbol': symbol})] == [1, 2, 3, 4]
        accounts = store.trade_accounts()
        assert accounts.stored_twice == 0 and not [hole for hole in accounts.holes if hole[0] == symbol]
        if backend == 'embedded':
            counted = {'received': 5 + 1 + 3, 'duplicates': 3, 'dead_letters': 1, 'repeated': 1}
            assert accounts.counters == counted
        else:
            assert accounts.counters is None


def test_a_position_is_the_last_trade_before_a_hole_that_nobody_explains(backend, folder):
    chosen = settings_of(backend, folder)
    stored = {
        'WHOLE/USD': (1, 2, 3),
        'HOLE/USD': (1, 2, 3, 7, 8, 20, 21),
        'EPOCH/USD': (1, 2, EPOCH + 5, EPOCH + 6, EPOCH + 9),
    }
    with opened(chosen) as store:
        for symbol, ids in stored.items():
            store.insert_accounted(f'{symbol}-log', 0, 0, [(0, trades(symbol, *ids))])
    with opened(chosen) as store:
        position = store.trade_position
        assert position('WHOLE/USD') == TradePosition(3, NOON + 3) and position('NONE/USD') is None
        assert position('HOLE/USD').trade_id == 3
        assert position('HOLE/USD', [(4, 5)]).trade_id == 3
        assert position('HOLE/USD', [(5, 6), (4, 5)]).trade_id == 8
        assert position('HOLE/USD', [(4, 6), (9, 19)]).trade_id == 21
        assert position('EPOCH/USD').trade_id == EPOCH + 6
        holes = {hole for hole in store.trade_accounts().holes if hole[0] == 'HOLE/USD'}
        assert holes == {('HOLE/USD', 4, 6), ('HOLE/USD', 9, 19)}


def test_the_trades_service_begins_where_the_last_run_stopped(backend, folder):
    symbol = 'AGAIN/USD'
    chosen = settings_of(backend, folder, symbol)
    records = [gap(symbol, 4, 6), gap(symbol, 4, 6, 'exchange_hole', 1), gap(symbol, 9, 9)]
    with opened(chosen) as store:
        open_group(store, 'candles').insert([candle(0, symbol=symbol), candle(1, symbol=symbol)])
        store.insert_accounted(
            'again-log', 0, 1, [(0, trades(symbol, 1, 2, 3)), (1, trades(symbol, 7, 8, 10))]
        )
        store.insert_accounted('again-gaps', 0, 2, list(enumerate(records)))
    past = stored_past(chosen)
    assert past.trades == {symbol: (8, NOON + 8)} and past.candles[symbol] == candle(1, symbol=symbol)
    of_symbol = [(g.first_missing, g.state, g.revision) for g in past.gaps if g.symbol == symbol]
    assert sorted(of_symbol) == [(4, 'exchange_hole', 1), (9, 'open', 0)]
    (state,) = initial_states([symbol], {}, past, None)
    assert state.sequence.ids.contiguous_id == 8 and state.fetch_first
    with opened(chosen) as store:
        assert [g for g in latest_gaps(store) if g.symbol == symbol] == [records[1], records[2]]


def test_a_new_symbol_and_a_new_machine_begin_with_nothing(backend, tmp_path):
    past = stored_past(settings_of(backend, tmp_path, 'NEVER/USD'))
    assert not past.trades and past.candles.get('NEVER/USD') is None


def test_indicators_and_predictions_begin_with_the_candles_of_before(backend, folder):
    symbol, chosen = 'CANDLES/USD', settings_of(backend, folder, 'CANDLES/USD')
    stored = [candle(n, symbol=symbol) for n in range(5)]
    with opened(chosen) as store:
        open_group(store, 'candles').insert(stored)
    behind = [candle(4, '7', revision=1, symbol=symbol), candle(5, symbol=symbol), candle(6)]
    past = candles_before(chosen, symbol, 60, stored[0].start_ms + 6 * MINUTE, behind, last=4)
    assert past == [*stored[2:4], behind[0], behind[1]]


def received(topic, *items, first=0):
    return [
        Received(key='BTC/USD', value=item, topic=topic, partition=0, offset=first + n)
        for n, item in enumerate(items)
    ]


def test_the_writer_is_the_same_on_both(backend, folder):
    symbol, chosen = 'WRITER/USD', settings_of(backend, folder, 'WRITER/USD')
    some = [candle(n, symbol=symbol) for n in range(3)]
    mark = encode(Watermark(symbol, NOON, 3, True, 'live'))
    with opened(chosen) as store:
        writer = StoreWriter(store, chosen, seal_every_seconds=0)
        for _ in range(2):
            letters = writer.take(received('candles', *map(encode, some), b'{"type"'))
            assert [letter.topic for letter in letters] == ['dead_letters']
            assert len(writer.take(received('trades', mark, encode(trades(symbol, 1, 2)), b'x'))) == 1
            assert writer.take(received('gaps', encode(gap(symbol, 3, 4)))) == []
        assert writer.counts['dead_letters'] == 4 and writer.newest_ms == some[-1].start_ms
        store.end_maintenance()
    with opened(chosen) as store:
        key = dict(symbol=symbol, interval_seconds=60)
        assert open_group(store, 'candles').history(key) == some
        assert [t.trade_id for t in open_group(store, 'trades').history({'symbol': symbol})] == [1, 2]
        vector = training_view(store).get_feature_vector(key)
        assert set(TABLE.sets[TABLE.newest]) <= set(vector.names)


def test_what_a_backend_cannot_do_is_said(backend, folder):
    chosen = settings_of(backend, folder)
    if backend == 'embedded':
        assert verify_gaps(chosen)['stored_twice'] == 0
        with opened(chosen) as store:
            assert store.compact(dry=True)['merged'] == 0
        return
    with pytest.raises(ValueError, match='backend hopsworks does not count what was received'):
        verify_gaps(chosen)
    with opened(chosen) as store, pytest.raises(ValueError, match='merges its own files'):
        store.compact()


# --- services, killed


def stored_trades(settings):
    with opened(settings) as store:
        group = open_group(store, 'trades')
        if settings.store.backend == 'hopsworks':
            group.materialize()
        return len(group.read()[lambda frame: frame.symbol.isin(SYMBOLS)])


EACH, SYMBOLS = 600, ('KILL/USD', 'KILLED/USD')
SERVICES = multiprocessing.get_context(
    'forkserver'
)  # the cluster's client takes long to import: once is enough
SERVICES.set_forkserver_preload(['hopsworks', 'tests.store.test_contract'])


def be_service(name, env):
    "Be a service in a process of its own."
    replace_environment(env)
    settings = load_settings()
    run_trades(settings, stored_past) if name == 'trades' else run_feature_store(settings)


def start_services(env):
    started = [SERVICES.Process(target=be_service, args=(name, env)) for name in ('trades', 'feature-store')]
    for process in started:
        process.start()
    return started


def test_services_that_are_killed_come_back_on_both(backend, kafka_broker, tmp_path):
    if backend == 'hopsworks' and not os.environ.get('CRYPTO_RT_TEST_LONG'):
        pytest.skip('six processes log in to the double; set CRYPTO_RT_TEST_LONG=1')
    (tmp_path / 'r.jsonl').write_text(
        '\n'.join(_line(symbol, n) for n in range(1, EACH + 1) for symbol in SYMBOLS)
    )
    faults = 'drop=0.05,duplicate=0.03;seed=3'
    exchange = start('exchange', str(tmp_path / 'r.jsonl'), faults, stdout=subprocess.PIPE, text=True)
    running = [exchange]
    try:
        urls = exchange.stdout.readline().split()
        chosen = settings_of(
            backend,
            tmp_path / 'd',
            ','.join(SYMBOLS),
            kafka=dict(
                broker=kafka_broker, topic_prefix=f'contract{backend}{os.getpid()}.', session_timeout_ms=2000
            ),
            exchange=dict(websocket_url=urls[0], rest_url=urls[1], reconnect_first_seconds=0.2),
            run=dict(source='replay', until_idle=True, news=False, id='run'),
        )
        env = {**os.environ, **to_env(chosen)}
        feeds, keeper = start_services(env)
        running += [feeds, keeper]
        for goal in (1, EACH):
            wait_until(lambda goal=goal: stored_trades(chosen) >= goal, 400)
            for victim in (feeds, keeper):
                victim.kill()
                victim.join()
            feeds, keeper = start_services(env)
            running += [feeds, keeper]
        feeds.join(400)
        assert feeds.exitcode == 0
        wait_until(lambda: stored_trades(chosen) == EACH * len(SYMBOLS), 400)
        keeper.terminate()
        keeper.join(60)
        assert keeper.exitcode == 0
        with opened(chosen) as store:
            frame = open_group(store, 'trades').read()
            for symbol in SYMBOLS:
                assert frame[frame.symbol == symbol].trade_id.tolist() == list(range(1, EACH + 1)), symbol
                assert store.trade_position(symbol).trade_id == EACH
    finally:
        for process in running:
            process.kill()
            process.wait() if process is exchange else process.join()
        exchange.stdout.close()
