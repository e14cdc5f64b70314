"""Large lists and their lane: one at a time, a few wait, and nothing hangs."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from apps import lanes
from apps.app import create_app
from apps.lanes import Lane, one_process, one_thread
from crypto_rt.core.settings import load_settings
from crypto_rt.store.open import open_feature_store, open_group
from tests.apps.builders import START, candle
from tests.apps.doubles import HERE, Api, Feed, until


def test_one_at_a_time_and_so_many_may_wait():
    go, most, running = threading.Event(), [0], [0]

    def work():
        running[0] += 1
        most[0] = max(most[0], running[0])
        go.wait(5)
        running[0] -= 1
        return 'done'

    async def ask():
        lane = Lane(2, one_thread)
        tasks = [asyncio.create_task(lane.do(work)) for _ in range(5)]
        await asyncio.sleep(0.2)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert answers[:3] == ['done'] * 3 and most == [1]
    for refused in answers[3:]:
        assert isinstance(refused, HTTPException) and refused.status_code == 503
        assert int(refused.headers['Retry-After']) >= 1


def test_nothing_is_done_for_who_has_gone():
    async def gone():
        return True

    async def ask():
        await Lane(1, one_thread).do(lambda: pytest.fail('it was done'), gone)

    with pytest.raises(HTTPException, match='gone'):
        asyncio.run(ask())


def test_a_process_that_dies_or_hangs_is_replaced(tmp_path, monkeypatch):
    settings = load_settings('/dev/null', {}, data={'directory': str(tmp_path)})

    async def ask():
        lane = Lane(1, lambda: one_process(settings))
        first = await lane.do(os.getpid)
        assert first != os.getpid()
        os.kill(first, signal.SIGKILL)
        with pytest.raises(HTTPException):
            await lane.do(os.getpid)
        second = await lane.do(os.getpid)
        monkeypatch.setattr(lanes, 'WORK_SECONDS', 0.3)
        with pytest.raises(HTTPException):
            await lane.do(SLEEP)
        monkeypatch.setattr(lanes, 'WORK_SECONDS', 60)
        third = await lane.do(os.getpid)
        lane.close()
        return {first, second, third}

    pids = asyncio.run(ask())
    assert len(pids) == 3
    until(lambda: not any(is_running(pid) for pid in pids), 10)


class Sleep:
    "Sleeps for a minute, in whatever process it is called."

    def __call__(self):
        time.sleep(60)


SLEEP = Sleep()


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it may end between two questions
        return False


def test_a_large_list_is_the_same_as_a_small_one(tmp_path):
    settings = load_settings('/dev/null', {}, data={'directory': str(tmp_path)})
    store = open_feature_store(settings)
    open_group(store, 'candles').insert([candle(i, close=f'{100 + i}') for i in range(50)])
    store.close()
    feed = Feed()
    with TestClient(create_app(settings, feed), base_url=HERE) as client:
        api = Api(client, feed)
        api.send(candle(49, close='7', revision=1), candle(50, close='8'))
        query = {'symbol': 'BTC/USD', 'since': START + 60_000}
        small = api.get('/v1/candles', **query, limit=1000)
        assert [c['close'] for c in small['candles']] == [*(str(100 + i) for i in range(1, 49)), '7', '8']
        process = client.app.state.context.history.large
        assert process.executor is None, 'a small one needs no process'
        assert api.get('/v1/candles', **query, limit=5000) == small and process.executor is not None
        feed.waiting.put(None)


def test_too_many_large_lists_are_told_when_to_come_back(tmp_path):
    settings = load_settings('/dev/null', {}, data={'directory': str(tmp_path)}, api={'heavy_queue': 1})

    class Slow:
        def get_feature_group(self, name, version):
            time.sleep(0.5)

    feed = Feed()
    with (
        TestClient(create_app(settings, feed, Slow()), base_url=HERE) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        ask = '/v1/indicators?symbol=BTC/USD&limit=5000'
        large = [pool.submit(client.get, ask) for _ in range(6)]
        time.sleep(0.1)
        began = time.monotonic()
        assert client.get('/v1/symbols').status_code == 200 and time.monotonic() - began < 0.4
        answers = [one.result() for one in large]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
        assert all(int(a.headers['retry-after']) >= 1 for a in answers if a.status_code == 503)
        feed.waiting.put(None)
