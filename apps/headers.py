"""What every answer says of itself: how a browser may use it, how long it holds, how it is packed."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

NOTHING = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"  # for what is no page
)
ALWAYS = {
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',  # of browsers that do not know frame-ancestors
    'Referrer-Policy': 'no-referrer',  # an address may hold ?key=
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
}
CHART_STYLE = 'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='  # of the library's release in assets.py
INLINE_SCRIPT = re.compile(r'<script\b(?P<attributes>[^>]*)>(?P<text>.*?)</script\s*>', re.S | re.I)
MAX_TAGGED = 16 * 2**20  # bytes; a longer answer gets no tag of its own


def page_policy() -> str:
    """Return the Content-Security-Policy of our own pages: scripts and styles are files of this server.

    The one style that is none is what the chart library writes; it may, since its text is known.
    """
    return policy("'self'", f"'self' '{CHART_STYLE}'")


def gradio_policy(html: str) -> str:
    """Return the Content-Security-Policy of the page that Gradio makes.

    Of the scripts inside the page only these very ones run, by their digests. Gradio writes styles all over
    its page, evaluates the templates of its HTML, and names a base; it cannot do without.
    """
    inside = [
        match['text']
        for match in INLINE_SCRIPT.finditer(html)
        if not re.search(r'\bsrc\s*=', match['attributes'])
    ]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
    scripts = ["'self'", "'unsafe-eval'", *(f"'sha256-{digest}'" for digest in dict.fromkeys(digests))]
    return policy(' '.join(scripts), "'self' 'unsafe-inline'", base="'self'")


def policy(scripts: str, styles: str, base: str = "'none'") -> str:
    """Return a Content-Security-Policy that loads nothing from anywhere else, in no frame."""
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; manifest-src 'self'; "
        f"frame-ancestors 'none'; base-uri {base}; form-action 'none'"
    )


def raw_headers(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [(name.lower().encode('latin-1'), value.encode('latin-1')) for name, value in headers.items()]


class SecurityHeadersMiddleware:
    """Adds the headers of `ALWAYS`, a Content-Security-Policy where there is none, and a Cache-Control."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.always, self.page = raw_headers(ALWAYS), page_policy()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with the headers on the answer."""
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Any) -> None:
            if message['type'] == 'http.response.start':
                headers = MutableHeaders(raw=[*message.get('headers', ()), *self.always])
                is_page = headers.get('content-type', '').startswith('text/html')
                headers.setdefault('content-security-policy', self.page if is_page else NOTHING)
                headers.setdefault('cache-control', 'no-cache' if message['status'] < 400 else 'no-store')
                message = {**message, 'headers': headers.raw}
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HeadMiddleware:
    """Answers HEAD as GET; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on as GET."""
        if scope['type'] == 'http' and scope['method'] == 'HEAD':
            scope = {**scope, 'method': 'GET'}
        await self.app(scope, receive, send)


def tag_of(body: bytes) -> str:
    """Return the ETag of a body; weak, since it is the same for the body and for the packed body."""
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def is_known(tag: str, scope: Scope) -> bool:
    """Tell whether the client has what a tag stands for."""
    known = Headers(scope=scope).get('if-none-match', '')
    opaque = [one.strip().removeprefix('W/') for one in known.split(',')]
    return tag.removeprefix('W/') in opaque or known.strip() == '*'


class ETagMiddleware:
    """Gives answers to GET that come in one piece an ETag, and answers 304 to whoever has them already."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; the head of the answer waits for the body."""
        if scope['type'] != 'http' or scope['method'] != 'GET':
            return await self.app(scope, receive, send)
        head: dict[str, Any] = {}

        async def send_tagged(message: Any) -> None:
            nonlocal head
            if message['type'] == 'http.response.start' and message['status'] == 200:
                head = dict(message)
                return
            if head and message['type'] == 'http.response.body':
                head, message = self._tagged(scope, head, message)
                await send(head)
                head = {}
            await send(message)

        await self.app(scope, receive, send_tagged)

    def _tagged(self, scope: Scope, head: Any, message: Any) -> tuple[Any, Any]:
        body, headers = message.get('body', b''), MutableHeaders(raw=list(head.get('headers', ())))
        is_whole = not message.get('more_body', False) and len(body) <= MAX_TAGGED
        if is_whole and 'etag' not in headers:
            headers['ETag'] = tag_of(body)
        if not is_whole or not is_known(headers['ETag'], scope):
            return {**head, 'headers': headers.raw}, message
        for name in ('content-length', 'content-type', 'content-encoding'):
            if name in headers:
                del headers[name]
        return {**head, 'status': 304, 'headers': headers.raw}, {'type': 'http.response.body', 'body': b''}
