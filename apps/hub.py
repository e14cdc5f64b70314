"""What the API knows right now, and the numbered stream that it sends to its clients.

Everything here lives on one event loop and is not locked: the thread that reads the bus hands its messages
over.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import msgspec

from apps.client import Client, StreamMessage, stream_message
from apps.comparison import LastComparison
from apps.recent import BY_SYMBOL, DecodedMessage, RecentGaps, RecentMessages, RecentNews
from crypto_rt.core.messages import DeadLetter, Dropped, Gap, News, NewsSignal, NewsWatermark, ServiceEvent
from crypto_rt.core.settings import Settings
from crypto_rt.core.times import now_ms

SUBSCRIPTION_STATES = ('acknowledged', 'asked', 'refused', 'silent')
MAX_REASONS = 10  # of what is degraded, in a heartbeat
log = logging.getLogger('crypto_rt.api')
MOST_SET_ASIDE = 1000  # in memory


class Hub:
    """Numbers what comes in, remembers it, and offers it to every client.

    `seq` rises by one for each message of the stream, heartbeats included, from 1 within an epoch (one life
    of the process). A client with filters sees rising numbers with holes; nothing that passes its filter is
    ever left out: a client that is too slow is dropped.
    """

    def __init__(self, settings: Settings, source: str) -> None:
        self.settings, self.source = settings, source
        self.epoch, self.seq, self.began_ms = secrets.token_hex(6), 0, now_ms()
        self.ring: deque[StreamMessage] = deque(maxlen=max(1, settings.api.ring))
        self.clients: set[Client] = set()
        self.evicted = 0

        self.recent, self.gaps, self.news = RecentMessages(), RecentGaps(), RecentNews()
        self.comparison = LastComparison(settings.data.directory)
        self.services: dict[str, ServiceEvent] = {}
        self.last_dead_letter: DeadLetter | None = None
        self.set_aside: dict[str, DeadLetter] = {}  # by id: those at which a service has died

        self.received: Counter[str] = Counter()
        self.undecodable: Counter[str] = Counter()
        self.last_received_ms: dict[str, int] = {}
        self.is_warm = False  # whether what lay in the topics before this process has been read
        self.bus_error = 'not connected yet'  # of the thread that reads the bus
        self.broker_error = ''  # of the task that asks the broker whether it is there
        self.dashboard = 'plain'  # or importing, or ready
        self.send_heartbeat()

    @property
    def symbols(self) -> list[str]:
        """The symbols of the settings, then others that came over the bus."""
        received = [symbol for _, symbol in list(self.recent.rows)]
        return list(dict.fromkeys([*self.settings.data.symbols, *received]))

    @property
    def bus(self) -> str:
        """`connected`, or what is wrong."""
        return self.broker_error or self.bus_error or 'connected'

    def degraded(self) -> list[str]:
        """Return what services cannot do now, each with the service, the reason and since when."""
        return [f'{name}: {why}' for name, event in sorted(self.services.items()) for why in event.degraded]

    def subscriptions(self) -> dict[str, int]:
        """Return how many subscriptions to the exchange are in each state."""
        found: Counter[str] = Counter()
        for event in self.services.values():
            found.update(
                {state: event.counts.get(f'subscriptions_{state}', 0) for state in SUBSCRIPTION_STATES}
            )
        return {state: found[state] for state in SUBSCRIPTION_STATES}

    # --- in

    def receive(self, messages: Iterable[DecodedMessage | ValueError], publish: bool = True) -> None:
        """Take messages of the bus in the order of their arrival.

        Args:
            messages: As `decode_message` returned them.
            publish: False for what lay in the topics before this process: it is remembered and not sent.
        """
        batch = list(messages)
        last_forming = {
            message.struct.symbol: index
            for index, message in enumerate(batch)
            if isinstance(message, DecodedMessage) and message.topic == 'candles_forming'
        }
        for index, message in enumerate(batch):
            if isinstance(message, ValueError):
                self.undecodable[str(message).partition(':')[0]] += 1
                continue
            self.received[message.topic] += 1
            self.last_received_ms[message.topic] = now_ms()
            is_overtaken = message.topic == 'candles_forming' and index != last_forming[message.struct.symbol]
            if not is_overtaken and self._remembered(message) and publish:
                if message.topic in BY_SYMBOL:
                    self.send(message.topic, 'update', message.raw, symbol=message.struct.symbol)
                else:
                    self.send('news', 'update', message.raw)
        if publish and not self.is_warm:
            self.is_warm = True
            self._send_snapshots()

    def _remembered(self, message: DecodedMessage) -> bool:
        """Keep a message; a bug of ours that it meets costs this message, and not the ones behind it."""
        try:
            return self._remember(message)
        except Exception:
            log.exception('a message of %s could not be kept: %r', message.topic, message.raw[:200])
            self.undecodable[message.topic] += 1
            return False

    def _remember(self, message: DecodedMessage) -> bool:
        """Keep a message; True if it is news to the clients."""
        struct = message.struct
        if isinstance(struct, ServiceEvent):
            self.services[struct.service] = struct
        elif isinstance(struct, DeadLetter):
            self.last_dead_letter = struct
            if struct.deaths and len(self.set_aside) < MOST_SET_ASIDE:
                self.set_aside[struct.id] = struct
        elif isinstance(struct, NewsWatermark):
            self.news.through_ms = max(self.news.through_ms, struct.through_ms)
        elif isinstance(struct, Gap):
            self.gaps.add(struct)
        elif isinstance(struct, News | NewsSignal):
            return self.news.add(struct)
        elif not isinstance(struct, Dropped):
            return self.recent.add(message)
        return False

    # --- out

    def send(self, channel: str, kind: str, data: bytes, *, symbol: str = '') -> None:
        """Give a message the next number, keep it in the ring and offer it to all clients."""
        self.seq += 1
        message = stream_message(self.seq, channel, kind=kind, data=data, symbol=symbol)
        self.ring.append(message)
        for client in list(self.clients):
            client.offer(message)

    def send_heartbeat(self) -> None:
        """Send a heartbeat, so that clients can tell silence from a dead connection."""
        self.send('stream', 'heartbeat', msgspec.json.encode(self.pulse()))

    def _send_snapshots(self) -> None:
        """Give every client the state again, under one new number.

        Who came while the past was being read has seen none of it.
        """
        if not self.clients:
            return
        self.seq += 1
        self.ring.append(
            stream_message(self.seq, 'stream', kind='heartbeat', data=msgspec.json.encode(self.pulse()))
        )
        for client in list(self.clients):
            client.offer(self.snapshot(client))

    def join(self, client: Client, since: int | None, epoch: str | None) -> None:
        """Add a client and queue how it begins.

        Without `since`: a snapshot. With a number that the ring still follows: a snapshot message with
        `resumed` true and no state, then all that came since. With any other: a `gap`, then a snapshot.
        All of them name the epoch.
        """
        oldest = self.ring[0].seq
        if since is None:
            client.begin([self.snapshot(client)])
        elif epoch in (None, self.epoch) and oldest - 1 <= since <= self.seq:
            body = {**self.pulse(), 'resumed': True, 'latest': {}}
            resumed = stream_message(since, 'stream', kind='snapshot', data=msgspec.json.encode(body))
            missed = [message for message in self.ring if message.seq > since and client.wants(message)]
            client.begin([resumed, *missed])
        else:
            body = {'epoch': self.epoch, 'since': since, 'oldest': oldest, 'newest': self.seq}
            gap = stream_message(self.seq - 1, 'stream', kind='gap', data=msgspec.json.encode(body))
            client.begin([gap, self.snapshot(client)])
        self.clients.add(client)

    # --- what it says of itself

    def clock_ms(self) -> int:
        """Return the greatest event time received; 0 before the first."""
        newest = [
            self.recent.latest(channel, symbol)
            for channel in ('candles_forming', 'candles')
            for symbol in self.symbols
        ]
        times = [getattr(message.struct, 'as_of_ms', message.struct.end_ms) for message in newest if message]
        return max(times, default=0)

    def pulse(self) -> dict[str, Any]:
        """Return what every heartbeat says."""
        return {
            'epoch': self.epoch,
            'at_ms': now_ms(),
            'source': self.source,
            'clock_ms': self.clock_ms(),
            'bus': self.bus,
            'dead_letters': self.received['dead_letters'],
            'undecodable': sum(self.undecodable.values()),
            'gaps': self.gaps.counts(),
            'candle_proofs': dict(sorted(self.recent.candle_proofs.items())),
            'degraded': self.degraded()[:MAX_REASONS],
            'subscriptions': self.subscriptions(),
            'reconciliation': self.comparison.read(),
            'clients': len(self.clients),
            'dashboard': self.dashboard,
        }

    def snapshot(self, client: Client) -> StreamMessage:
        """Return the present state of what a client asked for, under the number of the last message in it."""
        latest: dict[str, dict[str, msgspec.Raw]] = {}
        for channel in BY_SYMBOL:
            if channel in client.channels:
                found = {symbol: self.recent.latest(channel, symbol) for symbol in sorted(client.symbols)}
                latest[channel] = {symbol: msgspec.Raw(row.raw) for symbol, row in found.items() if row}
        body = {
            **self.pulse(),
            'symbols': sorted(client.symbols),
            'channels': sorted(client.channels),
            'latest': latest,
        }
        return stream_message(self.seq, 'stream', kind='snapshot', data=msgspec.json.encode(body))
