"""One client of the stream, and the messages that it is sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple


class StreamMessage(NamedTuple):
    """One message of the stream, encoded once for all clients."""

    seq: int
    channel: str
    symbol: str
    text: str


def stream_message(seq: int, channel: str, kind: str, data: bytes, *, symbol: str = '') -> StreamMessage:
    """Return a stream message around data that is JSON already."""
    text = f'{{"seq":{seq},"channel":"{channel}","type":"{kind}","data":{data.decode()}}}'
    return StreamMessage(seq, channel, symbol=symbol, text=text)


class Client:
    """One websocket: what it asked for, and a bounded queue of what it has not yet taken."""

    def __init__(self, symbols: Iterable[str], channels: Iterable[str], room: int) -> None:
        self.symbols, self.channels, self.room = frozenset(symbols), frozenset(channels), room
        self.waiting: deque[str] = deque()
        self.wake, self.too_slow = asyncio.Event(), asyncio.Event()

    def wants(self, message: StreamMessage) -> bool:
        """Tell whether the filter lets a message through; what concerns the stream itself always passes."""
        if message.channel == 'stream':
            return True
        return message.channel in self.channels and (not message.symbol or message.symbol in self.symbols)

    def begin(self, messages: Iterable[StreamMessage]) -> None:
        """Queue what a client begins with; it does not count against the room."""
        self.waiting.extend(message.text for message in messages)
        self.room += len(self.waiting)
        self.wake.set()

    def offer(self, message: StreamMessage) -> None:
        """Queue a message; a client whose queue is full is marked for eviction instead."""
        if not self.wants(message):
            return
        if len(self.waiting) >= self.room:
            self.too_slow.set()
            return
        self.waiting.append(message.text)
        self.wake.set()

    async def pump(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what waits until it is cancelled."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.waiting:
                await send(self.waiting.popleft())
