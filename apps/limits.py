"""How much one client may ask: requests a second, and bytes of a body."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.auth import ApiKeys, is_loopback
from apps.problems import refuse

MAX_CLIENTS = 20_000  # whose requests are counted; who has not asked for longest is forgotten
OPEN_PATHS = ('/v1/health',)  # a probe is never refused for asking too often


def network_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition('%')[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address) or parsed.is_loopback:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class RequestBudget:
    """A bucket of tokens for each client: `burst` at first, `per_second` more, one for each request."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.burst, self.clock = per_second, burst, clock
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and as of when

    def wait(self, client: str) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        now = self.clock()
        tokens, at = self.buckets.pop(client, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - at) * self.per_second)
        is_fine = tokens >= 1
        self.buckets[client] = (tokens - is_fine, now)
        if len(self.buckets) > MAX_CLIENTS:
            self.buckets.popitem(last=False)
        return 0.0 if is_fine else (1 - tokens) / self.per_second


class RateLimitMiddleware:
    """Refuses with 429 who asks too often: a key, or an address where no key of ours is sent.

    On this machine without keys nobody is counted: dashboard, scripts and load tests would share the bucket
    of 127.0.0.1. With keys even 127.0.0.1 is counted, since it may be a proxy that others come through.
    """

    def __init__(self, app: ASGIApp, budget: RequestBudget, keys: ApiKeys) -> None:
        self.app, self.budget, self.keys = app, budget, keys

    def client_of(self, scope: Scope) -> str:
        """Return whose request it is; empty where it is not counted."""
        address = (scope.get('client') or ('', 0))[0]
        if scope['path'] in OPEN_PATHS:
            return ''
        if key := self.keys.given(scope):
            return f'key {key}'
        is_ours = not self.keys.keys and (not address or is_loopback(address) or address == 'testclient')
        return '' if is_ours else network_of(address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse."""
        client = self.client_of(scope) if scope['type'] in ('http', 'websocket') else ''
        seconds = self.budget.wait(client) if client else 0.0
        if not seconds:
            return await self.app(scope, receive, send)
        most = f'{self.budget.per_second:g} requests a second, after {self.budget.burst} at once'
        headers = {'Retry-After': str(math.ceil(seconds))}
        await refuse(scope, receive, send, status=429, detail=f'at most {most}', headers=headers)


class BodyLimitMiddleware:
    """Reads the body before anyone else: refuses what is too long with 413, what is too slow with 408."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with the whole body in hand, or refuse."""
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        announced = headers.get('content-length', '0')
        has_body = announced != '0' or 'transfer-encoding' in headers
        if not has_body:
            return await self.app(scope, receive, send)
        if announced.isascii() and announced.isdigit() and int(announced) > self.max_bytes:
            return await self._too_long(scope, receive, send)
        try:
            body = await asyncio.wait_for(self._read(receive), self.seconds)
        except ConnectionError:
            return  # the client has gone; nobody is left to answer
        except TimeoutError:
            words = f'the body did not come within {self.seconds:g} s'
            close = {'Connection': 'close'}
            return await refuse(scope, receive, send, status=408, detail=words, headers=close)
        if body is None:
            return await self._too_long(scope, receive, send)
        waiting = [{'type': 'http.request', 'body': body, 'more_body': False}]

        async def receive_read() -> Any:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, receive_read, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body; None when it is too long.

        Raises:
            ConnectionError: When the client has gone.
        """
        pieces: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message['type'] != 'http.request':
                raise ConnectionError('the client has gone')
            pieces.append(message.get('body', b''))
            length += len(pieces[-1])
            if length > self.max_bytes:
                return None
            if not message.get('more_body', False):
                return b''.join(pieces)

    async def _too_long(self, scope: Scope, receive: Receive, send: Send) -> None:
        words = f'a body may have {self.max_bytes} bytes'
        await refuse(scope, receive, send, status=413, detail=words)
