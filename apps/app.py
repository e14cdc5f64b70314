"""The API put together: REST, websocket, metrics and dashboard over what the services write.

The present comes from the bus (this process reads the topics and keeps no offsets), the past from the feature
store, which is only read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from apps import assets, documents, metrics
from apps.auth import OUR_NAMES, ApiKeyMiddleware, ApiKeys, HostMiddleware, OriginMiddleware, api_keys
from apps.bus_reader import BusReader, send_heartbeats, watch_broker
from apps.context import ApiContext
from apps.feature_catalogue import FeatureCatalogue
from apps.headers import ETagMiddleware, HeadMiddleware, SecurityHeadersMiddleware
from apps.history import History
from apps.hub import Hub
from apps.lanes import PACKING, SMALLEST_PACKED
from apps.limits import BodyLimitMiddleware, RateLimitMiddleware, RequestBudget
from apps.metrics import LatencyMiddleware, hub_registry
from apps.page import DashboardPage
from apps.problems import answer_with_problems, documented_problems
from apps.responses import describe_messages
from apps.routes import (
    candles,
    features,
    gaps,
    health,
    indicators,
    model,
    news,
    predictions,
    ready,
    status,
    stream,
    symbols,
)
from crypto_rt.core.settings import Settings

HEARTBEAT_SECONDS = 5.0
SOON_SECONDS = 2.0  # after so long the process for large lists is started
LATER_SECONDS = 8.0  # after so long what takes long to import is imported, even when nobody has come yet
SOURCES = {'live': 'live', 'replay': 'replay', 'simulate': 'simulated', 'simulated': 'simulated'}
ROUTERS = [
    health.router,
    ready.router,
    symbols.router,
    candles.router,
    indicators.router,
    predictions.router,
    model.router,
    gaps.router,
    features.router,
    news.router,
    status.router,
    metrics.router,
    stream.router,
    documents.router,
    assets.router,
]
Source = Iterable[tuple[str, bytes]]
Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


def create_app(
    settings: Settings,
    source: Source | None = None,
    store: Any = None,
    *,
    dashboard: bool = False,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> FastAPI:
    """Build the API.

    Args:
        settings: All sections.
        source: Iterator of (topic, raw message) to read in place of the bus; it may block.
        store: An open feature store to read in place of the data directory's.
        dashboard: Whether `/` becomes the Gradio dashboard; else it stays the plain live page.
        heartbeat_seconds: How often the stream beats.

    Raises:
        ValueError: When `[api] host` can be reached by others and there are no API keys.
    """
    keys = ApiKeys(api_keys(settings.api.host))
    hub = Hub(settings, SOURCES[settings.run.source])
    app = FastAPI(
        title='crypto-rt',
        version='1',
        lifespan=_lifespan(source, heartbeat_seconds),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=documented_problems(),
    )
    answer_with_problems(app)
    app.state.context = ApiContext(settings, hub, History(settings, store), FeatureCatalogue(hub))
    app.state.page = DashboardPage(hub, app, dashboard)
    app.state.registry = hub_registry(hub)
    for router in ROUTERS:
        app.include_router(router)
    app.mount('/crt', assets.VersionedFiles())
    app.mount('/', app.state.page)
    describe_messages(app)
    _put_before(app, settings, keys)
    return app


def _put_before(app: FastAPI, settings: Settings, keys: ApiKeys) -> None:
    """Put before an app what every request passes, the last named first."""
    api = settings.api
    app.add_middleware(ETagMiddleware)
    app.add_middleware(GZipMiddleware, minimum_size=SMALLEST_PACKED, compresslevel=PACKING)
    app.add_middleware(BodyLimitMiddleware, max_bytes=api.max_body_bytes, seconds=api.request_seconds)
    if keys.keys:
        app.add_middleware(ApiKeyMiddleware, keys=keys)
    if api.requests_per_second:
        budget = RequestBudget(api.requests_per_second, api.request_burst)
        app.add_middleware(RateLimitMiddleware, budget=budget, keys=keys)
    app.add_middleware(OriginMiddleware)
    app.add_middleware(HostMiddleware, names=() if keys.keys else OUR_NAMES)
    app.add_middleware(LatencyMiddleware, registry=app.state.registry)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(HeadMiddleware)


async def _begin_soon(context: ApiContext) -> None:
    await asyncio.sleep(SOON_SECONDS)
    await context.history.begin()


def _lifespan(source: Source | None, heartbeat_seconds: float) -> Lifespan:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context: ApiContext = app.state.context
        page: DashboardPage = app.state.page
        reader = BusReader(context.hub, source)
        tasks = [asyncio.create_task(send_heartbeats(context.hub, heartbeat_seconds))]
        if source is None:
            tasks.append(asyncio.create_task(watch_broker(context.hub, 2 * heartbeat_seconds)))
        if not context.settings.run.until_idle:
            asyncio.get_running_loop().call_later(LATER_SECONDS, page.begin)
            tasks.append(asyncio.create_task(_begin_soon(context)))
        try:
            yield
        finally:
            reader.stop.set()
            for task in tasks:
                task.cancel()
            context.history.close()
            await page.close()
            await asyncio.to_thread(reader.thread.join, 0.5)

    return lifespan
