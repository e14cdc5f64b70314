"""Errors as problem details (RFC 9457), the same for every address and in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from apps.headers import ALWAYS, NOTHING

MEDIA_TYPE = 'application/problem+json'
SCHEMA = {
    'type': 'object',
    'description': 'Problem details of RFC 9457',
    'required': ['type', 'title', 'status', 'detail'],
    'properties': {
        'type': {'type': 'string', 'const': 'about:blank'},
        'title': {'type': 'string', 'description': 'the words of the status code'},
        'status': {'type': 'integer', 'description': 'the status code'},
        'detail': {'type': 'string', 'description': 'what is wrong, and what was expected'},
        'errors': {
            'type': 'array',
            'description': 'one for each parameter that is wrong',
            'items': {
                'type': 'object',
                'required': ['parameter', 'detail'],
                'properties': {'parameter': {'type': 'string'}, 'detail': {'type': 'string'}},
            },
        },
    },
}
MEANINGS = {
    400: 'what came is no HTTP request, or is for another host',
    401: 'an API key is required',
    403: 'a page of another site may not ask',
    404: 'there is no such address, symbol or scorer',
    405: 'another method; Allow names those there are',
    408: 'the request did not come in time',
    413: 'the body is too long',
    414: 'the request line is too long',
    422: 'a parameter is wrong, missing or unknown',
    429: 'too many requests; Retry-After says when to come back',
    431: 'the headers are too long',
    500: 'our fault; the log says more',
    503: 'not now; Retry-After, where it is given, says when to come back',
}
RETRY_AFTER = {'Retry-After': {'description': 'seconds', 'schema': {'type': 'integer', 'minimum': 1}}}
HEADERS = {
    405: {'Allow': {'description': 'the methods there are', 'schema': {'type': 'string'}}},
    429: RETRY_AFTER,
}


def problem(status: int, detail: str, **members: Any) -> bytes:
    """Return the body that tells what is wrong."""
    title = HTTPStatus(status).phrase
    return msgspec.json.encode(
        {'type': 'about:blank', 'title': title, 'status': status, 'detail': detail, **members}
    )


def problem_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return an answer that tells what is wrong.

    Args:
        status: 400 or above.
        detail: What is wrong with this request, and what was expected.
        headers: Beside those of every answer.
        members: More of the body, such as `errors`.
    """
    return Response(problem(status, detail, **members), status, dict(headers or {}), MEDIA_TYPE)


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Refuse a request, or the handshake of a websocket, where the server can answer one."""
    if scope['type'] == 'http':
        return await problem_response(status, detail, headers)(scope, receive, send)
    if 'websocket.http.response' not in scope.get('extensions', {}):
        return await send({'type': 'websocket.close', 'code': 1008, 'reason': detail[:120]})
    body = problem(status, detail)
    names = {'content-type': MEDIA_TYPE, **(headers or {})}
    raw = [(name.lower().encode(), value.encode()) for name, value in names.items()]
    await send({'type': 'websocket.http.response.start', 'status': status, 'headers': raw})
    await send({'type': 'websocket.http.response.body', 'body': body})


def documented_problems() -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI words for every error that any address may answer with."""
    content = {MEDIA_TYPE: {'schema': {'$ref': '#/components/schemas/Problem'}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status, words in MEANINGS.items():
        found[status] = {'description': words, 'content': content}
        if status in HEADERS:
            found[status]['headers'] = HEADERS[status]
    return found


async def _of_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, str(error.detail), error.headers)


async def _of_wrong_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            'parameter': '.'.join(map(str, one['loc'][1:])) or str(one['loc'][0]),
            'detail': one['msg'].removeprefix('Value error, '),
        }
        for one in error.errors()
    ]
    detail = '; '.join(f'{one["parameter"]}: {one["detail"]}' for one in errors)
    return problem_response(422, detail, errors=errors)


async def _of_our_fault(request: Request, error: Exception) -> Response:
    headers = {
        **ALWAYS,
        'Content-Security-Policy': NOTHING,
        'Cache-Control': 'no-store',
    }  # no middleware sees this
    return problem_response(500, 'this is our fault; the log of the API says more', headers)


def answer_with_problems(app: FastAPI) -> None:
    """Answer every error of an app with problem details."""
    app.add_exception_handler(HTTPException, _of_http_exception)
    app.add_exception_handler(RequestValidationError, _of_wrong_parameters)
    app.add_exception_handler(Exception, _of_our_fault)
