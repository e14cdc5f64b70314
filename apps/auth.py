"""Who may ask: API keys, and pages of which origin may open the stream."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crypto_rt.core.settings import secret

OPEN_PATHS = ('/v1/health',)  # need no key
COOKIE = 'crypto_rt_key'
REFUSED = 1008  # the close code of a websocket for a policy
NO_KEY = 'an API key is required: send X-API-Key, or open the dashboard with ?key=...'


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    if host in ('localhost', 'testserver'):
        return True
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return False


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Tell whether a page may open our websocket: one of this machine, or one that we served.

    Programs send no origin, and may.
    """
    if origin is None:
        return True
    page = urlsplit(origin)
    if page.scheme not in ('http', 'https') or not page.hostname:
        return False
    return is_loopback(page.hostname) or page.netloc == host


def api_keys(host: str) -> tuple[str, ...]:
    """Return the keys of `CRYPTO_RT_API_KEYS`.

    Raises:
        ValueError: When there are none and the API would listen on more than this machine, or when one cannot
            be a cookie.
    """
    keys = tuple(key.strip() for key in secret('CRYPTO_RT_API_KEYS').split(',') if key.strip())
    if not keys and not is_loopback(host):
        raise ValueError(
            f'[api] host is {host}, which others can reach: '
            'expected keys in CRYPTO_RT_API_KEYS (separated by commas), or host 127.0.0.1'
        )
    if any(not key.isascii() or set(key) & set(' ;"\\') for key in keys):
        raise ValueError(
            'CRYPTO_RT_API_KEYS must be plain ASCII without spaces, quotes, semicolons and backslashes'
        )
    return keys


class ApiKeyMiddleware:
    """Lets requests through that carry one of our keys.

    It comes as `X-API-Key`, as a bearer token, as `?key=`, or in the cookie that the last leaves behind.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self.app, self.keys = app, keys

    def is_ours(self, key: str) -> bool:
        """Compare in constant time."""
        return any(secrets.compare_digest(key.encode(), ours.encode()) for ours in self.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse with 401 (a websocket: 1008)."""
        if scope['type'] not in ('http', 'websocket') or scope['path'] in OPEN_PATHS:
            return await self.app(scope, receive, send)
        request = Request({**scope, 'type': 'http'})
        in_query = request.query_params.get('key', '')
        given = (
            request.headers.get('x-api-key', ''),
            request.headers.get('authorization', '').removeprefix('Bearer '),
            in_query,
            request.cookies.get(COOKIE, ''),
        )
        if not any(self.is_ours(key) for key in given if key):
            return await self._refuse(scope, receive, send)

        async def send_with_cookie(message: Any) -> None:
            if message['type'] == 'http.response.start' and in_query and self.is_ours(in_query):
                cookie = f'{COOKIE}={in_query}; HttpOnly; SameSite=Strict; Path=/'
                header = (b'set-cookie', cookie.encode('latin-1', 'ignore'))
                message = {**message, 'headers': [*message['headers'], header]}
            await send(message)

        await self.app(scope, receive, send_with_cookie)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': REFUSED, 'reason': 'an API key is required'})
        else:
            await JSONResponse({'detail': NO_KEY}, 401)(scope, receive, send)
