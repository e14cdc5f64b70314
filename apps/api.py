"""REST, websocket and dashboard over what the services write: `create_app` builds it, `run_api` serves it.

The present comes from the bus (this process reads the topics and keeps no offsets), the past from the feature store, which is only read.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import html
import ipaddress
import logging
import secrets
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from apps import dashboard as pages
from apps import features as feature_pages
from apps.stream import CHANNELS, TOPICS, Client, Heard, Hub, hear, place
from crypto_rt.core.messages import Candle, Gap, News, NewsSignal, Prediction, TechnicalIndicators
from crypto_rt.core.settings import Settings, default_environment, secret

log = logging.getLogger('crypto_rt.api')
STATIC = Path(__file__).with_name('static')
HEARTBEAT_SECONDS = 5.0
WARM_TAIL = 1000  # messages of each partition that are read at the start
MAX_CLIENTS = 1000
FIGURES_SECONDS = 300.0  # for so long statistics of the store count as new
TOO_SLOW, REFUSED = 1013, 1008  # close codes: try again later, policy
SOURCES = {'live': 'live', 'replay': 'replay', 'simulate': 'simulated', 'simulated': 'simulated'}
Batch = Iterable[Heard | ValueError]


# --- what may be asked

Instant = Annotated[int | None, Field(ge=10**12, lt=10**13, description='milliseconds since 1970 UTC')]
SymbolText = Annotated[
    str, Field(max_length=33, pattern=r'^[A-Za-z0-9.]{1,16}[/-][A-Za-z0-9.]{1,16}$', examples=['BTC/USD'])
]


class Ask(BaseModel):
    """What every list takes; an unknown parameter is an error."""

    model_config = ConfigDict(extra='forbid')
    since: Instant = None
    until: Instant = None
    limit: Annotated[int, Field(ge=1, le=5000, description='the newest so many')] = 500

    def check(self) -> None:
        """Refuse an empty span with 422."""
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise HTTPException(422, f'since must be before until, was {self.since} and {self.until}')


class AskSeries(Ask):
    """A list of one symbol."""

    symbol: SymbolText
    interval: Annotated[
        int | None, Field(ge=1, le=7 * 86400, description='seconds; left out: the one of the settings')
    ] = None


class AskPredictions(Ask):
    """Predictions of one symbol or of all."""

    symbol: SymbolText | None = None
    interval: Annotated[
        int | None, Field(ge=1, le=7 * 86400, description='seconds; left out: the one of the settings')
    ] = None


class AskGaps(Ask):
    """Gaps of one symbol or of all, by when they opened."""

    symbol: SymbolText | None = None


class AskNews(Ask):
    """News about one symbol's base currency, or all, by when it was known."""

    limit: Annotated[int, Field(ge=1, le=1000, description='the newest so many')] = 50
    symbol: SymbolText | None = None


class AskDecay(BaseModel):
    """What the news said of a symbol at the ends of its last candles."""

    model_config = ConfigDict(extra='forbid')
    symbol: SymbolText
    scorer: Annotated[
        str | None, Field(max_length=40, description='left out: the first of [news_signals] scorers')
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description='so many candles back')] = 300


class AskSymbol(BaseModel):
    """One symbol or all."""

    model_config = ConfigDict(extra='forbid')
    symbol: SymbolText | None = None


def known_symbol(text: str, known: list[str]) -> str:
    """Return the symbol as we write it.

    Raises:
        HTTPException: 404 that names the nearest symbols.
    """
    symbol = text.strip().upper().replace('-', '/')
    if symbol in known:
        return symbol
    near = difflib.get_close_matches(symbol, known, 3, 0.4) or known[:5]
    raise HTTPException(404, f'no symbol {symbol} here; there are {", ".join(near)}')


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    if host in ('localhost', 'testserver'):
        return True
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return False


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Tell whether a page may open our websocket: pages of this machine, and those that we served; programs send no origin."""
    if origin is None:
        return True
    page = urlsplit(origin)
    return (
        page.scheme in ('http', 'https')
        and bool(page.hostname)
        and (is_loopback(page.hostname or '') or page.netloc == host)
    )


# --- the past


class History:
    """What the feature store holds, read in one thread of its own and never written."""

    def __init__(self, settings: Settings, store: Any = None) -> None:
        self.settings, self.store = settings, store
        self.thread = ThreadPoolExecutor(1, 'store')
        self.stored: dict[str, dict[str, Any]] = {}  # figures of the stored features
        self.figured, self.figuring = 0.0, threading.Lock()

    def _open(self) -> Any:
        from crypto_rt.store.open import has_store, open_feature_store

        if self.store is None and has_store(self.settings):
            self.store = open_feature_store(self.settings)
        return self.store

    def _rows(self, group: str, symbol: str, interval_seconds: int, ask: Ask) -> list[Any]:
        from crypto_rt.store.schema import GROUPS

        store = self._open()
        found = store and store.get_feature_group(group, GROUPS[group].version)
        equal = {'symbol': symbol, 'interval_seconds': interval_seconds}
        return found.history(equal, before_ms=ask.until, since_ms=ask.since, last=ask.limit) if found else []

    async def rows(self, group: str, symbol: str, interval_seconds: int, ask: Ask) -> list[Any]:
        """Return the newest messages of a feature group that were asked for; none while there is no store yet."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self.thread, self._rows, group, symbol, interval_seconds, ask
            )
        except Exception as error:  # whatever a backend raises, the stream goes on without the past
            log.warning('%s: %s cannot be read from the store: %s', symbol, group, error)
            return []

    def _figure(self) -> None:
        from crypto_rt.store.schema import GROUPS

        store = self._open()
        group = store and store.get_feature_group(
            'technical_indicators', GROUPS['technical_indicators'].version
        )
        try:
            if group and self.settings.store.backend == 'embedded':  # Hopsworks shows its own figures
                self.stored = group.statistics()
        except Exception as error:
            log.warning('the statistics of the features cannot be read from the store: %s', error)
        finally:
            self.figured = time.monotonic() + (FIGURES_SECONDS if self.stored else 10.0)
            self.figuring.release()

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the statistics of the stored features as last computed, and have them computed again beside when they are old."""
        if time.monotonic() >= self.figured and self.figuring.acquire(blocking=False):
            threading.Thread(target=self._figure, name='figures', daemon=True).start()
        return self.stored

    def _gaps(self, symbol: str, ask: Ask) -> list[Any]:
        from crypto_rt.store.schema import GROUPS

        store = self._open()
        found = store and store.get_feature_group('gaps', GROUPS['gaps'].version)
        return (
            found.history({'symbol': symbol}, before_ms=ask.until, since_ms=ask.since, last=ask.limit)
            if found
            else []
        )

    async def gaps(self, symbol: str, ask: Ask) -> list[Any]:
        """Return the stored gaps of a symbol; none while there is no store yet."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, self._gaps, symbol, ask)
        except Exception as error:
            log.warning('%s: gaps cannot be read from the store: %s', symbol, error)
            return []

    async def unreadable(self) -> str:
        """Return why the store cannot be read; empty if it can."""
        try:
            opened = await asyncio.get_running_loop().run_in_executor(self.thread, self._open)
        except Exception as error:
            return f'the store cannot be read: {error}'
        return '' if opened is not None else 'there is no feature store yet'

    def close(self) -> None:
        """Let the thread end."""
        self.thread.shutdown(wait=False, cancel_futures=True)


def merged(stored: Iterable[Any], heard: Iterable[Any]) -> list[Any]:
    """Return messages of both, the highest revision of each identity, oldest first."""
    rows: dict[tuple[Any, ...], Any] = {}
    for row in (*stored, *heard):
        key = place(row)
        if key not in rows or row.revision >= rows[key].revision:
            rows[key] = row
    return [rows[key] for key in sorted(rows)]


# --- the present


def bus_batches(settings: Settings, stop: threading.Event) -> Iterator[list[tuple[str, bytes]]]:
    """Yield what the topics bring, beginning with their tails."""
    from crypto_rt.bus.reading import follow
    from crypto_rt.bus.topics import ensure_topics

    ensure_topics(settings)
    for messages in follow(settings, TOPICS, stop, tail=WARM_TAIL):
        yield [(message.topic, message.value) for message in messages]


def read_bus(
    settings: Settings,
    stop: threading.Event,
    hand_over: Callable[[Batch, bool], None],
    failed: Callable[[str], None],
) -> None:
    """Read the bus until `stop` and hand every batch over; after an error wait a little longer each time and begin again."""
    wait, first_life, began = 0.5, True, time.monotonic()
    while not stop.is_set():
        try:
            warm_until = None if first_life else 0.0
            for batch in bus_batches(settings, stop):
                wait, now = 0.5, time.monotonic()
                if warm_until is None:
                    warm_until = now + 2
                publish = now >= warm_until
                if not batch:
                    warm_until = 0.0
                hand_over([hear(topic, raw) for topic, raw in batch], publish)
            first_life = False
        except Exception as error:
            starting = first_life and time.monotonic() - began < 30  # the broker starts beside us
            log.log(
                logging.INFO if starting else logging.WARNING,
                'the bus cannot be read yet, next try in %.1f s: %s',
                wait,
                error,
            )
            failed(str(error))
            stop.wait(wait)
            wait = min(2 * wait, 10.0)


def read_source(
    source: Iterable[tuple[str, bytes]], stop: threading.Event, hand_over: Callable[[Batch, bool], None]
) -> None:
    """Hand over what an iterator of (topic, raw) gives, one by one."""
    hand_over([], True)
    for topic, raw in source:
        if stop.is_set():
            return
        hand_over([hear(topic, raw)], True)


class Reader:
    """The thread that brings the bus to the event loop."""

    def __init__(self, hub: Hub, source: Iterable[tuple[str, bytes]] | None) -> None:
        self.hub, self.source, self.stop = hub, source, threading.Event()
        self.loop = asyncio.get_running_loop()
        run: Callable[..., None] = read_bus if source is None else read_source
        arguments = (
            (hub.settings, self.stop, self.hand_over, self.failed)
            if source is None
            else (source, self.stop, self.hand_over)
        )
        self.thread = threading.Thread(target=run, args=arguments, name='bus', daemon=True)
        self.thread.start()

    def hand_over(self, batch: Batch, publish: bool) -> None:
        """Wait until the loop has taken a batch, so that a flood stays in Kafka and not in memory."""
        done = threading.Event()
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
            self.loop.call_soon_threadsafe(self.take, batch, publish, done)
            while not done.wait(0.2) and not self.stop.is_set():
                pass

    def take(self, batch: Batch, publish: bool, done: threading.Event) -> None:
        """Give a batch to the hub; runs on the loop."""
        self.hub.bus_error = ''
        if batch := list(batch):
            self.hub.broker_error = ''  # what brings messages is there
        try:
            self.hub.take(batch, publish)
        finally:
            done.set()

    def failed(self, reason: str) -> None:
        """Remember why the bus cannot be read."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(setattr, self.hub, 'bus_error', reason)


async def heartbeats(hub: Hub, seconds: float) -> None:
    """Send heartbeats for ever."""
    while True:
        await asyncio.sleep(seconds)
        hub.beat()


async def watch_broker(hub: Hub, seconds: float) -> None:
    """Ask the broker for ever whether it is there: a consumer that hears nothing cannot tell silence from a dead broker."""
    from crypto_rt.bus.topics import wait_for_broker

    while True:
        await asyncio.sleep(min(seconds, 1.0) if hub.broker_error else seconds)
        try:
            await asyncio.to_thread(wait_for_broker, hub.settings, 2.0)
            hub.broker_error = ''
        except Exception as error:
            hub.broker_error = str(error)


# --- keys


class Seldom(logging.Filter):
    """Lets a message of a kind through once in a while; the kind is its format and level."""

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds, self.last, self.held = (
            seconds,
            dict[tuple[str, int], float](),
            dict[tuple[str, int], int](),
        )

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record may pass; the next one that may says how many could not."""
        kind, now = (str(record.msg), record.levelno), time.monotonic()
        if now - self.last.get(kind, -self.seconds) < self.seconds:
            self.held[kind] = self.held.get(kind, 0) + 1
            return False
        self.last[kind] = now
        if held := self.held.pop(kind, 0):
            record.msg, record.args = f'{record.getMessage()} ({held} more like it since)', ()
        return True


class Keys:
    """Lets requests through that carry one of our keys: `X-API-Key`, a bearer token, `?key=`, or the cookie that the last leaves behind."""

    OPEN = ('/v1/health',)

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self.app, self.keys = app, keys

    def good(self, key: str) -> bool:
        """Compare in constant time."""
        return any(secrets.compare_digest(key.encode(), ours.encode()) for ours in self.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse with 401 (a websocket: 1008)."""
        if scope['type'] not in ('http', 'websocket') or scope['path'] in self.OPEN:
            return await self.app(scope, receive, send)
        asked = Request({**scope, 'type': 'http'})
        in_query = asked.query_params.get('key', '')
        bearer = asked.headers.get('authorization', '').removeprefix('Bearer ')
        given = (asked.headers.get('x-api-key', ''), bearer, in_query, asked.cookies.get('crypto_rt_key', ''))
        if not any(self.good(key) for key in given if key):
            if scope['type'] == 'websocket':
                return await send(
                    {'type': 'websocket.close', 'code': REFUSED, 'reason': 'an API key is required'}
                )
            refusal = JSONResponse(
                {'detail': 'an API key is required: send X-API-Key, or open the dashboard with ?key=...'}, 401
            )
            return await refusal(scope, receive, send)

        async def with_cookie(message: Any) -> None:
            if message['type'] == 'http.response.start' and in_query and self.good(in_query):
                cookie = f'crypto_rt_key={in_query}; HttpOnly; SameSite=Strict; Path=/'
                message = {
                    **message,
                    'headers': [*message['headers'], (b'set-cookie', cookie.encode('latin-1', 'ignore'))],
                }
            await send(message)

        await self.app(scope, receive, with_cookie)


def api_keys(host: str) -> tuple[str, ...]:
    """Return the keys of `CRYPTO_RT_API_KEYS`.

    Raises:
        ValueError: When there are none and the API would listen on more than this machine, or when one cannot be a cookie.
    """
    keys = tuple(key.strip() for key in secret('CRYPTO_RT_API_KEYS').split(',') if key.strip())
    if not keys and not is_loopback(host):
        raise ValueError(
            f'[api] host is {host}, which others can reach: expected keys in CRYPTO_RT_API_KEYS (separated by commas), or host 127.0.0.1'
        )
    if any(not key.isascii() or set(key) & set(' ;"\\') for key in keys):
        raise ValueError(
            'CRYPTO_RT_API_KEYS must be plain ASCII without spaces, quotes, semicolons and backslashes'
        )
    return keys


# --- the page


class Page:
    """What lies at `/`: the live page at once, and inside Gradio as soon as that is imported (5 s), which the first visit begins."""

    def __init__(self, hub: Hub, api: FastAPI, wanted: bool) -> None:
        self.hub, self.api, self.wanted = hub, api, wanted
        self.gradio: FastAPI | None = None
        self.begun = False
        self.stack = contextlib.AsyncExitStack()
        hub.extra['dashboard'] = 'importing' if wanted else 'plain'

    def begin(self) -> None:
        """Import and build the Gradio app in a thread; once."""
        if self.wanted and not self.begun:
            self.begun = True
            threading.Thread(
                target=self._build, args=(asyncio.get_running_loop(),), name='dashboard', daemon=True
            ).start()

    def _build(self, loop: asyncio.AbstractEventLoop) -> None:
        began = time.monotonic()
        try:
            holder = FastAPI(openapi_url=None)
            pages.mount(holder, self.hub.settings, self.hub)
            asyncio.run_coroutine_threadsafe(self._enter(holder), loop).result(30)
            log.info('dashboard built in %.1f s', time.monotonic() - began)
        except Exception as error:
            self.hub.extra['dashboard'] = 'plain'
            log.warning('the Gradio dashboard cannot be built, the plain page stays: %s', error)

    async def _enter(self, holder: FastAPI) -> None:
        await self.stack.enter_async_context(holder.router.lifespan_context(holder))
        self.gradio, self.hub.extra['dashboard'] = holder, 'ready'
        self.hub.beat()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what no other route has."""
        if scope['type'] != 'http':
            return await send(
                {'type': 'websocket.close', 'code': REFUSED, 'reason': 'the stream is at /v1/stream'}
            )
        path = scope['path']
        if path.startswith('/v1') or path in ('/metrics', '/docs', '/openapi.json'):
            there = path in {getattr(route, 'path', '') for route in self.api.routes}
            refusal = JSONResponse(
                {'detail': 'Method Not Allowed' if there else 'Not Found'},
                405 if there else 404,
                {'Allow': 'GET'} if there else None,
            )
            return await refusal(scope, receive, send)
        self.begin()
        if self.gradio is not None:
            return await self.gradio(scope, receive, send)
        answer = (
            HTMLResponse(pages.plain_page()) if path == '/' else JSONResponse({'detail': 'Not Found'}, 404)
        )
        await answer(scope, receive, send)


def docs_page(openapi: dict[str, Any]) -> str:
    """Return the endpoints as one page that loads nothing from anywhere."""
    rows = []
    for path, methods in openapi['paths'].items():
        for method, spec in methods.items():
            parameters = ', '.join(
                f'{p["name"]}{"" if p.get("required") else "?"}' for p in spec.get('parameters', ())
            )
            rows.append(
                f"<tr><td><code>{method.upper()} <a href='{path}'>{path}</a></code><td><code>{parameters}</code><td>{html.escape(spec.get('summary', ''))}"
            )
    return pages.document(
        'API',
        f"<main class='crt-doc'><h1>crypto-rt API {openapi['info']['version']}</h1><p>The machine's version: <a href='/openapi.json'>openapi.json</a>; "
        "the websocket <code>/v1/stream</code>: <a href='/asyncapi.yaml'>asyncapi.yaml</a>.</p>"
        f"<table class='crt-table'><thead><tr><th>Endpoint<th>Parameters<th>What comes back</thead>{''.join(rows)}</table></main>",
    )


# --- metrics


class HubMetrics:
    """Reads the hub's counts when Prometheus asks."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        hub = self.hub
        messages = CounterMetricFamily(
            'crypto_rt_api_messages', 'Messages read from the bus', labels=['topic']
        )
        bad = CounterMetricFamily(
            'crypto_rt_api_undecodable', 'Messages that did not decode', labels=['topic']
        )
        last = GaugeMetricFamily(
            'crypto_rt_api_last_message_timestamp_seconds',
            'When a topic last brought a message',
            labels=['topic'],
        )
        for topic in TOPICS:
            messages.add_metric([topic], hub.heard[topic])
            bad.add_metric([topic], hub.undecodable[topic])
            if at := hub.last_heard_ms.get(topic):
                last.add_metric([topic], at / 1000)
        yield from (messages, bad, last)
        gaps = GaugeMetricFamily(
            'crypto_rt_gaps', 'Gaps in the trade ids, of those in memory', labels=['state']
        )
        for state, count in hub.gap_counts().items():
            gaps.add_metric([state], count)
        yield gaps
        compared, found = (
            hub.comparison.read(),
            GaugeMetricFamily(
                'crypto_rt_reconciled_windows',
                'Windows of the last comparison with the exchange',
                labels=['verdict'],
            ),
        )
        for verdict in ('exact', 'explained', 'unexplained'):
            found.add_metric([verdict], compared[verdict])
        yield found
        yield GaugeMetricFamily(
            'crypto_rt_reconciled_timestamp_seconds',
            'When candles were last compared; 0: never',
            value=(compared['at_ms'] or 0) / 1000,
        )
        yield GaugeMetricFamily(
            'crypto_rt_news_stories', 'News stories in memory', value=len(hub.news.stories)
        )
        yield GaugeMetricFamily('crypto_rt_api_websocket_clients', 'Open websockets', value=len(hub.clients))
        yield CounterMetricFamily(
            'crypto_rt_api_evicted_clients',
            'Websockets dropped because they were too slow',
            value=hub.evicted,
        )
        yield GaugeMetricFamily(
            'crypto_rt_api_stream_seq', 'Number of the last stream message', value=hub.seq
        )
        yield GaugeMetricFamily(
            'crypto_rt_api_clock_seconds', 'Greatest event time heard', value=hub.clock_ms() / 1000
        )
        yield GaugeMetricFamily(
            'crypto_rt_api_bus_connected', '1 while the bus can be read', value=float(hub.bus == 'connected')
        )


class Timed:
    """Measures how long requests take, by route."""

    def __init__(self, app: ASGIApp, seconds: Histogram) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and note the time until the answer begins."""
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)
        began = time.perf_counter()

        async def noting(message: Any) -> None:
            if message['type'] == 'http.response.start':
                path = getattr(scope.get('route'), 'path', '') or 'page'
                self.seconds.labels(path, str(message['status'])).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, noting)


# --- the app


def packed(body: Any, status: int = 200) -> Response:
    """Return a JSON answer, encoded by msgspec."""
    return Response(msgspec.json.encode(body), status, media_type='application/json')


def answers(name: str, body: Any) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI words for a list of our messages, and for errors."""
    row = {'$ref': f'#/components/schemas/{body.__name__}'}
    shape = {'type': 'object', 'required': [name], 'properties': {name: {'type': 'array', 'items': row}}}
    error = {
        'content': {
            'application/json': {
                'schema': {'type': 'object', 'required': ['detail'], 'properties': {'detail': {}}}
            }
        }
    }
    return {
        200: {'content': {'application/json': {'schema': shape}}},
        404: {'description': 'unknown symbol', **error},
    }


def create_app(
    settings: Settings,
    source: Iterable[tuple[str, bytes]] | None = None,
    store: Any = None,
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
    keys = api_keys(settings.api.host)
    hub = Hub(settings, SOURCES[settings.run.source])
    history = History(settings, store)
    registry = CollectorRegistry()
    registry.register(HubMetrics(hub))  # type: ignore[arg-type]
    seconds = Histogram(
        'crypto_rt_api_request_seconds', 'Time to answer', ['path', 'status'], registry=registry
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reader, tasks = Reader(hub, source), [asyncio.create_task(heartbeats(hub, heartbeat_seconds))]
        if source is None:
            tasks.append(asyncio.create_task(watch_broker(hub, 2 * heartbeat_seconds)))
        if dashboard and not settings.run.until_idle:
            asyncio.get_running_loop().call_later(8.0, page.begin)
        try:
            yield
        finally:
            reader.stop.set()
            for task in tasks:
                task.cancel()
            history.close()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(page.stack.aclose(), 1.0)
            await asyncio.to_thread(reader.thread.join, 0.5)

    app = FastAPI(
        title='crypto-rt',
        version='1',
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    page = Page(hub, app, dashboard)
    app.state.hub, app.state.page = hub, page

    @app.get('/v1/health', summary='The process answers')
    async def health() -> Response:
        return packed({'status': 'ok', 'epoch': hub.epoch})

    @app.get(
        '/v1/ready',
        summary='The broker and the store can be read',
        responses={503: {'description': 'not yet; detail says why'}},
    )
    async def ready() -> Response:
        why = [w for w in (hub.bus.removeprefix('connected'), await history.unreadable()) if w]
        return packed({'detail': '; '.join(why)}, 503) if why else packed({'status': 'ready'})

    @app.get('/v1/symbols', summary='What is watched, and its last price')
    async def symbols() -> Response:
        def row(symbol: str) -> dict[str, Any]:
            newest = hub.recent.latest('candles_forming', symbol) or hub.recent.latest('candles', symbol)
            return {
                'symbol': symbol,
                'last_price': newest and newest.struct.close,
                'start_ms': newest and newest.struct.start_ms,
            }

        data = settings.data
        return packed(
            {
                'interval_seconds': data.interval_seconds,
                'horizon_seconds': data.horizon_seconds,
                'symbols': [row(s) for s in hub.symbols],
            }
        )

    async def series(group: str, ask: Ask, symbol: str, interval: int | None) -> list[Any]:
        ask.check()
        seconds = interval or settings.data.interval_seconds
        heard = [row for row in hub.recent.structs(group, symbol) if row.interval_seconds == seconds]
        return within(merged(await history.rows(group, symbol, seconds, ask), heard), ask)

    @app.get(
        '/v1/candles',
        summary='Final candles, oldest first, the highest revision of each',
        responses=answers('candles', Candle),
    )
    async def candles(ask: Annotated[AskSeries, Query()]) -> Response:
        symbol, interval = (
            known_symbol(ask.symbol, hub.symbols),
            ask.interval or settings.data.interval_seconds,
        )
        return packed(
            {
                'symbol': symbol,
                'interval_seconds': interval,
                'candles': await series('candles', ask, symbol, interval),
            }
        )

    @app.get(
        '/v1/indicators',
        summary='Features of final candles, oldest first',
        responses=answers('indicators', TechnicalIndicators),
    )
    async def indicators(ask: Annotated[AskSeries, Query()]) -> Response:
        symbol, interval = (
            known_symbol(ask.symbol, hub.symbols),
            ask.interval or settings.data.interval_seconds,
        )
        return packed(
            {
                'symbol': symbol,
                'interval_seconds': interval,
                'indicators': await series('technical_indicators', ask, symbol, interval),
            }
        )

    @app.get(
        '/v1/predictions', summary='Predictions, oldest first', responses=answers('predictions', Prediction)
    )
    async def predictions(ask: Annotated[AskPredictions, Query()]) -> Response:
        wanted = [known_symbol(ask.symbol, hub.symbols)] if ask.symbol else hub.symbols
        rows = [row for symbol in wanted for row in await series('predictions', ask, symbol, ask.interval)]
        return packed({'predictions': within(sorted(rows, key=lambda p: (p.start_ms, p.symbol)), ask)})

    @app.get(
        '/v1/predictions/latest',
        summary='The newest prediction of each symbol',
        responses=answers('predictions', Prediction),
    )
    async def latest(ask: Annotated[AskSymbol, Query()]) -> Response:
        wanted = [known_symbol(ask.symbol, hub.symbols)] if ask.symbol else hub.symbols
        found = (hub.recent.latest('predictions', symbol) for symbol in wanted)
        return packed({'predictions': [msgspec.Raw(heard.raw) for heard in found if heard]})

    @app.get('/v1/model', summary='What predicts each symbol now')
    async def model() -> Response:
        found = [
            heard.struct
            for heard in (hub.recent.latest('predictions', symbol) for symbol in hub.symbols)
            if heard
        ]
        fields = (
            'symbol',
            'interval_seconds',
            'horizon_seconds',
            'model_version',
            'model_digest',
            'level',
            'status',
            'made_at_ms',
        )
        return packed({'models': [{name: getattr(p, name) for name in fields} for p in found]})

    @app.get(
        '/v1/gaps',
        summary='Holes in the trade ids, in the order in which they opened, the latest revision of each',
        responses=answers('gaps', Gap),
    )
    async def gaps(ask: Annotated[AskGaps, Query()]) -> Response:
        ask.check()
        wanted = [known_symbol(ask.symbol, hub.symbols)] if ask.symbol else hub.symbols
        found: dict[tuple[str, int, int], Gap] = {}
        for gap in [
            *[row for symbol in wanted for row in await history.gaps(symbol, ask)],
            *hub.gaps.values(),
        ]:
            key = (gap.symbol, gap.epoch, gap.first_missing)
            inside = (ask.since is None or gap.opened_ms >= ask.since) and (
                ask.until is None or gap.opened_ms < ask.until
            )
            if gap.symbol in wanted and inside and (key not in found or gap.revision >= found[key].revision):
                found[key] = gap
        return packed(
            {
                'gaps': sorted(found.values(), key=lambda g: (g.opened_ms, g.symbol, g.first_missing))[
                    -ask.limit :
                ]
            }
        )

    @app.get(
        '/v1/features',
        summary='Every feature: its declaration, newest value, and statistics over the store and over the candles in memory',
    )
    async def features(ask: Annotated[AskSymbol, Query()]) -> Response:
        wanted = [known_symbol(ask.symbol, hub.symbols)] if ask.symbol else hub.symbols
        return packed(await asyncio.to_thread(feature_pages.catalogue, hub, wanted, history.figures()))

    @app.get(
        '/v1/news',
        summary='The latest stories, the last known first, and what each scorer says of them',
        responses=stories_shape(),
    )
    async def news(ask: Annotated[AskNews, Query()]) -> Response:
        ask.check()
        asset = known_symbol(ask.symbol, hub.symbols).partition('/')[0] if ask.symbol else None
        found = [
            s
            for s in hub.news.newest(10**6, asset)
            if (ask.since or 0) <= s.available_ms < (ask.until or 10**13)
        ][: ask.limit]
        return packed(
            {
                'through_ms': hub.news.through_ms or None,
                'news': [feature_pages.told(hub, story) for story in found],
            }
        )

    @app.get(
        '/v1/news/signal',
        summary='The sum of the scores about a symbol, halving every 6 h, at the ends of its last candles',
    )
    async def news_signal(ask: Annotated[AskDecay, Query()]) -> Response:
        symbol, scorer = known_symbol(ask.symbol, hub.symbols), ask.scorer or settings.news_signals.scorers[0]
        rows = await series('candles', Ask(limit=ask.limit), symbol, None)
        points = await asyncio.to_thread(
            feature_pages.decayed, hub.news.signals_of(scorer), symbol, [row.end_ms for row in rows]
        )
        return packed(
            {'symbol': symbol, 'scorer': scorer, 'feature': feature_pages.DECAYED, 'points': points}
        )

    @app.get('/v1/status', summary='Source, counts, lags and what the services say')
    async def status() -> Response:
        return packed(hub.status())

    @app.get('/metrics', summary='For Prometheus')
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type='text/plain; version=0.0.4; charset=utf-8')

    @app.websocket('/v1/stream')
    async def stream(websocket: WebSocket) -> None:
        await serve_stream(websocket, hub)

    @app.get('/docs', include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get('/features', include_in_schema=False)
    async def features_page() -> HTMLResponse:
        return HTMLResponse(feature_pages.page())

    @app.get('/asyncapi.yaml', include_in_schema=False)
    async def asyncapi() -> Response:
        return Response(
            Path(__file__).with_name('asyncapi.yaml').read_bytes(), media_type='text/yaml; charset=utf-8'
        )

    @app.get('/favicon.ico', include_in_schema=False)
    async def favicon() -> Response:
        return Response((STATIC / 'favicon.svg').read_bytes(), media_type='image/svg+xml')

    @app.get('/crt/lightweight-charts.js', include_in_schema=False)
    def chart_library() -> Response:
        return Response(
            pages.chart_library(), media_type='text/javascript', headers={'Cache-Control': 'max-age=86400'}
        )

    app.mount('/crt', StaticFiles(directory=STATIC))
    app.mount('/', page)
    describe(app)
    app.add_middleware(Timed, seconds=seconds)
    if keys:
        app.add_middleware(Keys, keys=keys)
    else:  # without keys a page of another site must not reach us by a name of its own (DNS rebinding)
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost', '[::1]', '::1', 'testserver']
        )
    return app


def stories_shape() -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI words for stories with their signals."""
    signals = {
        'type': 'object',
        'properties': {'signals': {'type': 'array', 'items': {'$ref': '#/components/schemas/NewsSignal'}}},
    }
    told = answers('news', News)
    told[200]['content']['application/json']['schema']['properties']['news']['items'] = {
        'allOf': [{'$ref': '#/components/schemas/News'}, signals]
    }
    return told


def within(rows: list[Any], ask: Ask) -> list[Any]:
    """Return the newest `limit` rows whose start lies in [since, until)."""
    return [row for row in rows if (ask.since or 0) <= row.start_ms < (ask.until or 10**13)][-ask.limit :]


def describe(app: FastAPI) -> None:
    """Put the schemas of our messages into the OpenAPI description."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, schemas = msgspec.json.schema_components(
                [Candle, TechnicalIndicators, Prediction, Gap, News, NewsSignal],
                ref_template='#/components/schemas/{name}',
            )
            plain().setdefault('components', {}).setdefault('schemas', {}).update(schemas)
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


async def serve_stream(websocket: WebSocket, hub: Hub) -> None:
    """Serve one websocket client until it goes, or is too slow."""
    if not origin_allowed(websocket.headers.get('origin'), websocket.headers.get('host')):
        return await websocket.close(REFUSED, 'this page may not read the stream')
    try:
        client, since = asked_for(websocket, hub)
    except ValueError as error:
        await websocket.accept()
        return await websocket.close(REFUSED, str(error)[:120])
    await websocket.accept()
    if len(hub.clients) >= MAX_CLIENTS:
        return await websocket.close(TOO_SLOW, 'too many clients')
    hub.join(client, since, websocket.query_params.get('epoch'))
    tasks = [
        asyncio.create_task(work)
        for work in (until_closed(websocket), client.pump(websocket.send_text), client.too_slow.wait())
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hub.clients.discard(client)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # a connection that broke while it was written to needs no word
    if client.too_slow.is_set():
        hub.evicted += 1
        log.info('a websocket client was dropped: %s messages waited', len(client.waiting))
        with contextlib.suppress(Exception):
            await asyncio.wait_for(websocket.close(TOO_SLOW, 'too slow: come back with since'), 1.0)


def asked_for(websocket: WebSocket, hub: Hub) -> tuple[Client, int | None]:
    """Return the client that the query describes, and where it wants to go on.

    Raises:
        ValueError: When a symbol or a channel does not exist, or `since` is no number.
    """
    query = websocket.query_params
    if unknown := sorted(set(query) - {'symbols', 'channels', 'since', 'epoch', 'key'}):
        raise ValueError(f'no parameter {unknown[0][:30]}; there are symbols, channels, since, epoch')
    if twice := sorted(name for name in query if len(query.getlist(name)) > 1):
        raise ValueError(f'{twice[0]} came twice; separate by commas')
    for name in ('symbols', 'channels'):
        if name in query and not all(part.strip() for part in query[name].split(',')):
            raise ValueError(f'{name} has an empty name; leave the parameter out for all')
    symbols = [
        s.strip().upper().replace('-', '/') for s in query.get('symbols', '').split(',') if s.strip()
    ] or hub.symbols
    channels = [c.strip() for c in query.get('channels', '').split(',') if c.strip()] or list(CHANNELS)
    if unknown := sorted(set(symbols) - set(hub.symbols)):
        raise ValueError(f'no symbol {unknown[0]}; there are {", ".join(hub.symbols)}')
    if unknown := sorted(set(channels) - set(CHANNELS)):
        raise ValueError(f'no channel {unknown[0]}; there are {", ".join(CHANNELS)}')
    since = query.get('since', '')
    if since and not (since.isdigit() and len(since) <= 15):
        raise ValueError(f'since must be a number of the stream, was {since[:20]}')
    return Client(symbols, channels, hub.settings.api.client_queue), int(since) if since else None


async def until_closed(websocket: WebSocket) -> None:
    """Return when the client has gone; what it sends is not read."""
    while (await websocket.receive())['type'] != 'websocket.disconnect':
        pass


# --- serving


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket: on `port`, or on a free one where that is taken."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    for wanted in (port, 0):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, wanted))
            return bound
        except OSError as error:
            bound.close()
            if wanted == 0:
                raise OSError(f'[api] host {host}: cannot listen there: {error.strerror}') from None
            log.warning('port %s is taken; taking a free one', port)
    raise AssertionError


def run_api(settings: Settings, port: int | None = None, dashboard: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C; the port is noted in `<data directory>/api.port`.

    Raises:
        ValueError: When others could reach the API and there are no keys.
        OSError: When the host cannot be listened on.
    """
    import uvicorn

    default_environment(GRADIO_ANALYTICS_ENABLED='False')
    for name in ('crypto_rt.bus', 'quixstreams', 'confluent_kafka'):
        logging.getLogger(name).addFilter(Seldom())
    app = create_app(settings, dashboard=dashboard)
    bound = listening_socket(settings.api.host, settings.api.port if port is None else port)
    host, chosen = settings.api.host, bound.getsockname()[1]
    noted = Path(settings.data.directory) / 'api.port'
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.write_text(str(chosen))
    config = uvicorn.Config(
        app,
        host=host,
        port=chosen,
        ws='websockets-sansio',
        ws_max_size=65536,
        ws_per_message_deflate=False,
        lifespan='on',
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    shown = '127.0.0.1' if host in ('0.0.0.0', '::') else host
    logging.getLogger('uvicorn').setLevel(logging.WARNING)
    log.info('dashboard at http://%s:%s', f'[{shown}]' if ':' in shown else shown, chosen)
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }  # uvicorn raises them again at its end
    try:
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        noted.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)
        bound.close()
