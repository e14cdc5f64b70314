"""No trade lost, none doubled in the store: sums that hold through loss, repetition, disorder."""

import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Dropped, Gap, Trades, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.market.exchange import Frame
from crypto_rt.market.sequence import TradeSequence
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.services.feature_store import StoreWriter
from crypto_rt.store.interface import unexplained
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.store.positions import stored_past
from crypto_rt.verify.gaps import verify_gaps
from tests.market.builders import START, frame, opened, trade, wait_until
from tests.repeat import many


@pytest.fixture
def stored(tmp_path):
    chosen = load_settings(env={}, data=dict(directory=str(tmp_path), symbols='BTC/USD'))
    writer = StoreWriter(open_feature_store(chosen), chosen)
    yield chosen, writer
    writer.store.close()


def received(items, at=0, topic='trades'):
    return [
        Received(key='BTC/USD', value=encode(item), topic=topic, partition=0, offset=at + place)
        for place, item in enumerate(items)
    ]


def test_what_is_read_twice_is_counted_once(stored):
    chosen, writer = stored
    batch = received([Trades('BTC/USD', [trade(n)], START, 'live', duplicates=1) for n in range(1, 11)])
    writer.take(batch)
    writer.take(batch[5:] + received([Trades('BTC/USD', [trade(10), trade(11)], START, 'live')], at=10))
    assert writer.store.trade_accounts().counters == {'received': 22, 'duplicates': 10, 'repeated': 1}
    writer.logs = {'trades': 'another log of that name'}
    writer.take(received([Trades('BTC/USD', [trade(12)], START, 'live')]))
    figures = verify_gaps(chosen)
    assert figures['ok'] and (
        figures['received'],
        figures['stored'],
        figures['duplicates'],
        figures['missing'],
    ) == (23, 12, 11, 0)


def test_a_sealed_trade_is_not_stored_again_and_a_late_one_is(stored):
    chosen, writer = stored
    group = open_group(writer.store, 'trades')
    writer.take(received([Trades('BTC/USD', [trade(n) for n in range(1, 101) if n != 50], START, 'live')]))
    assert group.materialize() == 99 and verify_gaps(chosen)['missing'] == 1
    writer.take(received([Trades('BTC/USD', [trade(n) for n in range(40, 120)], START, 'rest')], at=1))
    assert (
        group.insert(
            [
                dict(
                    zip(
                        group.definition.names,
                        (
                            'BTC/USD',
                            n,
                            '1.5',
                            '2',
                            'buy',
                            '',
                            START + 100 * n,
                            START,
                            'rest',
                            START + 100 * n,
                        ),
                        strict=True,
                    )
                )
                for n in range(90, 125)
            ]
        ).rows
        == 5
    )
    assert (
        group.insert_sealed([Trades('BTC/USD', [trade(n) for n in range(100, 131)], START, 'rest')]).rows == 6
    )
    figures = verify_gaps(chosen)
    assert figures['ok'] and (figures['stored'], figures['duplicates'], figures['stored_twice']) == (
        130,
        60 + 30 + 25,
        0,
    )
    assert group.read().trade_id.tolist() == list(range(1, 131)) and stored_past(chosen).trades == {
        'BTC/USD': (130, START + 13_000)
    }
    assert [t.trade_id for t in group.history({'symbol': 'BTC/USD'}, last=3)] == [128, 129, 130]


def test_a_row_in_both_places_is_found_out(stored):
    chosen, writer = stored
    group = open_group(writer.store, 'trades')
    writer.take(received([Trades('BTC/USD', [trade(n) for n in range(1, 11)], START, 'live')]))
    group.materialize()
    with writer.store.database.transaction() as db:
        db.execute(f'INSERT INTO {group.table.hot} SELECT * FROM {group.table.online}')
    figures = verify_gaps(chosen)
    assert not figures['ok'] and figures['stored_twice'] == 1


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=6),
    st.integers(0, 20),
    st.integers(0, 15),
)
def test_unexplained_is_what_no_record_covers(ranges, first, length):
    covered = {n for begin, size in ranges for n in range(begin, begin + size + 1)}
    hole = range(first, first + length + 1)
    assert unexplained(hole[0], hole[-1], [(b, b + size) for b, size in ranges]) == len(set(hole) - covered)


@settings(deadline=None, max_examples=many(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.floats(0, 0.4), st.floats(0, 0.4), st.sets(st.integers(2, 299), max_size=8))
def test_any_order_loss_and_repetition_stores_every_id_once(tmp_path_factory, seed, loss, again, own_holes):
    rng, now = random.Random(seed), START + 600_000
    exchange = [trade(n) for n in range(1, 301) if n not in own_holes]
    frames = [frame([t.trade_id]) for t in exchange if rng.random() >= loss] + [
        frame([rng.choice(exchange).trade_id]) for _ in range(int(again * 300))
    ]
    frames = [f for _, f in sorted(enumerate(frames), key=lambda pair: pair[0] + rng.uniform(0, 40))]
    feed, out, sent = (
        opened(SymbolState('BTC/USD', TradeSequence(0, cursor_ms=START))),
        [],
        sum(len(f.trades) for f in frames),
    )
    while frames or feed.rest_requests(now + 2000):
        some, frames, now = frames[:17], frames[17:], now + 2000
        out += feed.take([*some, Frame('bad', b'{', text='cut')], now)
        sent += 1
        for want in feed.rest_requests(now):
            out += feed.take_rest_page(
                want.symbol,
                trades=[t for t in exchange if t.event_ms >= want.since_ms],
                is_last=True,
                here_ms=now,
            )
    feed.replay_end_ms = exchange[-1].event_ms
    out += feed.take_rest_page('BTC/USD', trades=exchange, is_last=True, here_ms=now) + feed.final_watermarks(
        60, 2000, now
    )
    chosen = load_settings(env={}, data=dict(directory=str(tmp_path_factory.mktemp('d')), symbols='BTC/USD'))
    writer = StoreWriter(open_feature_store(chosen), chosen)
    for topic in ('trades', 'gaps'):
        batch = [
            Received(key=o.key, value=o.value, topic=topic, partition=0, offset=place)
            for place, o in enumerate(o for o in out if o.topic == topic)
        ]
        for start in range(0, len(batch), 50):
            writer.take(batch[max(0, start - rng.randint(0, 20)) : start + 50])
    assert open_group(writer.store, 'trades').read().trade_id.tolist() == [t.trade_id for t in exchange]
    figures = verify_gaps(chosen)
    writer.store.close()
    assert (
        figures['ok']
        and figures['stored'] == len(exchange)
        and figures['gaps_open'] == figures['stored_twice'] == 0
    )
    assert figures['received'] == sent + feed.counts['from_rest'] == feed.counts['received']


def test_the_api_tells_the_gaps(stored):
    from fastapi.testclient import TestClient

    from apps.app import create_app

    chosen, writer = stored
    record = Gap(
        symbol='BTC/USD',
        first_missing=104,
        last_missing=106,
        opened_ms=START,
        updated_ms=START,
        state='open',
        found=0,
        revision=0,
        epoch=0,
    )
    writer.take(
        received(
            [
                record,
                msgspec.structs.replace(
                    record, first_missing=90, last_missing=91, opened_ms=START - 1000, state='filled'
                ),
            ],
            topic='gaps',
        )
    )
    news = [
        record,
        msgspec.structs.replace(record, state='exchange_hole', revision=1),
        Dropped('BTC/USD', 1, 0, START),
    ]
    with TestClient(create_app(chosen, source=[('gaps', encode(item)) for item in news])) as client:
        wait_until(lambda: client.get('/v1/status').json()['gaps']['exchange_holes'] == 1, 10)
        assert client.get('/v1/status').json()['gaps'] == {
            'open': 0,
            'filled': 0,
            'exchange_holes': 1,
            'timed_out': 0,
        }
        rows = client.get('/v1/gaps', params={'symbol': 'BTC/USD'}).json()['gaps']
        assert [(g['first_missing'], g['state'], g['revision']) for g in rows] == [
            (90, 'filled', 0),
            (104, 'exchange_hole', 1),
        ]
        assert client.get('/v1/gaps', params={'since': START}).json()['gaps'] == rows[1:]
        assert client.get('/v1/gaps', params={'symbol': 'NO/NE'}).status_code == 404
        assert 'crypto_rt_gaps{state="exchange_holes"} 1.0' in client.get('/metrics').text
