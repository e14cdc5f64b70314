"""The present: a thread that reads the bus, without a consumer group, and hands it to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from apps.hub import Hub
from apps.recent import TOPICS, DecodedMessage, decode_message
from crypto_rt.core.settings import Settings

log = logging.getLogger('crypto_rt.api')
WARM_TAIL = 1000  # messages of each partition that are read at the start
WARM_SECONDS = 2.0  # after so long the tails count as read
STARTING_SECONDS = 30.0  # a broker that starts beside us may take so long before it is a warning
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 10.0

Batch = Iterable[DecodedMessage | ValueError]
HandOver = Callable[[Batch, bool], None]


def bus_batches(settings: Settings, stop: threading.Event) -> Iterator[list[tuple[str, bytes, str | None]]]:
    """Yield what the topics bring, beginning with their tails; an empty batch when they bring nothing.

    Yields:
        Topic and raw value of each message, and why its key cannot be used (None: it can).
    """
    from crypto_rt.bus.reading import follow
    from crypto_rt.bus.steps import key_refusal
    from crypto_rt.bus.topics import ensure_topics

    ensure_topics(settings)
    for messages in follow(settings, TOPICS, stop, tail=WARM_TAIL):
        yield [(m.topic, m.value, key_refusal(m.topic, m.key)) for m in messages]


def read_bus(
    settings: Settings, stop: threading.Event, hand_over: HandOver, failed: Callable[[str], None]
) -> None:
    """Read the bus until `stop` and hand over every batch; after an error wait, longer each time, and go on.

    Args:
        settings: Which broker, and the topics' settings.
        stop: Set to end.
        hand_over: Takes each batch, and whether it is to be published: what lay there before is not.
        failed: Takes the reason each time the bus cannot be read.
    """
    wait, is_first, began = FIRST_WAIT_SECONDS, True, time.monotonic()
    while not stop.is_set():
        try:
            warm_until: float | None = None if is_first else 0.0
            for batch in bus_batches(settings, stop):
                wait, now = FIRST_WAIT_SECONDS, time.monotonic()
                if warm_until is None:
                    warm_until = now + WARM_SECONDS
                publish = now >= warm_until
                if not batch:
                    warm_until = 0.0
                hand_over([decode_message(*message) for message in batch], publish)
            is_first = False
        except Exception as error:
            is_starting = is_first and time.monotonic() - began < STARTING_SECONDS
            level = logging.INFO if is_starting else logging.WARNING
            log.log(level, 'the bus cannot be read yet, next try in %.1f s: %s', wait, error)
            failed(str(error))
            stop.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def read_source(source: Iterable[tuple[str, bytes]], stop: threading.Event, hand_over: HandOver) -> None:
    """Hand over what an iterator of (topic, raw) gives, one by one."""
    hand_over([], True)
    for topic, raw in source:
        if stop.is_set():
            return
        hand_over([decode_message(topic, raw)], True)


class BusReader:
    """The thread that brings the bus, or an iterator of (topic, raw) in its place, to the event loop."""

    def __init__(self, hub: Hub, source: Iterable[tuple[str, bytes]] | None) -> None:
        self.hub, self.source, self.stop = hub, source, threading.Event()
        self.loop = asyncio.get_running_loop()
        self.thread = threading.Thread(target=self._run, name='bus', daemon=True)
        self.thread.start()

    def _run(self) -> None:
        if self.source is None:
            read_bus(self.hub.settings, self.stop, self.hand_over, self.failed)
        else:
            read_source(self.source, self.stop, self.hand_over)

    def hand_over(self, batch: Batch, publish: bool) -> None:
        """Wait until the loop has taken a batch, so that a flood stays in Kafka and not in memory."""
        done = threading.Event()
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
            self.loop.call_soon_threadsafe(self._take, batch, publish, done)
            while not done.wait(0.2) and not self.stop.is_set():
                pass

    def _take(self, batch: Batch, publish: bool, done: threading.Event) -> None:
        """Give a batch to the hub; runs on the loop."""
        messages = list(batch)
        self.hub.bus_error = ''
        if messages:
            self.hub.broker_error = ''  # what brings messages is there
        try:
            self.hub.receive(messages, publish)
        finally:
            done.set()

    def failed(self, reason: str) -> None:
        """Remember why the bus cannot be read."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(setattr, self.hub, 'bus_error', reason)


async def send_heartbeats(hub: Hub, seconds: float) -> None:
    """Send heartbeats until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        hub.send_heartbeat()


async def watch_broker(hub: Hub, seconds: float) -> None:
    """Ask the broker again and again whether it is there.

    A consumer that receives nothing cannot tell silence from a dead broker.
    """
    from crypto_rt.bus.topics import wait_for_broker

    while True:
        await asyncio.sleep(min(seconds, 1.0) if hub.broker_error else seconds)
        try:
            await asyncio.to_thread(wait_for_broker, hub.settings, 2.0)
            hub.broker_error = ''
        except Exception as error:
            hub.broker_error = str(error)
