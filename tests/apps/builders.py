"""Messages as the services would send them, made of a few words: `i` counts minutes from `START`."""

from crypto_rt import testing
from crypto_rt.core.messages import FormingCandle, NewsSignal, Prediction, TechnicalIndicators
from crypto_rt.testing import START_MS as START


def candle(i=0, symbol='BTC/USD', close='105433.6', **changes):
    values = dict(
        symbol=symbol,
        open='105400',
        high='105500',
        low='105390.1',
        close=close,
        volume='1.25',
        trade_count=7,
        first_trade_id=max(0, 10 * i),
        last_trade_id=max(0, 10 * i) + 6,
    )
    return testing.candle(i, **values | changes)


def forming(i=0, symbol='BTC/USD', close='105440'):
    start = START + i * 60_000
    return FormingCandle(
        symbol=symbol,
        interval_seconds=60,
        start_ms=start,
        end_ms=start + 60_000,
        open='105400',
        high='105500',
        low='105390.1',
        close=close,
        volume='0.5',
        trade_count=3,
        last_trade_id=4,
        as_of_ms=start + 30_000,
    )


def prediction(i=0, symbol='BTC/USD', status='baseline'):
    c, has_forecast = candle(i, symbol), status != 'abstain'
    return Prediction(
        symbol=symbol,
        interval_seconds=60,
        horizon_seconds=300,
        start_ms=c.start_ms,
        revision=0,
        model_version='baseline-1',
        made_at_ms=c.available_ms,
        target_ms=c.end_ms + 300_000,
        last_price=105433.6,
        expected_log_return=0.0 if has_forecast else None,
        lower=-0.002 if has_forecast else None,
        upper=0.002 if has_forecast else None,
        level=0.9,
        expected_price=105433.6 if has_forecast else None,
        status=status,
        reasons=[] if has_forecast else ['stale input'],
        model_digest='ab' * 32,
        feature_hash='cd' * 32,
        flags=[],
        expires_ms=c.end_ms + 300_000,
        trace={},
    )


def indicators(i=0):
    c = candle(i)
    return TechnicalIndicators(
        symbol=c.symbol,
        interval_seconds=60,
        start_ms=c.start_ms,
        revision=0,
        end_ms=c.end_ms,
        close=105433.6,
        values={'rsi_14': 55.5, 'ema_200': None},
        warm_up=3,
        feature_set='v1',
        is_partial=False,
        available_ms=c.available_ms,
    )


def story(i=0, title='A fund buys bitcoin', url='https://news.example/1', assets=('BTC',), **changes):
    at = START + i * 60_000
    values = dict(news_id=f'n{i}', url=url, assets=list(assets), published_ms=at - 90_000, available_ms=at)
    return testing.story(i, title, **values | changes)


def signal(i=0, score=0.5, scorer='head', assets=('BTC',), version='1'):
    at = START + i * 60_000
    label = 'positive' if score > 0 else 'negative' if score < 0 else 'neutral'
    return NewsSignal(
        news_id=f'n{i}',
        scorer=scorer,
        version=version,
        assets=list(assets),
        score=score,
        label=label,
        confidence=0.8,
        text_hash='ab',
        published_ms=at - 90_000,
        available_ms=at + 1000,
    )
