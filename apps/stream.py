"""What the API knows right now, and the numbered stream that it tells its clients.

Everything here lives on one event loop and is not locked: the thread that reads the bus hands its messages over.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from crypto_rt.core.messages import (
    Candle,
    DeadLetter,
    Dropped,
    FormingCandle,
    Gap,
    News,
    NewsSignal,
    NewsWatermark,
    Prediction,
    ServiceEvent,
    TechnicalIndicators,
    decode,
)
from crypto_rt.core.settings import Settings
from crypto_rt.core.times import now_ms

BY_SYMBOL = ('candles', 'candles_forming', 'technical_indicators', 'predictions')
CHANNELS = (*BY_SYMBOL, 'news')  # `news` brings stories and what the scorers say of them, for every symbol
TOPICS = (*BY_SYMBOL, 'news', 'news_signals', 'gaps', 'dead_letters', 'service_events')
STORIES_KEPT = 2000  # stories that stay in memory
GAPS_KEPT = 2000  # gaps that stay in memory; older ones are in the store
KEPT = 2000  # messages of each channel and symbol that stay in memory; older candles come from the store
Channelled = Candle | FormingCandle | TechnicalIndicators | Prediction


class Heard(NamedTuple):
    """A message of the bus that was decoded.

    Attributes:
        topic: A name of `TOPICS`.
        struct: The message.
        raw: The same as it lay in Kafka.
    """

    topic: str
    struct: Any
    raw: bytes


def hear(topic: str, raw: bytes) -> Heard | ValueError:
    """Decode one message; what does not decode comes back as the error, so that it can be counted."""
    try:
        return Heard(topic, decode(topic, raw), raw)
    except ValueError as error:
        return error


def place(struct: Channelled) -> tuple[Any, ...]:
    """Return the identity of a message without its revision; it sorts by time."""
    rest = (struct.horizon_seconds, struct.model_version) if isinstance(struct, Prediction) else ()
    return (struct.start_ms, struct.interval_seconds, *rest)


class Recent:
    """The last messages of each channel and symbol, the highest revision of each identity."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self.rows: dict[tuple[str, str], dict[tuple[Any, ...], Heard]] = {}

    def add(self, heard: Heard) -> bool:
        """Keep a message; False if it says nothing new (an older revision, or the same again)."""
        rows = self.rows.setdefault((heard.topic, heard.struct.symbol), {})
        if heard.topic == 'candles_forming':
            newest = next(iter(rows.values()), None)
            if newest and place(newest.struct) > place(heard.struct):
                return False
            rows.clear()
        key = place(heard.struct)
        known = rows.get(key)
        if known and (
            known.raw == heard.raw
            or getattr(known.struct, 'revision', 0) > getattr(heard.struct, 'revision', 0)
        ):
            return False
        rows[key] = heard
        if len(rows) > 2 * self.kept:
            for old in sorted(rows)[: -self.kept]:
                del rows[old]
        return True

    def structs(self, channel: str, symbol: str) -> list[Any]:
        """Return what is known of one symbol, oldest first."""
        return [
            heard.struct
            for _, heard in sorted(self.rows.get((channel, symbol), {}).items(), key=lambda row: row[0])
        ]

    def latest(self, channel: str, symbol: str) -> Heard | None:
        """Return the newest message of one symbol."""
        rows = self.rows.get((channel, symbol))
        return rows[max(rows)] if rows else None


class Stories:
    """The last news and what each scorer says of it."""

    def __init__(self, kept: int = STORIES_KEPT) -> None:
        self.kept, self.through_ms = kept, 0
        self.stories: dict[str, News] = {}
        self.signals: dict[str, dict[tuple[str, str], NewsSignal]] = {}

    def add(self, struct: News | NewsSignal) -> bool:
        """Keep a story or a signal; False if it was known."""
        if isinstance(struct, News):
            fresh = self.stories.get(struct.news_id) != struct
            self.stories[struct.news_id] = struct
        else:
            rows = self.signals.setdefault(struct.news_id, {})
            key = (struct.scorer, struct.version)
            fresh, rows[key] = rows.get(key) != struct, struct
        if max(len(self.stories), len(self.signals)) > 2 * self.kept:
            newest = {story.news_id for story in self.newest(self.kept)}
            self.stories = {key: story for key, story in self.stories.items() if key in newest}
            self.signals = dict(list(self.signals.items())[-self.kept :])
        return fresh

    def newest(self, limit: int, asset: str | None = None) -> list[News]:
        """Return stories, the last known first."""
        found = [story for story in self.stories.values() if asset is None or asset in story.assets]
        return sorted(found, key=lambda story: (-story.available_ms, story.news_id))[:limit]

    def signals_of(self, scorer: str) -> list[NewsSignal]:
        """Return the signals of one scorer, each story once and by the version heard last."""
        found = (
            [signal for signal in rows.values() if signal.scorer == scorer][-1:]
            for rows in list(self.signals.values())
        )
        return [signal for last in found for signal in last]


class Comparison:
    """What the last comparison with the exchange's own candles found, as `reconciliation.json` says."""

    COUNTS = ('compared', 'exact', 'explained', 'unexplained')

    def __init__(self, directory: str) -> None:
        self.file, self.seen_ns = Path(directory) / 'reconciliation.json', 0
        self.found: dict[str, Any] = self.nothing()

    def nothing(self, error: str = '') -> dict[str, Any]:
        """Return what there is to say before the first comparison."""
        return {**dict.fromkeys(self.COUNTS, 0), 'at_ms': None, 'error': error}

    def read(self) -> dict[str, Any]:
        """Return the counts; `compared` is 0 while nothing was compared, `error` says why the last try failed."""
        try:
            changed_ns = self.file.stat().st_mtime_ns
            if changed_ns != self.seen_ns:
                told = json.loads(self.file.read_bytes())
                counts = {name: int(told.get(name, 0)) for name in self.COUNTS}
                self.found, self.seen_ns = (
                    {**counts, 'at_ms': told.get('at_ms'), 'error': str(told.get('error', ''))},
                    changed_ns,
                )
        except FileNotFoundError:
            self.found, self.seen_ns = self.nothing(), 0
        except (OSError, ValueError, TypeError, AttributeError) as error:
            self.found = self.nothing(f'{self.file.name} cannot be read: {error}')
        return self.found


class Entry(NamedTuple):
    """One message of the stream, encoded once for all clients."""

    seq: int
    channel: str
    symbol: str
    text: str


def entry(seq: int, channel: str, kind: str, data: bytes, symbol: str = '') -> Entry:
    """Return a stream message around data that is JSON already."""
    return Entry(
        seq, channel, symbol, f'{{"seq":{seq},"channel":"{channel}","type":"{kind}","data":{data.decode()}}}'
    )


class Client:
    """One websocket: what it asked for, and a bounded queue of what it has not yet taken."""

    def __init__(self, symbols: Iterable[str], channels: Iterable[str], room: int) -> None:
        self.symbols, self.channels, self.room = frozenset(symbols), frozenset(channels), room
        self.waiting: deque[str] = deque()
        self.wake, self.too_slow = asyncio.Event(), asyncio.Event()

    def wants(self, message: Entry) -> bool:
        """Tell whether the filter lets a message through; what concerns the stream itself always passes."""
        return message.channel == 'stream' or (
            message.channel in self.channels and (not message.symbol or message.symbol in self.symbols)
        )

    def offer(self, message: Entry) -> None:
        """Queue a message; a client whose queue is full is marked for eviction instead."""
        if not self.wants(message):
            return
        if len(self.waiting) >= self.room:
            self.too_slow.set()
            return
        self.waiting.append(message.text)
        self.wake.set()

    async def pump(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what waits, for ever."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.waiting:
                await send(self.waiting.popleft())


class Hub:
    """Numbers what comes in, remembers it, and offers it to every client.

    `seq` rises by one for each message of the stream, heartbeats included, from 1 within an epoch (one life of the process). A client
    with filters sees rising numbers with holes; nothing that passes its filter is ever left out: a client that is too slow is dropped.
    """

    def __init__(self, settings: Settings, source: str) -> None:
        self.settings, self.source = settings, source
        self.epoch, self.seq, self.began_ms = secrets.token_hex(6), 0, now_ms()
        self.ring: deque[Entry] = deque(maxlen=max(1, settings.api.ring))
        self.clients: set[Client] = set()
        self.recent = Recent()
        self.heard: Counter[str] = Counter()
        self.undecodable: Counter[str] = Counter()
        self.last_heard_ms: dict[str, int] = {}
        self.services: dict[str, ServiceEvent] = {}
        self.gaps: dict[tuple[str, int, int], Gap] = {}
        self.last_dead_letter: DeadLetter | None = None
        self.news, self.comparison = Stories(), Comparison(settings.data.directory)
        self.warm = False  # whether what lay in the topics before this process has been read
        self.evicted = 0
        self.bus_error = 'not connected yet'  # of the reader
        self.broker_error = ''  # of the one who looks after the broker
        self.extra: dict[str, Any] = {}
        self.beat()

    @property
    def symbols(self) -> list[str]:
        """The symbols of the settings, then others that came over the bus."""
        return list(
            dict.fromkeys([*self.settings.data.symbols, *(symbol for _, symbol in list(self.recent.rows))])
        )

    @property
    def bus(self) -> str:
        """`connected`, or what is wrong."""
        return self.broker_error or self.bus_error or 'connected'

    # --- in

    def take(self, messages: Iterable[Heard | ValueError], publish: bool = True) -> None:
        """Take messages of the bus in the order of their arrival.

        Args:
            messages: As `hear` returned them.
            publish: False for what lay in the topics before this process: it is remembered and not sent.
        """
        batch = list(messages)
        last_forming = {
            m.struct.symbol: i
            for i, m in enumerate(batch)
            if isinstance(m, Heard) and m.topic == 'candles_forming'
        }
        for i, message in enumerate(batch):
            if isinstance(message, ValueError):
                self.undecodable[str(message).partition(':')[0]] += 1
                continue
            self.heard[message.topic] += 1
            self.last_heard_ms[message.topic] = now_ms()
            if isinstance(message.struct, ServiceEvent):
                self.services[message.struct.service] = message.struct
            elif isinstance(message.struct, DeadLetter):
                self.last_dead_letter = message.struct
            elif isinstance(message.struct, NewsWatermark):
                self.news.through_ms = max(self.news.through_ms, message.struct.through_ms)
            elif isinstance(message.struct, News | NewsSignal):
                if self.news.add(message.struct) and publish:
                    self.send('news', 'update', message.raw)
            elif isinstance(message.struct, Gap):
                self.take_gap(message.struct)
            elif isinstance(message.struct, Dropped) or (
                message.topic == 'candles_forming' and i != last_forming[message.struct.symbol]
            ):
                continue
            elif self.recent.add(message) and publish:
                self.send(message.topic, 'update', message.raw, message.struct.symbol)
        if publish and not self.warm:
            self.warm = True
            self.begin_anew()

    def begin_anew(self) -> None:
        """Give every client the state again under one new number: who came while the past was being read has seen none of it."""
        if not self.clients:
            return
        self.seq += 1
        self.ring.append(entry(self.seq, 'stream', 'heartbeat', msgspec.json.encode(self.pulse())))
        for client in list(self.clients):
            client.offer(self.snapshot(client))

    def take_gap(self, gap: Gap) -> None:
        """Keep the latest revision of a gap, and the newest gaps."""
        key = (gap.symbol, gap.epoch, gap.first_missing)
        if key not in self.gaps or gap.revision >= self.gaps[key].revision:
            self.gaps[key] = gap
        if len(self.gaps) > 2 * GAPS_KEPT:
            newest = sorted(self.gaps.values(), key=lambda g: g.updated_ms)[-GAPS_KEPT:]
            self.gaps = {(g.symbol, g.epoch, g.first_missing): g for g in newest}

    def gap_counts(self) -> dict[str, int]:
        """Return how many of the gaps in memory are in which state."""
        states = Counter(gap.state for gap in self.gaps.values())
        return {
            'open': states['open'],
            'filled': states['filled'],
            'exchange_holes': states['exchange_hole'],
            'timed_out': states['timed_out'],
        }

    def send(self, channel: str, kind: str, data: bytes, symbol: str = '') -> None:
        """Give a message the next number, keep it in the ring and offer it to all clients."""
        self.seq += 1
        message = entry(self.seq, channel, kind=kind, data=data, symbol=symbol)
        self.ring.append(message)
        for client in list(self.clients):
            client.offer(message)

    def beat(self) -> None:
        """Send a heartbeat, so that clients can tell silence from a dead connection."""
        self.send('stream', 'heartbeat', msgspec.json.encode(self.pulse()))

    # --- out

    def clock_ms(self) -> int:
        """Return the greatest event time heard; 0 before the first."""
        newest = [
            self.recent.latest(channel, symbol)
            for channel in ('candles_forming', 'candles')
            for symbol in self.symbols
        ]
        return max((getattr(h.struct, 'as_of_ms', h.struct.end_ms) for h in newest if h), default=0)

    def pulse(self) -> dict[str, Any]:
        """Return what every heartbeat says."""
        return {
            'epoch': self.epoch,
            'at_ms': now_ms(),
            'source': self.source,
            'clock_ms': self.clock_ms(),
            'bus': self.bus,
            'dead_letters': self.heard['dead_letters'],
            'undecodable': sum(self.undecodable.values()),
            'gaps': self.gap_counts(),
            'reconciliation': self.comparison.read(),
            'clients': len(self.clients),
            **self.extra,
        }

    def snapshot(self, client: Client) -> Entry:
        """Return the present state of what a client asked for, under the number of the last message that it contains."""
        channels = {}
        for channel in (c for c in BY_SYMBOL if c in client.channels):
            found = {symbol: self.recent.latest(channel, symbol) for symbol in sorted(client.symbols)}
            channels[channel] = {symbol: msgspec.Raw(heard.raw) for symbol, heard in found.items() if heard}
        body = {
            **self.pulse(),
            'symbols': sorted(client.symbols),
            'channels': sorted(client.channels),
            'latest': channels,
        }
        return entry(self.seq, 'stream', 'snapshot', msgspec.json.encode(body))

    def join(self, client: Client, since: int | None, epoch: str | None) -> None:
        """Add a client and queue how it begins.

        Without `since`: a snapshot. With a number that the ring still follows: a snapshot message with `resumed` true and no state, then
        all that came since. With any other: a `gap`, then a snapshot. All of them name the epoch.
        """
        oldest = self.ring[0].seq
        known = (
            since is not None and (epoch is None or epoch == self.epoch) and oldest - 1 <= since <= self.seq
        )
        if since is not None and known:
            body = {**self.pulse(), 'resumed': True, 'latest': {}}
            client.waiting.append(entry(since, 'stream', 'snapshot', msgspec.json.encode(body)).text)
            client.waiting.extend(
                message.text for message in self.ring if message.seq > since and client.wants(message)
            )
        else:
            if since is not None:
                body = {'epoch': self.epoch, 'since': since, 'oldest': oldest, 'newest': self.seq}
                client.waiting.append(entry(self.seq - 1, 'stream', 'gap', msgspec.json.encode(body)).text)
            client.waiting.append(self.snapshot(client).text)
        client.room += len(client.waiting)
        client.wake.set()
        self.clients.add(client)

    def status(self) -> dict[str, Any]:
        """Return the body of `/v1/status`."""
        now, clock = now_ms(), self.clock_ms()
        dead = self.last_dead_letter
        return {
            'source': self.source,
            'symbols': self.symbols,
            'interval_seconds': self.settings.data.interval_seconds,
            'horizon_seconds': self.settings.data.horizon_seconds,
            'epoch': self.epoch,
            'seq': self.seq,
            'began_ms': self.began_ms,
            'now_ms': now,
            'clock_ms': clock or None,
            'lag_ms': now - clock if clock and self.source == 'live' else None,
            'bus': self.bus,
            'messages': {topic: self.heard[topic] for topic in TOPICS},
            'silent_ms': {topic: now - at for topic, at in self.last_heard_ms.items()},
            'undecodable': dict(self.undecodable),
            'gaps': self.gap_counts(),
            'reconciliation': self.comparison.read(),
            'news': {'stories': len(self.news.stories), 'through_ms': self.news.through_ms or None},
            'dead_letters': {
                'count': self.heard['dead_letters'],
                'last': dead and {'topic': dead.topic, 'reason': dead.reason, 'seen_ms': dead.seen_ms},
            },
            'services': {
                name: {'kind': e.kind, 'at_ms': e.at_ms, 'counts': e.counts}
                for name, e in sorted(self.services.items())
            },
            'clients': len(self.clients),
            'evicted_clients': self.evicted,
            **self.extra,
        }
