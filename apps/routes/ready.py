"""`/v1/ready`: whether the broker and the store can be read."""

from __future__ import annotations

from fastapi import APIRouter, Response

from apps.context import Context
from apps.problems import problem_response
from apps.responses import json_response

router = APIRouter()


@router.get(
    '/v1/ready',
    summary='The broker and the store can be read',
)
async def ready(context: Context) -> Response:
    reasons = [context.hub.bus.removeprefix('connected'), await context.history.unreadable()]
    if any(reasons):
        return problem_response(503, '; '.join(filter(None, reasons)))
    return json_response({'status': 'ready'})
