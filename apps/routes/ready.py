"""`/v1/ready`: whether the broker and the store can be read."""

from __future__ import annotations

from fastapi import APIRouter, Response

from apps.context import Context
from apps.responses import json_response

router = APIRouter()


@router.get(
    '/v1/ready',
    summary='The broker and the store can be read',
    responses={503: {'description': 'not yet; detail says why'}},
)
async def ready(context: Context) -> Response:
    reasons = [context.hub.bus.removeprefix('connected'), await context.history.unreadable()]
    if any(reasons):
        return json_response({'detail': '; '.join(filter(None, reasons))}, 503)
    return json_response({'status': 'ready'})
