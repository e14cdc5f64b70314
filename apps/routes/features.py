"""`/v1/features`: what the models see."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from apps.context import Context
from apps.queries import SymbolQuery, known_symbols
from apps.responses import json_response

router = APIRouter()


@router.get(
    '/v1/features',
    summary='Every feature: its declaration, newest value, '
    'and statistics over the store and over the candles in memory',
)
async def features(query: Annotated[SymbolQuery, Query()], context: Context) -> Response:
    symbols = known_symbols(query.symbol, context.hub.symbols)
    stored = context.history.statistics()
    return json_response(await asyncio.to_thread(context.features.body, symbols, stored))
