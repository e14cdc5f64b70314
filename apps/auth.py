"""Who may ask: API keys, names of this machine, and pages of which origin."""

from __future__ import annotations

import ipaddress
import re
import secrets
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.problems import refuse
from crypto_rt.core.settings import secret

OPEN_PATHS = ('/v1/health',)  # need no key
OUR_NAMES = ('127.0.0.1', 'localhost', '[::1]', 'testserver')  # of this machine
COOKIE = 'crypto_rt_key'
REFUSED = 1008  # the close code of a websocket for a policy
NO_KEY = 'an API key is required: send X-API-Key, or open the dashboard with ?key=...'
HOST = re.compile(r'(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?')
ORIGIN = re.compile(r'https?://(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?', re.I)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    if host in ('localhost', 'testserver'):
        return True
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return False


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Tell whether a page may ask us: one of this machine, or one that we served.

    Programs send no origin, and may. What is no origin, or has a path or a user in it, may not.
    """
    if origin is None:
        return True
    if not ORIGIN.fullmatch(origin):
        return False
    try:
        page = urlsplit(origin)
    except ValueError:  # an IPv6 address that is none
        return False
    return is_loopback(page.hostname or '') or page.netloc == host


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


class ApiKeys:
    """The keys that let in: `X-API-Key`, a bearer token, `?key=`, or the cookie that the last one leaves."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self.keys = keys

    def is_ours(self, key: str) -> bool:
        """Compare in constant time."""
        return any(secrets.compare_digest(key.encode(), ours.encode()) for ours in self.keys)

    def given(self, scope: Scope) -> str:
        """Return the key of ours that a request carries; empty if none."""
        if not self.keys:
            return ''
        request = HTTPConnection(scope)
        candidates = (
            request.headers.get('x-api-key', ''),
            request.headers.get('authorization', '').removeprefix('Bearer '),
            request.query_params.get('key', ''),
            request.cookies.get(COOKIE, ''),
        )
        return next((key for key in candidates if key and self.is_ours(key)), '')


class ApiKeyMiddleware:
    """Lets requests through that carry one of our keys; a key in the address is taken out of it."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse with 401."""
        if scope['type'] not in ('http', 'websocket'):
            return await self.app(scope, receive, send)
        is_let_in, query = bool(self.keys.given(scope)), HTTPConnection(scope).query_params
        in_query = query.get('key', '')
        if in_query:  # no route has such a parameter
            rest = [pair for pair in query.multi_items() if pair[0] != 'key']
            scope['query_string'] = urlencode(rest).encode()
        if scope['path'] in OPEN_PATHS:
            return await self.app(scope, receive, send)
        if not is_let_in:
            if scope['type'] == 'websocket':
                return await send({'type': 'websocket.close', 'code': REFUSED, 'reason': NO_KEY})
            challenge = {'WWW-Authenticate': 'Bearer'}
            return await refuse(scope, receive, send, status=401, detail=NO_KEY, headers=challenge)

        async def send_with_cookie(message: Any) -> None:
            if message['type'] == 'http.response.start' and in_query and self.keys.is_ours(in_query):
                cookie = f'{COOKIE}={in_query}; HttpOnly; SameSite=Strict; Path=/'
                header = (b'set-cookie', cookie.encode('latin-1', 'ignore'))
                message = {**message, 'headers': [*message['headers'], header]}
            await send(message)

        await self.app(scope, receive, send_with_cookie)


class HostMiddleware:
    """Refuses requests without one plain Host header, and on this machine those for a foreign name.

    Else a page of another site could reach us by a name of its own that points here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...] = ()) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse with 400."""
        if scope['type'] not in ('http', 'websocket'):
            return await self.app(scope, receive, send)
        hosts = Headers(scope=scope).getlist('host')
        match = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            detail = 'expected one Host header, such as 127.0.0.1:8000'
        elif self.names and match['name'].lower() not in self.names:
            detail = f'without API keys the host must be one of {", ".join(self.names[:3])}'
        else:
            return await self.app(scope, receive, send)
        await refuse(scope, receive, send, status=400, detail=detail)


class OriginMiddleware:
    """Refuses what pages of other sites ask for; a link to us is none of that.

    A browser says by `Origin`, and by `Sec-Fetch-Site` where it sends no origin, whose page asks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse with 403, a websocket with 1008."""
        if scope['type'] not in ('http', 'websocket'):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        origins, host = headers.getlist('origin'), headers.get('host')
        is_fine = len(origins) < 2 and origin_allowed(headers.get('origin'), host)
        is_foreign = headers.get('sec-fetch-site') == 'cross-site' and not origins
        if is_fine and not (is_foreign and headers.get('sec-fetch-mode') != 'navigate'):
            return await self.app(scope, receive, send)
        if scope['type'] == 'websocket':
            reason = 'this page may not read the stream'
            return await send({'type': 'websocket.close', 'code': REFUSED, 'reason': reason})
        await refuse(scope, receive, send, status=403, detail='pages of other sites may not ask here')
