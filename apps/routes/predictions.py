"""`/v1/predictions`: what was predicted, and what is predicted now."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from apps.context import Context
from apps.queries import PredictionsQuery, SymbolQuery, known_symbols
from apps.responses import json_response, reference, responses_schema
from crypto_rt.core.messages import Prediction

router = APIRouter()
RESPONSES = responses_schema('predictions', reference(Prediction))


@router.get('/v1/predictions', summary='Predictions, oldest first', responses=RESPONSES)
async def predictions(
    query: Annotated[PredictionsQuery, Query()], context: Context, request: Request
) -> Response:
    symbols = known_symbols(query.symbol, context.hub.symbols)
    series = context.series('predictions', symbols, query.interval, query)
    return await context.listed(request, 'predictions', series)


@router.get(
    '/v1/predictions/latest',
    name='latest',
    summary='The newest prediction of each symbol',
    responses=RESPONSES,
)
async def latest_predictions(query: Annotated[SymbolQuery, Query()], context: Context) -> Response:
    symbols = known_symbols(query.symbol, context.hub.symbols)
    newest = [context.hub.recent.latest('predictions', symbol) for symbol in symbols]
    return json_response({'predictions': [msgspec.Raw(message.raw) for message in newest if message]})
