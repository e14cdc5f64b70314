"""`/v1/model`: what predicts each symbol now."""

from __future__ import annotations

from fastapi import APIRouter, Response

from apps.context import Context
from apps.responses import json_response

router = APIRouter()
FIELDS = (
    'symbol',
    'interval_seconds',
    'horizon_seconds',
    'model_version',
    'model_digest',
    'level',
    'status',
    'made_at_ms',
)


@router.get('/v1/model', summary='What predicts each symbol now')
async def model(context: Context) -> Response:
    recent = context.hub.recent
    newest = [recent.latest('predictions', symbol) for symbol in context.hub.symbols]
    rows = [
        {name: getattr(message.struct, name) for name in FIELDS} for message in newest if message is not None
    ]
    return json_response({'models': rows})
