"""Pages and files beside the live page: the list of endpoints, the features, the stream's description."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from apps.assets import STATIC
from apps.dashboard import document

router = APIRouter()
ASYNCAPI = Path(__file__).with_name('asyncapi.yaml')


@router.get('/docs', include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Return the endpoints as a page."""
    return HTMLResponse(docs_page(request.app.openapi()))


@router.get('/features', include_in_schema=False)
async def features_page() -> HTMLResponse:
    """Return the features page, which features.js fills."""
    body = (STATIC / 'features.html').read_text(encoding='utf-8')
    return HTMLResponse(document('Features', body, page='features', attributes=' data-page="features"'))


@router.get('/asyncapi.yaml', include_in_schema=False)
async def asyncapi() -> Response:
    """Return the description of the websocket."""
    return Response(ASYNCAPI.read_bytes(), media_type='text/yaml; charset=utf-8')


@router.get('/favicon.ico', include_in_schema=False)
async def favicon() -> Response:
    """Return the icon, where a browser asks for it unbidden."""
    return Response((STATIC / 'favicon.svg').read_bytes(), media_type='image/svg+xml')


def docs_page(openapi: dict[str, Any]) -> str:
    """Return the endpoints as one page that loads nothing from anywhere."""
    rows = [
        endpoint_row(method, path, operation)
        for path, operations in openapi['paths'].items()
        for method, operation in operations.items()
    ]
    return document(
        'API',
        f"<main class='crt-doc'><h1>crypto-rt API {openapi['info']['version']}</h1>"
        "<p>The machine's version: <a href='/openapi.json'>openapi.json</a>; "
        "the websocket <code>/v1/stream</code>: <a href='/asyncapi.yaml'>asyncapi.yaml</a>.</p>"
        "<table class='crt-table'><thead><tr><th>Endpoint<th>Parameters<th>What comes back</thead>"
        f'{"".join(rows)}</table></main>',
        page='theme',
    )


def endpoint_row(method: str, path: str, operation: dict[str, Any]) -> str:
    """Return one line of the table of endpoints; a parameter with a question mark may be left out."""
    parameters = ', '.join(
        parameter['name'] + ('' if parameter.get('required') else '?')
        for parameter in operation.get('parameters', ())
    )
    return (
        f"<tr><td><code>{method.upper()} <a href='{path}'>{path}</a></code>"
        f'<td><code>{parameters}</code><td>{html.escape(operation.get("summary", ""))}'
    )
