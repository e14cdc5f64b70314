"""`/v1/stream`: the websocket; `asyncapi.yaml` describes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from fastapi import APIRouter, WebSocket
from starlette.datastructures import QueryParams

from apps.auth import REFUSED
from apps.client import Client
from apps.context import Context
from apps.hub import Hub
from apps.queries import spelled
from apps.recent import CHANNELS

router = APIRouter()
log = logging.getLogger('crypto_rt.api')
MAX_SENT = 100  # messages of one client; none of them is read
TOO_SLOW = 1013  # the close code for: try again later
MAX_REASON = 120  # characters; a close frame holds no more than 123 bytes
PARAMETERS = ('symbols', 'channels', 'since', 'epoch', 'key')


@router.websocket('/v1/stream')
async def serve_stream(websocket: WebSocket, context: Context) -> None:
    """Serve one client until it goes, or is too slow."""
    hub = context.hub
    try:
        client, since = subscription_of(websocket.query_params, hub)
    except ValueError as error:
        await websocket.accept()
        return await websocket.close(REFUSED, str(error)[:MAX_REASON])
    await websocket.accept()
    if len(hub.clients) >= hub.settings.api.max_clients:
        return await websocket.close(TOO_SLOW, 'too many clients')
    hub.join(client, since, websocket.query_params.get('epoch'))
    is_talking = await serve_until_done(websocket, client, hub)
    if is_talking:
        await websocket.close(REFUSED, 'the stream is not read from its clients')
    elif client.too_slow.is_set():
        hub.evicted += 1
        log.info('a websocket client was dropped: %s messages waited', len(client.waiting))
        with contextlib.suppress(Exception):
            await asyncio.wait_for(websocket.close(TOO_SLOW, 'too slow: come back with since'), 1.0)


async def serve_until_done(websocket: WebSocket, client: Client, hub: Hub) -> bool:
    """Send what waits until the client has gone, its connection breaks, or it is too slow; then forget it.

    Returns:
        Whether the client is still there and talks too much.
    """
    listening = asyncio.create_task(until_closed(websocket))
    tasks = [
        listening,
        asyncio.create_task(client.pump(websocket.send_text)),
        asyncio.create_task(client.too_slow.wait()),
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
    return not listening.cancelled() and not listening.exception() and listening.result()


async def until_closed(websocket: WebSocket) -> bool:
    """Return when the client has gone, or has sent too much: True; what it sends is not read."""
    for _ in range(MAX_SENT):
        if (await websocket.receive())['type'] == 'websocket.disconnect':
            return False
    return True


def subscription_of(query: QueryParams, hub: Hub) -> tuple[Client, int | None]:
    """Return the client that the query describes, and the number after which it wants to go on.

    Raises:
        ValueError: When a symbol, a channel or a parameter does not exist, or `since` is no number.
    """
    if unknown := sorted(set(query) - set(PARAMETERS)):
        raise ValueError(f'no parameter {unknown[0][:30]}; there are symbols, channels, since, epoch')
    if twice := sorted(name for name in query if len(query.getlist(name)) > 1):
        raise ValueError(f'{twice[0]} came twice; separate by commas')
    symbols = [spelled(name) for name in names_in(query, 'symbols')] or hub.symbols
    channels = names_in(query, 'channels') or list(CHANNELS)
    if unknown := sorted(set(symbols) - set(hub.symbols)):
        raise ValueError(f'no symbol {unknown[0]}; there are {", ".join(hub.symbols)}')
    if unknown := sorted(set(channels) - set(CHANNELS)):
        raise ValueError(f'no channel {unknown[0]}; there are {", ".join(CHANNELS)}')
    since = query.get('since', '')
    if since and not (since.isascii() and since.isdigit() and len(since) <= 15):
        raise ValueError(f'since must be a number of the stream, was {since[:20]}')
    return Client(symbols, channels, hub.settings.api.client_queue), int(since) if since else None


def names_in(query: QueryParams, parameter: str) -> list[str]:
    """Return the names of a comma-separated parameter, none where it is left out.

    Raises:
        ValueError: When one is empty.
    """
    if parameter not in query:
        return []
    names = [name.strip() for name in query[parameter].split(',')]
    if not all(names):
        raise ValueError(f'{parameter} has an empty name; leave the parameter out for all')
    return names
