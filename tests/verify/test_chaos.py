"""Faults on demand keep their word, and the whole chain keeps its data under them and under SIGKILL."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from crypto_rt.core.messages import Trades, decode
from crypto_rt.core.settings import load_settings
from crypto_rt.market.feed import Feed
from crypto_rt.market.kraken.exchange import Kraken
from crypto_rt.market.kraken.frames import read_frame
from crypto_rt.market.symbol_state import SymbolState
from crypto_rt.sandbox.exchange import SandboxExchange
from crypto_rt.sandbox.faults import FAULTS, distorted, parse_faults, released
from crypto_rt.sandbox.kraken_websocket import quote_of
from crypto_rt.sandbox.recording import Recording
from crypto_rt.sandbox.server import open_sandbox, serving
from crypto_rt.services.trades import drive
from crypto_rt.verify.chaos_schedule import USUAL, chain, schedule, write_market
from tests.repeat import many

SERVICES = {spec.name for spec in chain()}


def settings_at(urls, **data):
    fast = dict(
        reconnect_first_seconds=0.02,
        reconnect_max_seconds=0.1,
        dead_man_seconds=0.6,
        rest_timeout_seconds=0.3,
    )
    return load_settings(env={}, data=data, exchange=dict(websocket_url=urls[0], rest_url=urls[1], **fast))


@pytest.fixture(scope='module')
def market(tmp_path_factory):
    file = tmp_path_factory.mktemp('market') / 'market.parquet'
    return file, write_market(file, 3000)


def test_rates_are_honoured_and_the_same_seed_gives_the_same_faults():
    asked = 20_000
    for rate in (0.002, 0.05, 0.5):
        one, two, other = (parse_faults(f'drop={rate},late=0.1;seed={seed}') for seed in (3, 3, 4))
        hits = [number for number in range(asked) if one.hit('drop')]
        assert abs(len(hits) - asked * rate) < 5 * (asked * rate * (1 - rate)) ** 0.5 and one.counts[
            'drop'
        ] == len(hits)
        for _ in range(17):
            two.hit('late')  # what another kind does changes nothing
        assert (
            hits
            == [number for number in range(asked) if two.hit('drop')]
            != [number for number in range(asked) if other.hit('drop')]
        )
    assert not any(parse_faults('').hit(kind) for kind in FAULTS)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('dropp=0.1', "the nearest is 'drop'"),
        ('rest-429=0.1', "the nearest is 'rest429'"),
        ('drop', 'needs a number'),
        ('drop=nine', "was 'nine'"),
        ('drop=1.5', 'a rate from 0 to 1'),
        ('drop=nan', 'a rate from 0 to 1'),
        ('drop=-0.1', 'a rate'),
        ('drop=0.1;sed=3', 'expected seed=NUMBER'),
        ('drop=0.1;seed=x', 'expected seed'),
    ],
)
def test_a_wrong_wish_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        parse_faults(text)


def test_what_is_held_back_comes_once_and_later():
    faults, sent = parse_faults('reorder=0.1,delay=0.1,late=0.1;seed=5'), []
    for number in range(2000):
        sent += [(int(text), number) for text in distorted(faults, str(number), 1000 * number)]
    sent += [(int(text), 10**6) for text in released(faults, 10**12)]
    assert sorted(text for text, _ in sent) == list(range(2000))
    apart = Counter(
        'in time' if at == text else 'next' if at == text + 1 else 'seconds' if at - text <= 9 else 'minutes'
        for text, at in sent
    )
    assert min(apart[kind] for kind in ('next', 'seconds', 'minutes')) > 50 and apart['in time'] > 1300


def test_a_shuffled_frame_has_the_same_trades_and_a_truncated_one_cannot_be_read():
    raw = (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":0.10,"qty":5.1e-05,"ord_type":"limit","trade_id":1,'
        b'"timestamp":"2026-09-25T17:48:26.844359Z"},{"symbol":"BTC/USD","side":"sell","price":83744.3,"qty":2,"ord_type":"market","trade_id":2,'
        b'"timestamp":"2026-09-25T17:48:26.844360Z"}]}'
    )
    (turned,) = distorted(parse_faults('shuffle=1'), raw, 1)
    assert read_frame(turned).trades == read_frame(raw).trades[::-1]
    (cut,) = distorted(parse_faults('truncate=1'), raw, 1)
    with pytest.raises(ValueError):
        read_frame(cut)


@pytest.mark.parametrize(
    'kind',
    [
        'drop',
        'duplicate',
        'reorder',
        'delay',
        'late',
        'shuffle',
        'truncate',
        'cut',
        'close',
        'stall',
        'status',
        'refuse',
        'rest429',
        'restlimit',
        'rest520',
        'resttimeout',
    ],
)
def test_a_client_gets_every_trade_whatever_goes_wrong(market, kind):
    file, count = market
    rate = {
        'cut': 0.003,
        'close': 0.003,
        'stall': 0.001,
        'refuse': 0.5,
        'late': 0.01,
        'rest429': 0.4,
        'restlimit': 0.4,
        'rest520': 0.4,
        'resttimeout': 0.2,
    }.get(kind, 0.05)
    text = (
        f'{kind}={rate};seed=2'
        if not kind.startswith('re') or kind == 'reorder'
        else f'drop=0.02,cut=0.003,{kind}={rate};seed=2'
    )

    async def go():
        exchange = SandboxExchange(Recording(file), float('inf'), faults=parse_faults(text))
        feed, got = (
            Feed([SymbolState(s, since_ms=0, fetch_first=True) for s in exchange.market.symbols], 'replay'),
            [],
        )
        async with asyncio.timeout(60), serving(exchange) as urls:
            await drive(settings_at(urls), feed, Kraken(settings_at(urls)), got.extend, until_end=True)
        return exchange, [decode(m.topic, m.value) for m in got if m.topic == 'trades']

    exchange, messages = asyncio.run(go())
    ids = Counter((m.symbol, t.trade_id) for m in messages if isinstance(m, Trades) for t in m.trades)
    assert exchange.faults.counts[kind] > 0
    assert len(ids) == count and set(ids.values()) == {1}


def test_faults_of_rest_reach_the_client_as_what_they_are(market):
    async def go():
        found = Counter()
        exchange = SandboxExchange(
            Recording(market[0]),
            float('inf'),
            faults=parse_faults('rest429=0.3,restlimit=0.3,rest520=0.3;seed=1'),
        )

        def ask(url):
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return 'limit' if b'EAPI:Rate limit exceeded' in answer.read() else 200
            except urllib.error.HTTPError as error:
                assert b'<html>' in error.read() and 'html' in error.headers['Content-Type']
                return error.code

        async with serving(exchange) as (_, rest):
            for _ in range(60):
                found[await asyncio.to_thread(ask, f'{rest}/public/Time')] += 1
            said = json.loads(
                await asyncio.to_thread(lambda: urllib.request.urlopen(f'{rest}/faults').read())
            )
        return found, said

    found, said = asyncio.run(go())
    assert (
        set(found) == {429, 520, 'limit', 200}
        and found[429] == said['rest429']
        and found[520] == said['rest520']
        and found['limit'] == said['restlimit']
    )


def test_a_replay_that_was_killed_goes_on_in_the_same_run_only(market, tmp_path, monkeypatch):
    (tmp_path / 'exchange.json').write_text(
        json.dumps({'run_id': 'one', 'reached_ms': 1_762_776_900_000, 'ended': False, 'faults': {'drop': 3}})
    )

    async def opened(run_id):
        exchange = open_sandbox(
            load_settings(env={}, run={'id': run_id}, data={'directory': str(tmp_path)}),
            market[0],
            faults='drop=0.1',
        )
        return exchange.reached_ms, exchange.faults.counts['drop']

    assert asyncio.run(opened('one')) == (1_762_776_900_000, 3)
    assert asyncio.run(opened('two')) == (0, 0)


def test_quotes_follow_the_trades(market):
    from websockets.asyncio.client import connect

    async def go():
        exchange, frames = SandboxExchange(Recording(market[0]), float('inf')), []
        async with serving(exchange) as (url, _), connect(url) as socket:
            for channel in ('ticker', 'trade'):
                await socket.send(
                    json.dumps(
                        {
                            'method': 'subscribe',
                            'params': {'channel': channel, 'symbol': ['BTC/USD'], 'snapshot': True},
                        }
                    )
                )
            async with asyncio.timeout(20):
                while not frames or frames[-1].get('type') != 'end':
                    frames.append(json.loads(await socket.recv()))
        return exchange, frames

    exchange, frames = asyncio.run(go())
    quotes = (
        [frame['data'][0] for frame in frames if frame['channel'] == 'ticker']
        if all('channel' in f for f in frames)
        else [f['data'][0] for f in frames if f.get('channel') == 'ticker']
    )
    rows = {row.price: row for row in exchange.market.history['BTC/USD']}
    assert len(quotes) > 100 and all(
        q['bid'] < q['ask'] and q['last'] in (q['bid'], q['ask']) for q in quotes
    )
    assert all(a['timestamp'] < b['timestamp'] for a, b in pairwise(quotes))
    assert {str(q['last']) for q in quotes} <= set(rows) and quote_of(rows[str(quotes[0]['last'])])


def test_any_five_seeds_kill_everybody():
    for first in range(1, 200):
        victims = Counter(victim for seed in range(first, first + 5) for _, victim in schedule(seed).kills)
        assert set(victims) == {*SERVICES, 'broker'}
    assert all(0 < at < 1 for seed in range(100) for at, _ in schedule(seed).kills)
    assert set(USUAL) == set(FAULTS) - {'skew'}


def verify(seeds, folder):
    "Run the verification in a process of its own: it forks, and this one has threads."
    command = [str(Path(sys.executable).with_name('crypto-rt')), 'verify', 'chaos', '--seeds', str(seeds)]
    began, env = time.monotonic(), {**os.environ, 'TMPDIR': str(folder)}  # where runs are kept
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), time.monotonic() - began


def test_the_chain_keeps_its_data_under_faults_and_kills(tmp_path):
    seeds = many(2)
    told, seconds = verify(seeds, tmp_path)
    print(json.dumps(told), f'{seconds:.0f} s')
    assert told['ok'] and told['identical'] == told['seeds'] == seeds, told
    assert told['trades'] >= 20_000 and told['symbols'] >= 3
    assert set(told['kills']) == {*SERVICES, 'broker'} and min(told['kills'].values()) >= 1, told['kills']


def test_chaos_says_what_it_cannot_do_yet():
    from crypto_rt.verify.chaos import verify_chaos

    with pytest.raises(ValueError, match='one instance'):
        verify_chaos(1, instances=2)


def test_the_first_trade_is_not_lost_when_rest_was_asked_too_early():
    from crypto_rt.core.messages import Trade
    from crypto_rt.market.exchange import Frame

    def trades(*ids):
        return [Trade(i, '1', '1', 'buy', 'limit', 1_762_776_000_000 + 1000 * i) for i in ids]

    def frame(*ids):
        return Frame(
            'trade',
            trades=[
                ('BTC/USD', t.trade_id, t.price, t.quantity, t.side, t.order_type, t.event_ms)
                for t in trades(*ids)
            ],
        )

    for early in ([frame(2)], []):  # the second trade comes before REST's empty answer, or after it
        feed = Feed([SymbolState('BTC/USD', since_ms=0, fetch_first=True)], 'replay')
        feed.take([Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade')], 1_762_776_000_000)
        assert [want.since_ms for want in feed.rest_requests(1_762_776_000_100)] == [0]
        feed.take(early, 1_762_776_000_200)
        feed.take_rest_page('BTC/USD', [], True, 1_762_776_000_300)
        feed.take([frame(2), frame(3)], 1_762_776_000_400)
        assert [want.since_ms for want in feed.rest_requests(1_762_776_002_000)] == [0]
        feed.take_rest_page('BTC/USD', trades(1, 2, 3), True, 1_762_776_002_100)
        assert (
            feed.states['BTC/USD'].sequence.contiguous_id == 3
            and feed.counts['published'] == 3
            and feed.states['BTC/USD'].is_whole
        )
