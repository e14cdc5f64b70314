"""`/v1/symbols`: what is watched."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from apps.context import Context
from apps.hub import Hub
from apps.responses import json_response

router = APIRouter()


@router.get('/v1/symbols', summary='What is watched, and its last price')
async def symbols(context: Context) -> Response:
    data = context.settings.data
    body = {
        'interval_seconds': data.interval_seconds,
        'horizon_seconds': data.horizon_seconds,
        'symbols': [last_price(context.hub, symbol) for symbol in context.hub.symbols],
    }
    return json_response(body)


def last_price(hub: Hub, symbol: str) -> dict[str, Any]:
    """Return the close of the candle that is forming, or of the last final one; nulls before the first."""
    newest = hub.recent.latest('candles_forming', symbol) or hub.recent.latest('candles', symbol)
    return {
        'symbol': symbol,
        'last_price': newest and newest.struct.close,
        'start_ms': newest and newest.struct.start_ms,
    }
