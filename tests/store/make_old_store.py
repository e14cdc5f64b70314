"""Makes `old_store.tar.gz`: a data directory as crypto-rt of before 0.2.0 (commit fb3282a) left it, and what it read in it.

The rows are written by that version's own writer, services and view; nothing here is of today. To make it again:

    git worktree add --detach ../old fb3282a && (cd ../old && maturin develop --release)
    PYTHONPATH=../old python tests/store/make_old_store.py tests/store/old_store.tar.gz
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path

from crypto_rt.embedded_store import StoreWriter
from crypto_rt.embedded_store import counted as trade_counters
from crypto_rt.feature_store import GROUPS, canonical_digest, open_feature_store, open_group, training_view
from crypto_rt.gaps import stored_past, verify_gaps
from crypto_rt.indicators import indicators_of
from crypto_rt.messages import Candle, Dropped, Gap, News, NewsSignal, Prediction, Trade, Trades, encode
from crypto_rt.settings import load_settings

from crypto_rt.bus import Received

NOON, MINUTE, DAY = 1_762_776_000_000, 60_000, 86_400_000
SYMBOLS = ('BTC/USD', 'ETH/USD')


def candle(symbol, n, revision=0):
    start, close = NOON + n * MINUTE, f'{100 + n * 7919 % 31 + revision / 8:.2f}'
    return Candle(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        revision=revision,
        end_ms=start + MINUTE,
        open=close,
        high=close,
        low=close,
        close=close,
        volume='2.5',
        quote_volume='250',
        vwap=close,
        trade_count=30,
        buy_volume='1.5',
        first_trade_id=n,
        last_trade_id=n + 29,
        bid=close if n % 3 else None,
        ask=None,
        is_empty=n % 50 == 7,
        is_partial=n % 40 == 3,
        source='trades',
        available_ms=start + MINUTE + 2_000 + revision * 30_000,
    )


def trade(n):
    kind = 'market' if n % 2 else 'limit'
    side = 'buy' if n % 3 else 'sell'
    at = NOON + n * 60_000
    return Trade(trade_id=n, price='105433.6', quantity='0.001', side=side, order_type=kind, event_ms=at)


def gap(first, last, state, revision):
    return Gap(
        symbol='BTC/USD',
        first_missing=first,
        last_missing=last,
        opened_ms=NOON + first,
        updated_ms=NOON + first + revision,
        state=state,
        found=0,
        revision=revision,
        epoch=0,
    )


def story(n):
    at = NOON + n * MINUTE
    return News(
        news_id=f'id{n}',
        title=f'Story {n}',
        body='ünï "quoted"',
        source='wire',
        url=f'https://news.example/{n}',
        assets=['BTC', 'ETH'],
        published_ms=at,
        available_ms=at + 300_000,
        text_hash=f'h{n}',
        flags=['late'] if n % 2 else [],
    )


def signal(n):
    at = NOON + n * MINUTE
    return NewsSignal(
        news_id=f'id{n}',
        scorer='head',
        version='1',
        assets=['BTC'],
        score=0.25 * (n % 3 - 1),
        label='positive',
        confidence=0.9,
        text_hash=f'h{n}',
        published_ms=at,
        available_ms=at + 300_100,
    )


def prediction(n):
    start = NOON + n * MINUTE
    return Prediction(
        symbol='BTC/USD',
        interval_seconds=60,
        horizon_seconds=300,
        start_ms=start,
        revision=0,
        model_version='3',
        made_at_ms=start + 62_100,
        target_ms=start + 360_000,
        last_price=100.0,
        expected_log_return=None,
        lower=-0.1,
        upper=0.1,
        level=0.9,
        expected_price=None,
        status='abstain',
        reasons=['stale', 'gap'],
        model_digest='ab',
        feature_hash='cd',
        flags=[],
        expires_ms=start + 180_000,
        trace={'features': 12},
    )


def sent(topic, items, first):
    return [
        Received(key='BTC/USD', value=encode(item), topic=topic, partition=0, offset=first + n)
        for n, item in enumerate(items)
    ]


def fill(settings):
    store = open_feature_store(settings)
    writer = StoreWriter(store, settings)
    candles = {symbol: [candle(symbol, n) for n in range(500)] for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        open_group(store, 'candles').insert_sealed(candles[symbol][:300])
        writer.take(sent('candles', candles[symbol][300:], 0))
        open_group(store, 'technical_indicators').insert(indicators_of(candles[symbol])[400:])
    open_group(store, 'candles').materialize(NOON + 400 * MINUTE)
    writer.take(sent('candles', [candle('BTC/USD', n, 1) for n in (3, 250, 320, 499)], 5000))
    ids = [n for n in range(1, 301) if not 200 <= n < 210]
    for at in range(0, len(ids), 50):
        batch = sent(
            'trades',
            [Trades('BTC/USD', [trade(n) for n in ids[at : at + 50]], NOON, 'live', duplicates=1)],
            at,
        )
        writer.take(batch)
        writer.take(batch)
    open_group(store, 'trades').materialize(NOON + 150 * MINUTE)
    writer.take(sent('trades', [Trades('BTC/USD', [trade(n) for n in range(90, 101)], NOON, 'rest')], 1000))
    records = [gap(200, 209, 'open', 0), gap(200, 209, 'exchange_hole', 1), gap(400, 402, 'open', 0)]
    writer.take(sent('gaps', [*records, Dropped('BTC/USD', 3, 2, NOON)], 0))
    writer.take(sent('news', [story(n) for n in range(6)], 0))
    open_group(store, 'news').materialize(NOON + 306_000 + 2 * MINUTE)
    writer.take(sent('news_signals', [signal(n) for n in range(6)], 0))
    writer.take(sent('predictions', [prediction(n) for n in range(4)], 0))
    training_view(store)
    store.close()


def read(settings):
    store = open_feature_store(settings)
    found = {'rows': {}, 'digests': {}, 'last': {}}
    for name in GROUPS:
        group = open_group(store, name)
        frame = group.read(all_revisions=True)
        found['rows'][name] = len(frame)
        found['digests'][name] = canonical_digest(frame)
        found['digests'][name + ', latest as of the past'] = canonical_digest(
            group.read(as_of=NOON + 350 * MINUTE)
        )
        found['last'][name] = [encode(item).decode() for item in group.history({}, last=3)]
    view = training_view(store)
    key = dict(symbol='BTC/USD', interval_seconds=60)
    found['training'] = canonical_digest(view.get_batch_data(NOON, NOON + 2 * DAY))
    found['vector'] = view.get_feature_vector(key).values
    found['counters'] = trade_counters(store)
    store.close()
    past = stored_past(settings)
    found['trades'] = past.trades
    found['gaps'] = verify_gaps(settings)
    return found


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(env={}, data=dict(directory=f'{folder}/data', symbols='BTC/USD'))
        fill(settings)
        expected = Path(folder) / 'data' / 'expected.json'
        expected.write_text(json.dumps(read(settings), indent=1, ensure_ascii=False))
        with tarfile.open(out, 'w:gz') as archive:
            for path in sorted(Path(folder, 'data').rglob('*')):
                if path.is_file():
                    archive.add(path, arcname=str(path.relative_to(Path(folder) / 'data')))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
