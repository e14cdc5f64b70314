"""`/v1/status`: what the running system says of itself."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Response

from apps.context import Context
from apps.hub import Hub
from apps.recent import TOPICS
from apps.responses import json_response
from crypto_rt.core.times import now_ms

router = APIRouter()


@router.get('/v1/status', summary='Source, counts, lags and what the services say')
async def status(context: Context) -> Response:
    return json_response(status_of(context.hub))


def status_of(hub: Hub) -> dict[str, Any]:
    """Return the body of `/v1/status`."""
    now, clock = now_ms(), hub.clock_ms()
    dead = hub.last_dead_letter
    services = {
        name: {
            'kind': event.kind,
            'at_ms': event.at_ms,
            'counts': event.counts,
            'degraded': event.degraded,
            'subscriptions': msgspec.to_builtins(event.subscriptions),
        }
        for name, event in sorted(hub.services.items())
    }
    return {
        'source': hub.source,
        'symbols': hub.symbols,
        'interval_seconds': hub.settings.data.interval_seconds,
        'horizon_seconds': hub.settings.data.horizon_seconds,
        'epoch': hub.epoch,
        'seq': hub.seq,
        'began_ms': hub.began_ms,
        'now_ms': now,
        'clock_ms': clock or None,
        'lag_ms': now - clock if clock and hub.source == 'live' else None,
        'bus': hub.bus,
        'degraded': hub.degraded(),
        'subscriptions': hub.subscriptions(),
        'messages': {topic: hub.received[topic] for topic in TOPICS},
        'silent_ms': {topic: now - at for topic, at in hub.last_received_ms.items()},
        'undecodable': dict(hub.undecodable),
        'gaps': hub.gaps.counts(),
        'candle_proofs': dict(sorted(hub.recent.candle_proofs.items())),
        'reconciliation': hub.comparison.read(),
        'news': {'stories': len(hub.news.stories), 'through_ms': hub.news.through_ms or None},
        'dead_letters': {
            'count': hub.received['dead_letters'],
            'last': dead and {'topic': dead.topic, 'reason': dead.reason, 'seen_ms': dead.seen_ms},
            'set_aside': [
                {'id': letter.id, 'reason': letter.reason, 'deaths': letter.deaths, 'seen_ms': letter.seen_ms}
                for letter in hub.set_aside.values()
            ],
        },
        'services': services,
        'clients': len(hub.clients),
        'evicted_clients': hub.evicted,
        'dashboard': hub.dashboard,
    }
