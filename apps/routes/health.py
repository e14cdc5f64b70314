"""`/v1/health`: whether the process answers."""

from __future__ import annotations

from fastapi import APIRouter, Response

from apps.context import Context
from apps.responses import json_response

router = APIRouter()


@router.get('/v1/health', summary='The process answers')
async def health(context: Context) -> Response:
    return json_response({'status': 'ok', 'epoch': context.hub.epoch})
