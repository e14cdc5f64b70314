"""`/v1/news`: the latest stories, and what they say of a symbol."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Response

from apps.context import Context
from apps.feature_catalogue import finite
from apps.hub import Hub
from apps.queries import ListQuery, NewsQuery, NewsSignalQuery, known_symbol
from apps.responses import STORY, json_response, responses_schema
from crypto_rt.core.messages import News, NewsSignal
from crypto_rt.features.news_features import news_columns

router = APIRouter()
SHOWN_FEATURE = 'news_sum_6h'  # the feature that /v1/news/signal shows


@router.get(
    '/v1/news',
    summary='The latest stories, the last known first, and what each scorer says of them',
    responses=responses_schema('news', STORY),
)
async def news(query: Annotated[NewsQuery, Query()], context: Context) -> Response:
    hub = context.hub
    asset = known_symbol(query.symbol, hub.symbols).partition('/')[0] if query.symbol else None
    stories = [story for story in hub.news.newest(asset) if query.contains(story.available_ms)]
    body = {
        'through_ms': hub.news.through_ms or None,
        'news': [story_row(hub, story) for story in stories[: query.limit]],
    }
    return json_response(body)


@router.get(
    '/v1/news/signal',
    summary='The sum of the scores about a symbol, halving every 6 h, at the ends of its last candles',
)
async def news_signal(query: Annotated[NewsSignalQuery, Query()], context: Context) -> Response:
    symbol = known_symbol(query.symbol, context.hub.symbols)
    scorer = query.scorer or context.settings.news_signals.scorers[0]
    series = context.series('candles', [symbol], None, ListQuery(limit=query.limit))
    candles = await context.history.messages(series)
    signals = context.hub.news.signals_of(scorer)
    moments = [candle.end_ms for candle in candles]
    points = await asyncio.to_thread(signal_points, signals, symbol, moments)
    return json_response({'symbol': symbol, 'scorer': scorer, 'feature': SHOWN_FEATURE, 'points': points})


def story_row(hub: Hub, story: News) -> dict[str, Any]:
    """Return a story with its signals; the link only where it is http or https."""
    row: dict[str, Any] = msgspec.to_builtins(story)
    row.pop('type', None)
    row['url'] = story.url if story.url.lower().startswith(('http://', 'https://')) else ''
    signals = hub.news.signals.get(story.news_id, {}).values()
    row['signals'] = sorted(signals, key=lambda signal: (signal.scorer, signal.version))
    return row


def signal_points(signals: list[NewsSignal], symbol: str, moments: list[int]) -> list[dict[str, Any]]:
    """Return the sum of the scores about a symbol at each moment; null while no news were received."""
    columns = news_columns(np.array(moments, np.int64), symbol.partition('/')[0], signals)
    values, counts = columns[SHOWN_FEATURE].tolist(), columns['news_count_6h'].tolist()
    return [
        {'at_ms': at_ms, 'value': finite(value), 'count': finite(count)}
        for at_ms, value, count in zip(moments, values, counts, strict=True)
    ]
