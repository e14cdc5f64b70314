"""`/v1/candles`: the past of one symbol."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from apps.context import Context
from apps.queries import SeriesQuery, known_symbol
from apps.responses import reference, responses_schema
from crypto_rt.core.messages import Candle

router = APIRouter()


@router.get(
    '/v1/candles',
    summary='Final candles, oldest first, the highest revision of each',
    responses=responses_schema('candles', reference(Candle)),
)
async def candles(query: Annotated[SeriesQuery, Query()], context: Context, request: Request) -> Response:
    symbol = known_symbol(query.symbol, context.hub.symbols)
    interval_seconds = query.interval or context.settings.data.interval_seconds
    series = context.series('candles', [symbol], interval_seconds, query)
    return await context.listed(request, 'candles', series, symbol=symbol, interval_seconds=interval_seconds)
