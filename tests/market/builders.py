"""Trades, frames and feeds for the tests of gaps, and services as processes that can be killed."""

import json
import os
import subprocess
import sys
import time

from crypto_rt.core.messages import Trade, Trades, decode
from crypto_rt.core.settings import ExchangeSettings
from crypto_rt.market.exchange import Frame
from crypto_rt.market.feed import Feed

START = 1_700_000_000_000


def trade(number, at=None):
    return Trade(
        trade_id=number,
        price='1.5',
        quantity='2',
        side='buy',
        order_type='limit',
        event_ms=START + 100 * number if at is None else at,
    )


def frame(numbers, snapshot=False, at=None):
    items = [
        ('BTC/USD', n, '1.5', '2', 'buy', 'limit', START + 100 * n if at is None else at) for n in numbers
    ]
    return Frame('trade', b'{"raw":1}', trades=items, snapshot=snapshot)


def opened(state, source='replay', **exchange):
    feed = Feed([state], source, ExchangeSettings(**exchange))
    feed.take([Frame('connected'), Frame('ack', symbol='BTC/USD', channel='trade')], START)
    return feed


def messages(outs, *kinds):
    found = [decode(o.topic, o.value) for o in outs]
    return [m for m in found if isinstance(m, kinds)] if kinds else found


def ids(outs):
    return [t.trade_id for m in messages(outs, Trades) for t in m.trades]


CODE = {
    'exchange': 'from crypto_rt.sandbox.server import run_exchange; run_exchange(load_settings(env={}), file=sys.argv[1], speed=3, faults=sys.argv[2], '
    'on_ready=lambda *urls: print(*urls, flush=True))',
    'trades': 'from crypto_rt.services.trades import run_trades; from crypto_rt.store.positions import stored_past; run_trades(load_settings(), stored_past)',
    'feature-store': 'from crypto_rt.services.feature_store import run_feature_store; run_feature_store(load_settings())',
}


def _line(symbol, number):
    at = START + 10 * number
    stamp = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at // 1000)) + f'.{at % 1000:03}000Z'
    return (
        f'{{"channel":"trade","type":"update","data":[{{"symbol":"{symbol}","side":"buy","price":1.5,"qty":2,"ord_type":"limit",'
        f'"trade_id":{number},"timestamp":"{stamp}"}}]}}'
    )


def start(name, *arguments, env=None, **options):
    line = [
        sys.executable,
        '-c',
        f'import sys; from crypto_rt.core.settings import load_settings; {CODE[name]}',
        *arguments,
    ]
    return subprocess.Popen(line, env=os.environ | (env or {}), **options)


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, 'it has not come to that'
        time.sleep(0.1)


def trade_text(symbol, number, **fields):
    "Return a frame with one trade that happened just now; `fields` replace what it says."
    at = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime()) + '.000001Z'
    item = dict(symbol=symbol, side='buy', price=1.5, qty=2, ord_type='limit', trade_id=number, timestamp=at)
    return json.dumps({'channel': 'trade', 'type': 'update', 'data': [item | fields]})


def answer_text(message, symbol, /, **fields):
    "Return the acknowledgement of a request, or what `fields` make of it."
    channel = message['params']['channel']
    good = {'success': True, 'result': {'channel': channel, 'symbol': symbol}}
    return json.dumps({'method': 'subscribe', 'req_id': message['req_id']} | (fields or good))
