"""`/v1/indicators`: the features of final candles."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from apps.context import Context
from apps.queries import SeriesQuery, known_symbol
from apps.responses import reference, responses_schema
from crypto_rt.core.messages import TechnicalIndicators

router = APIRouter()


@router.get(
    '/v1/indicators',
    summary='Features of final candles, oldest first',
    responses=responses_schema('indicators', reference(TechnicalIndicators)),
)
async def indicators(query: Annotated[SeriesQuery, Query()], context: Context, request: Request) -> Response:
    symbol = known_symbol(query.symbol, context.hub.symbols)
    interval_seconds = query.interval or context.settings.data.interval_seconds
    series = context.series('technical_indicators', [symbol], interval_seconds, query)
    return await context.listed(
        request, 'indicators', series, symbol=symbol, interval_seconds=interval_seconds
    )
