"""A past brought in by the exchange and by files equals what live would have stored, and a second run changes nothing."""

from functools import partial

import pytest

from crypto_rt.backfill import fill
from crypto_rt.backfill.exchange import backfill_exchange
from crypto_rt.backfill.fill import recompute
from crypto_rt.backfill.fill import store_indicators as backfill_store_indicators
from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import encode
from crypto_rt.core.settings import load_settings
from crypto_rt.features.indicators import indicators_of
from crypto_rt.features.table import TABLE, FeatureTable
from crypto_rt.services import feature_store
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.store.conform import canonical_digest
from crypto_rt.store.open import candle_history, open_feature_store, open_group
from crypto_rt.store.schema import GROUPS, indicator_groups
from tests.backfill.builders import KEY, NOON, Newest, candle, stored


def test_an_empty_store_gets_the_exchanges_past_and_a_second_run_adds_nothing(settings):
    added = backfill_exchange(settings, Newest(720), progress=False)
    assert added == {symbol: {'candles': 720, 'indicators': 720} for symbol in settings.data.symbols}
    before = [canonical_digest(stored(settings, name)) for name in ('candles', 'technical_indicators')]
    added = backfill_exchange(settings, Newest(720), progress=False)
    assert added == {symbol: {'candles': 0, 'indicators': 0} for symbol in settings.data.symbols}
    assert before == [
        canonical_digest(stored(settings, name)) for name in ('candles', 'technical_indicators')
    ]
    store = open_feature_store(settings)
    expected = indicators_of([candle(n) for n in range(720)])
    assert open_group(store, 'technical_indicators').history(KEY) == expected and expected[-1].warm_up == 0


def test_a_store_that_is_behind_is_brought_up_with_the_indicators_of_the_joined_past(settings):
    backfill_exchange(settings, Newest(720), progress=False)
    assert backfill_exchange(settings, Newest(1000), progress=False)['BTC/USD'] == {
        'candles': 280,
        'indicators': 280,
    }
    store = open_feature_store(settings)
    assert candle_history(store, **KEY) == [candle(n) for n in range(1000)]
    assert open_group(store, 'technical_indicators').history(KEY) == indicators_of(
        [candle(n) for n in range(1000)]
    )


def test_what_live_has_seen_whole_stays_and_what_it_saw_in_part_is_revised(settings):
    store = open_feature_store(settings)
    live = [
        candle(n, source='trades', high='200', close='100.5', is_partial=n == 700) for n in range(700, 705)
    ]
    open_group(store, 'candles').insert(live)
    open_group(store, 'technical_indicators').insert(indicators_of(live))
    backfill_exchange(settings, Newest(720), progress=False)
    past = {(c.start_ms - NOON) // 60_000: c for c in candle_history(store, **KEY)}
    assert (
        [past[n].close for n in range(701, 705)] == ['100.5'] * 4
        and past[700].source == 'exchange'
        and past[700].revision == 1
    )
    old = open_group(store, 'candles').read(as_of=past[700].available_ms - 1, equal=KEY)
    assert old.close.iloc[-1] != '100.5', 'before it was known, it was not'
    assert open_group(store, 'candles').read(all_revisions=True, equal=KEY).is_partial.sum() == 1
    features = open_group(store, 'technical_indicators').history(KEY)
    assert len(features) == 720 and {f.revision for f in features if f.start_ms == past[700].start_ms} == {1}


def test_an_interval_that_the_exchange_has_not_is_no_error(tmp_path, caplog):
    settings = load_settings(
        '/dev/null', env={}, data=dict(directory=str(tmp_path), interval_seconds=10, horizon_seconds=30)
    )
    assert backfill_exchange(settings, Newest(720), progress=False) == {}
    assert 'nothing to back-fill' in caplog.text


# --- a feature set that has grown
def grow(monkeypatch):
    "Add a row to the table, as a release would; return the table."
    bigger = FeatureTable(
        (
            *TABLE.features,
            TABLE.features[0]._replace(name='grown', since=int(TABLE.newest.rpartition('v')[2]) + 1),
        )
    )
    monkeypatch.setattr(fill, 'indicators_of', partial(indicators_of, table=bigger))
    monkeypatch.setitem(GROUPS, 'technical_indicators', indicator_groups(bigger)[-1])
    monkeypatch.setattr(feature_store, 'indicator_groups', partial(indicator_groups, bigger))
    return bigger


def test_a_grown_set_is_computed_for_all_that_is_stored_and_only_once(settings, monkeypatch):
    "Broken off in between it goes on, what `up` begins with does it as well, and the older set stays as it is."
    monkeypatch.setattr(fill, 'PIECE', 300)
    backfill_exchange(settings, Newest(720), progress=False)
    backfill_exchange(settings, Newest(1900), progress=False)  # a hole of 460 between
    old = stored(settings, 'technical_indicators')
    bigger, calls, store_indicators = grow(monkeypatch), [], backfill_store_indicators

    def broken_off(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return store_indicators(*args)

    monkeypatch.setattr(fill, 'store_indicators', broken_off)
    with pytest.raises(KeyboardInterrupt):
        recompute(settings, ['BTC/USD'], progress=False)
    before = len(stored(settings, 'technical_indicators'))
    done = recompute(settings, settings.data.symbols, 60, progress=False, thorough=False)  # as `up` does
    assert 0 < before < 1440 and done['feature_set'] == bigger.newest and done['rows'] == 2 * 1440 - before
    assert [each['symbol'] for each in done['of_each']] == ['BTC/USD', 'ETH/USD']
    assert (
        recompute(settings, progress=False)['rows']
        == recompute(settings, progress=False, thorough=False)['rows']
        == 0
    )
    store, past = open_feature_store(settings), [candle(n) for n in (*range(720), *range(1180, 1900))]
    assert open_group(store, 'technical_indicators').history(KEY, last=2000) == indicators_of(past, bigger)
    assert canonical_digest(store.get_feature_group('technical_indicators', 1).read()) == canonical_digest(
        old
    )
    store.close()


def test_the_writer_serves_the_older_sets_and_seals_each_of_them(settings, monkeypatch):
    backfill_exchange(settings, Newest(720), progress=False)
    bigger = grow(monkeypatch)
    store = open_feature_store(settings)
    writer = StoreWriter(store, settings)
    made = indicators_of([candle(n) for n in range(1000)], bigger)[720:]
    letters = writer.take(
        [
            Received(key=row.symbol, value=encode(row), topic='technical_indicators', partition=0, offset=n)
            for n, row in enumerate(made)
        ]
    )
    versions = {version: store.get_feature_group('technical_indicators', version) for version in (1, 2)}
    assert letters == [] and writer.counts['stored'] == 280
    assert versions[2].history(KEY) == made and len(versions[1].history(KEY)) == 1000
    assert versions[1].history(KEY)[-1].values == {name: made[-1].values[name] for name in TABLE.names}
    sealed = store.seal(NOON + 86_400_000 * 2)
    assert [sealed['technical_indicators', version] for version in (1, 2)] == [1000 + 720, 280]
    assert versions[2].history(KEY) == made and len(versions[1].history(KEY)) == 1000
    store.close()
