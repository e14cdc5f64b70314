"""What lies at `/`, and what the addresses answer that no route has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from apps import dashboard
from apps.auth import REFUSED
from apps.hub import Hub

log = logging.getLogger('crypto_rt.api')
BUILD_SECONDS, CLOSE_SECONDS = 30.0, 1.0
OF_THE_API = ('/metrics', '/docs', '/openapi.json')


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
        if self.gradio is not None:
            return await self.gradio(scope, receive, send)
        answer = HTMLResponse(dashboard.plain_page()) if path == '/' else _not_found()
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp:
        matches = [route.matches(scope)[0] for route in self.api.routes]
        if Match.PARTIAL in matches:  # the path is there, and this method is not
            return JSONResponse({'detail': 'Method Not Allowed'}, 405, {'Allow': 'GET'})
        return _not_found()


def _not_found() -> JSONResponse:
    return JSONResponse({'detail': 'Not Found'}, 404)
