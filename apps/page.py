"""What lies at `/`, and what the addresses answer that no route has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from apps import dashboard
from apps.auth import REFUSED
from apps.headers import gradio_policy
from apps.hub import Hub
from apps.problems import problem_response

log = logging.getLogger('crypto_rt.api')
BUILD_SECONDS, CLOSE_SECONDS = 30.0, 1.0
OF_THE_API = ('/metrics', '/docs', '/openapi.json')
# all that the dashboard asks of Gradio; its uploads, file server, proxy and API stay closed
OF_GRADIO = {
    'GET': re.compile(
        r'/|/config|/theme\.css|/manifest\.json|/(?:assets|static)/[\w./-]+|/gradio_api/queue/data'
        r'|/gradio_api/heartbeat/\w+'
    ),
    'POST': re.compile(r'/gradio_api/(?:queue/join|run/predict)'),
}


class DashboardPage:
    """The live page at once, and inside Gradio as soon as that is imported, which the first visit starts.

    Args:
        hub: Its `dashboard` says how far Gradio is.
        api: The app whose last route this is.
        with_gradio: Else it stays the plain live page.
    """

    def __init__(self, hub: Hub, api: FastAPI, with_gradio: bool) -> None:
        self.hub, self.api, self.with_gradio = hub, api, with_gradio
        self.gradio: FastAPI | None = None
        self.has_begun = False
        self.stack = contextlib.AsyncExitStack()
        hub.dashboard = 'importing' if with_gradio else 'plain'

    def begin(self) -> None:
        """Import and build the Gradio app in a thread; once."""
        if self.with_gradio and not self.has_begun:
            self.has_begun = True
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._build, args=(loop,), name='dashboard', daemon=True).start()

    def _build(self, loop: asyncio.AbstractEventLoop) -> None:
        began = time.monotonic()
        try:
            holder = FastAPI(openapi_url=None)
            dashboard.mount(holder, self.hub)
            asyncio.run_coroutine_threadsafe(self._enter(holder), loop).result(BUILD_SECONDS)
            log.info('dashboard built in %.1f s', time.monotonic() - began)
        except Exception as error:
            self.hub.dashboard = 'plain'
            log.warning('the Gradio dashboard cannot be built, the plain page stays: %s', error)

    async def _enter(self, holder: FastAPI) -> None:
        await self.stack.enter_async_context(holder.router.lifespan_context(holder))
        self.gradio, self.hub.dashboard = holder, 'ready'
        self.hub.send_heartbeat()

    async def close(self) -> None:
        """End Gradio's own tasks."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.stack.aclose(), CLOSE_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what no other route has."""
        if scope['type'] != 'http':
            reason = 'the stream is at /v1/stream'
            return await send({'type': 'websocket.close', 'code': REFUSED, 'reason': reason})
        path = scope['path']
        if path.startswith('/v1') or path in OF_THE_API:
            return await self._refusal(scope)(scope, receive, send)
        self.begin()
        allowed = OF_GRADIO.get(scope['method'])
        if self.gradio is not None and allowed and allowed.fullmatch(path):
            if path != '/':
                return await self.gradio(scope, receive, send)
            plain = [
                pair for pair in scope['headers'] if pair[0] != b'accept-encoding'
            ]  # packed later, by us
            return await self.gradio({**scope, 'headers': plain}, receive, with_policy(send))
        if self.gradio is None and path == '/':
            is_read = scope['method'] == 'GET'
            answer: Response = HTMLResponse(dashboard.plain_page()) if is_read else _other_method()
            return await answer(scope, receive, send)
        methods = [name for name, paths in OF_GRADIO.items() if paths.fullmatch(path)]
        answer = _other_method(methods[0]) if methods and self.gradio is not None else _not_found()
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp:
        matches = [route.matches(scope)[0] for route in self.api.routes]
        if Match.PARTIAL in matches:  # the path is there, and this method is not
            return _other_method()
        return _not_found()


def with_policy(send: Send) -> Send:
    """Return a `send` that lets the scripts run that are inside Gradio's page, and no others."""
    head: dict[str, Any] = {}
    pieces: list[bytes] = []

    async def send_page(message: Any) -> None:
        if message['type'] == 'http.response.start':
            head.update(message)
            return
        if message['type'] != 'http.response.body':
            return await send(message)
        pieces.append(message.get('body', b''))
        if message.get('more_body', False):
            return
        body = b''.join(pieces)
        headers = MutableHeaders(raw=list(head.get('headers', ())))
        headers['Content-Security-Policy'] = gradio_policy(body.decode(errors='replace'))
        await send({**head, 'headers': headers.raw})
        await send({'type': 'http.response.body', 'body': body})

    return send_page


def _not_found() -> Response:
    return problem_response(404, 'there is nothing at this address')


def _other_method(method: str = 'GET') -> Response:
    allowed = 'GET, HEAD' if method == 'GET' else method
    return problem_response(405, f'expected {allowed}', {'Allow': allowed})
