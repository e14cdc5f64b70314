"""What Prometheus reads: counts of the hub, and how long requests take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.hub import Hub
from apps.recent import TOPICS

router = APIRouter()
Family = CounterMetricFamily | GaugeMetricFamily


@router.get(
    '/metrics',
    name='metrics',
    summary='For Prometheus',
    response_class=Response,
    responses={200: {'content': {'text/plain': {'schema': {'type': 'string'}}}}},
)
async def prometheus_metrics(request: Request) -> Response:
    body = generate_latest(request.app.state.registry)
    return Response(body, media_type='text/plain; version=0.0.4; charset=utf-8')


def with_samples(family: Family, values: Mapping[str, float]) -> Family:
    """Add a sample for each value of the family's one label."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family


class HubMetrics:
    """Reads the hub's counts when Prometheus asks."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        yield from self._of_the_topics()
        yield from self._of_the_data()
        yield from self._of_the_stream()

    def _of_the_topics(self) -> Iterator[Family]:
        received, undecodable = self.hub.received, self.hub.undecodable
        messages = CounterMetricFamily(
            'crypto_rt_api_messages', 'Messages read from the bus', labels=['topic']
        )
        yield with_samples(messages, {topic: received[topic] for topic in TOPICS})
        failed = CounterMetricFamily(
            'crypto_rt_api_undecodable', 'Messages that did not decode', labels=['topic']
        )
        yield with_samples(failed, {topic: undecodable[topic] for topic in TOPICS})
        aside = len(self.hub.set_aside)
        yield CounterMetricFamily(
            'crypto_rt_api_set_aside_messages', 'Messages at which a service died three times', value=aside
        )
        last = GaugeMetricFamily(
            'crypto_rt_api_last_message_timestamp_seconds',
            'When a topic last brought a message',
            labels=['topic'],
        )
        times = self.hub.last_received_ms
        yield with_samples(last, {topic: times[topic] / 1000 for topic in TOPICS if topic in times})

    def _of_the_data(self) -> Iterator[Family]:
        gaps = GaugeMetricFamily(
            'crypto_rt_gaps', 'Gaps in the trade ids, of those in memory', labels=['state']
        )
        yield with_samples(gaps, self.hub.gaps.counts())
        proofs = GaugeMetricFamily(
            'crypto_rt_candle_proofs', 'Candles in memory, by what proves their end', labels=['proof']
        )
        yield with_samples(proofs, self.hub.recent.candle_proofs)
        comparison = self.hub.comparison.read()
        windows = GaugeMetricFamily(
            'crypto_rt_reconciled_windows',
            'Windows of the last comparison with the exchange',
            labels=['verdict'],
        )
        yield with_samples(
            windows, {word: comparison[word] for word in ('exact', 'explained', 'unexplained')}
        )
        yield GaugeMetricFamily(
            'crypto_rt_reconciled_timestamp_seconds',
            'When candles were last compared; 0: never',
            value=(comparison['at_ms'] or 0) / 1000,
        )
        degraded = GaugeMetricFamily(
            'crypto_rt_degraded', 'Things that a service cannot do now', labels=['service']
        )
        services = self.hub.services.items()
        yield with_samples(degraded, {name: len(event.degraded) for name, event in services})
        subscriptions = GaugeMetricFamily(
            'crypto_rt_subscriptions', 'Subscriptions to the exchange', labels=['state']
        )
        yield with_samples(subscriptions, self.hub.subscriptions())
        stories = len(self.hub.news.stories)
        yield GaugeMetricFamily('crypto_rt_news_stories', 'News stories in memory', value=stories)

    def _of_the_stream(self) -> Iterator[Family]:
        hub = self.hub
        clients, is_connected = len(hub.clients), float(hub.bus == 'connected')
        yield GaugeMetricFamily('crypto_rt_api_websocket_clients', 'Open websockets', value=clients)
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
            'crypto_rt_api_bus_connected', '1 while the bus can be read', value=is_connected
        )


class LatencyMiddleware:
    """Measures how long requests take, by route."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self.seconds = Histogram(
            'crypto_rt_api_request_seconds', 'Time to answer', ['path', 'status'], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and note the time until the answer begins."""
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)
        began = time.perf_counter()

        async def send_and_note(message: Any) -> None:
            if message['type'] == 'http.response.start':
                path = getattr(scope.get('route'), 'path', '') or 'page'
                self.seconds.labels(path, str(message['status'])).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, send_and_note)


def hub_registry(hub: Hub) -> CollectorRegistry:
    """Return a registry of the metrics of one API, for `app.state.registry`."""
    registry = CollectorRegistry()
    registry.register(HubMetrics(hub))  # type: ignore[arg-type]
    return registry
