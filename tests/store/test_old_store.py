"""A data directory that crypto-rt of before 0.2.0 has left (`make_old_store.py` says how it was made) opens, loses nothing and gains a column."""

import json
import tarfile
from pathlib import Path

import msgspec
import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Candle, Dropped, Trade, Trades, decode, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.store import schema
from crypto_rt.store.conform import canonical_digest
from crypto_rt.store.embedded.sqlite import MIGRATIONS
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.store.positions import stored_past
from crypto_rt.store.schema import GROUPS, FeatureDef, schema_of
from crypto_rt.verify.gaps import verify_gaps

NOON, MINUTE, DAY = 1_762_776_000_000, 60_000, 86_400_000
KEY = dict(symbol='BTC/USD', interval_seconds=60)
FEATURES = 1  # the features were those of core-v1: so its group and the training view were numbered
# of the old version; a column that came later stands behind them, and is null in its rows
COLUMNS = {
    'candles': 22,
    'technical_indicators': 52,
    'predictions': 22,
    'trades': 10,
    'gaps': 9,
    'news': 10,
    'news_signals': 11,
}


@pytest.fixture
def old(tmp_path):
    "The settings of the directory, and what the old version has read in it."
    with tarfile.open(Path(__file__).with_name('old_store.tar.gz')) as archive:
        archive.extractall(tmp_path, filter='data')
    settings = load_settings(env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD'))
    return settings, json.loads((tmp_path / 'expected.json').read_text())


def stored_group(store, name):
    "The group that the old version filled: a feature that came later makes a group of features beside it."
    group = open_group(store, name)
    return store.get_feature_group(name, FEATURES) if name == 'technical_indicators' else group


def as_of_old(name, frame):
    "The frame with the columns of the old version, once it is sure that the later ones say nothing."
    assert frame.iloc[:, COLUMNS[name] :].isna().all(axis=None)
    return frame.iloc[:, : COLUMNS[name]]


def digests(store):
    found = {}
    for name in COLUMNS:
        group = stored_group(store, name)
        found[name] = canonical_digest(as_of_old(name, group.read(all_revisions=True)))
        past = group.read(as_of=NOON + 350 * MINUTE)
        found[name + ', latest as of the past'] = canonical_digest(as_of_old(name, past))
    return found


def test_everything_in_it_is_read_as_the_old_version_read_it(old):
    settings, expected = old
    store = open_feature_store(settings)
    assert store.found_version == 0
    assert store.database.here().execute('PRAGMA user_version').fetchone() == (len(MIGRATIONS),)
    rows = {name: len(stored_group(store, name).read(all_revisions=True)) for name in COLUMNS}
    assert rows == expected['rows']
    assert digests(store) == expected['digests']
    assert min(expected['rows'].values()) > 0
    view = store.get_feature_view('training', FEATURES)
    assert canonical_digest(view.get_batch_data(NOON, NOON + 2 * DAY)) == expected['training']
    assert list(view.get_feature_vector(KEY).values) == expected['vector']
    assert store.trade_accounts().counters == expected['counters']
    store.close()
    assert {symbol: list(found) for symbol, found in stored_past(settings).trades.items()} == expected[
        'trades'
    ]
    gaps = verify_gaps(settings)
    assert set(gaps.pop('proofs')) <= {'unknown', 'unproven'}  # nobody had asked for a proof
    assert gaps == expected['gaps'] and gaps['ok']
    again = open_feature_store(settings)
    assert again.found_version == len(MIGRATIONS) and digests(again) == expected['digests']
    again.close()


def test_its_messages_are_read_by_todays_schema(old):
    "What lies in a topic or in the store from before is a message of today, field by field."
    settings, expected = old
    store = open_feature_store(settings)
    for name, raws in expected['last'].items():
        stored = stored_group(store, name).history({}, last=3)
        if name == 'trades':
            assert [msgspec.json.decode(raw, type=Trade) for raw in raws] == stored
        else:
            assert [decode(name, raw.encode()) for raw in raws] == stored
    store.close()


def test_its_writer_goes_on_and_counts_nothing_twice(old):
    settings, expected = old
    store = open_feature_store(settings)
    writer = StoreWriter(store, settings)

    def sent(item, topic, offset):
        return [Received(key='BTC/USD', value=encode(item), topic=topic, partition=0, offset=offset)]

    fill = Trade(
        trade_id=301, price='1', quantity='1', side='buy', order_type='limit', event_ms=NOON + 301 * MINUTE
    )
    known = Trades('BTC/USD', [msgspec.structs.replace(fill, trade_id=n) for n in (90, 300)], NOON, 'live')
    writer.take(sent(known, 'trades', 1000))
    writer.take(sent(Dropped('BTC/USD', 3, 2, NOON), 'gaps', 3))
    assert store.trade_accounts().counters == expected['counters']
    writer.take(sent(Trades('BTC/USD', [*known.trades, fill], NOON, 'live'), 'trades', 1001))
    accounts = store.trade_accounts()
    assert accounts.stored == expected['rows']['trades'] + 1 and accounts.stored_twice == 0
    assert accounts.counters['received'] == expected['counters']['received'] + 3
    assert accounts.counters['repeated'] == expected['counters']['repeated'] + 2
    store.close()
    assert verify_gaps(settings)['ok']


def test_a_message_that_gains_a_field_gives_its_group_a_column(old, monkeypatch):
    "The whole change of a developer: one field with a default in the message. Rows of before have the default."
    settings, expected = old
    fields = [('spread_bp', float | None, None), ('venue', str | None, None)]
    Wider = msgspec.defstruct(
        'Candle', fields, bases=(Candle,), frozen=True, tag_field='type', tag='candle', namespace={}
    )
    group_before = GROUPS['candles']
    wider = msgspec.structs.replace(group_before, schema=schema_of(Wider))
    assert wider.schema[-2:] == (FeatureDef('spread_bp', 'double'), FeatureDef('venue', 'string'))
    monkeypatch.setitem(GROUPS, 'candles', wider)
    monkeypatch.setitem(schema.MESSAGES, 'candles', Wider)
    store = open_feature_store(settings)
    group = open_group(store, 'candles')
    assert group.definition.schema == wider.schema
    frame = group.read(all_revisions=True)
    assert frame.spread_bp.isna().all() and frame.venue.isna().all()
    assert canonical_digest(as_of_old('candles', frame)) == expected['digests']['candles']
    last = group.history(KEY, last=1)[0]
    assert isinstance(last, Wider) and last.spread_bp is None
    new = msgspec.structs.replace(
        last,
        start_ms=last.end_ms,
        end_ms=last.end_ms + MINUTE,
        available_ms=last.end_ms + DAY,
        spread_bp=1.5,
        venue='kraken',
    )
    group.insert([new])
    late = msgspec.structs.replace(group.history(KEY, before_ms=NOON + MINUTE)[0], revision=9, spread_bp=2.5)
    group.insert([late])
    group.materialize()
    store.compact(grace_ms=-1)
    for start, wanted in ((None, [late, new]), (late.end_ms, [new])):
        rows = group.history(KEY, since_ms=start, last=10_000)
        assert [row for row in rows if row.spread_bp is not None] == wanted
    frame = group.read(all_revisions=True)
    assert len(frame) == expected['rows']['candles'] + 2
    assert group.read(equal={'venue': 'kraken'}).start_ms.tolist() == [new.start_ms]
    assert group.statistics()['spread_bp']['count'] == 2
    view = store.get_or_create_feature_view('wider', 1, query=group.select(['close', 'spread_bp']))
    assert view.get_feature_vector(KEY).values == (new.close, 1.5)
    training = store.get_feature_view('training', FEATURES).get_batch_data(NOON, NOON + 2 * DAY)
    assert canonical_digest(training) == expected['training']
    store.close()
    monkeypatch.undo()
    store = open_feature_store(settings)
    with pytest.raises(ValueError, match=r'another schema \(spread_bp, venue differ\): use version 2'):
        open_group(store, 'candles')
    store.close()


def test_a_store_of_a_newer_version_is_left_alone(old):
    settings, _ = old
    store = open_feature_store(settings)
    store.database.here().execute('PRAGMA user_version = 77')
    store.close()
    with pytest.raises(ValueError, match=r'has version 77, this crypto-rt knows .*update crypto-rt'):
        open_feature_store(settings)
