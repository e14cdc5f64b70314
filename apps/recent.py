"""What the API remembers of each topic: the last messages, gaps and news, of each the highest revision."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from crypto_rt.core.messages import (
    Candle,
    FormingCandle,
    Gap,
    News,
    NewsSignal,
    Prediction,
    TechnicalIndicators,
    decode,
    supersedes,
)

BY_SYMBOL = ('candles', 'candles_forming', 'technical_indicators', 'predictions')
CHANNELS = (*BY_SYMBOL, 'news')  # `news` brings stories and what the scorers say of them, for every symbol
TOPICS = (*BY_SYMBOL, 'news', 'news_signals', 'gaps', 'dead_letters', 'service_events')
MAX_MESSAGES = 2000  # of each channel and symbol in memory; older candles come from the store
MAX_GAPS = 2000  # in memory; older ones are in the store
MAX_STORIES = 2000  # in memory

Revised = Candle | FormingCandle | TechnicalIndicators | Prediction | Gap


class DecodedMessage(NamedTuple):
    """A message of the bus that was decoded.

    Attributes:
        topic: A name of `TOPICS`.
        struct: The message.
        raw: The same as it lay in Kafka.
    """

    topic: str
    struct: Any
    raw: bytes


def decode_message(topic: str, raw: bytes, refusal: str | None = None) -> DecodedMessage | ValueError:
    """Decode one message; what does not decode comes back as the error, so that it can be counted.

    Args:
        topic: A name of `TOPICS`.
        raw: The message as it lay in Kafka.
        refusal: Why it cannot be used whatever its value says; None: it can.
    """
    if refusal:
        return ValueError(f'{topic}: {refusal}')
    try:
        return DecodedMessage(topic, decode(topic, raw), raw)
    except ValueError as error:
        return error


def identity(struct: Revised) -> tuple[Any, ...]:
    """Return what stays the same from one revision of a message to the next.

    A gap's identity holds its symbol. That of any other message does not; it sorts by time.
    """
    if isinstance(struct, Gap):
        return (struct.symbol, struct.epoch, struct.first_missing)
    if isinstance(struct, Prediction):
        return (struct.start_ms, struct.interval_seconds, struct.horizon_seconds, struct.model_version)
    return (struct.start_ms, struct.interval_seconds)


def proof_name(candle: Candle) -> str:
    """Return what proves that no trade is missing at a candle's end: a witness, `unproven` or `unknown`."""
    return 'unproven' if candle.is_unproven else candle.evidence or 'unknown'


class RecentMessages:
    """The last messages of each channel and symbol, the highest revision of each identity."""

    def __init__(self, limit: int = MAX_MESSAGES) -> None:
        self.limit = limit
        self.rows: dict[tuple[str, str], dict[tuple[Any, ...], DecodedMessage]] = {}
        self.candle_proofs: Counter[str] = Counter(unproven=0)  # of the candles kept, by `proof_name`

    def add(self, message: DecodedMessage) -> bool:
        """Keep a message; False if it says nothing new (an older revision, or the same again)."""
        rows = self.rows.setdefault((message.topic, message.struct.symbol), {})
        key = identity(message.struct)
        if message.topic == 'candles_forming':
            if rows and max(rows) > key:
                return False
            rows.clear()
        known = rows.get(key)
        if known and (known.raw == message.raw or known.struct.revision > message.struct.revision):
            return False
        rows[key] = message
        gone = [known] if known else []
        if len(rows) > 2 * self.limit:
            gone += [rows.pop(old) for old in sorted(rows)[: -self.limit]]
        if message.topic == 'candles':
            self.candle_proofs[proof_name(message.struct)] += 1
            self.candle_proofs.subtract(proof_name(old.struct) for old in gone)
        return True

    def structs(self, channel: str, symbol: str) -> list[Any]:
        """Return what is known of one symbol, oldest first."""
        rows = self.rows.get((channel, symbol), {})
        return [rows[key].struct for key in sorted(rows)]

    def raw(self, channel: str, symbol: str, span: tuple[int | None, int | None], limit: int) -> list[bytes]:
        """Return the newest messages of one symbol that start in a span, encoded, oldest first."""
        rows = self.rows.get((channel, symbol), {})
        since, until = span
        inside = [
            key
            for key in sorted(rows)
            if (since is None or since <= key[0]) and (until is None or key[0] < until)
        ]
        return [rows[key].raw for key in inside[-limit:]]

    def latest(self, channel: str, symbol: str) -> DecodedMessage | None:
        """Return the newest message of one symbol."""
        rows = self.rows.get((channel, symbol))
        return rows[max(rows)] if rows else None


class RecentGaps:
    """The last gaps in the trade ids, the latest revision of each."""

    def __init__(self, limit: int = MAX_GAPS) -> None:
        self.limit = limit
        self.rows: dict[tuple[Any, ...], Gap] = {}

    def add(self, gap: Gap) -> None:
        """Keep a gap, unless a higher revision of it is known; the gaps updated longest ago are forgotten."""
        key = identity(gap)
        if supersedes(gap, self.rows.get(key)):
            self.rows[key] = gap
        if len(self.rows) > 2 * self.limit:
            newest = sorted(self.rows.values(), key=lambda row: row.updated_ms)[-self.limit :]
            self.rows = {identity(row): row for row in newest}

    def counts(self) -> dict[str, int]:
        """Return how many gaps are in which state."""
        states = Counter(gap.state for gap in self.rows.values())
        return {
            'open': states['open'],
            'filled': states['filled'],
            'exchange_holes': states['exchange_hole'],
            'timed_out': states['timed_out'],
        }


class RecentNews:
    """The last stories and what each scorer says of them."""

    def __init__(self, limit: int = MAX_STORIES) -> None:
        self.limit, self.through_ms = limit, 0
        self.stories: dict[str, News] = {}
        self.signals: dict[str, dict[tuple[str, str], NewsSignal]] = {}

    def add(self, struct: News | NewsSignal) -> bool:
        """Keep a story or a signal; False if it was known."""
        if isinstance(struct, News):
            is_new = self.stories.get(struct.news_id) != struct
            self.stories[struct.news_id] = struct
        else:
            rows = self.signals.setdefault(struct.news_id, {})
            key = (struct.scorer, struct.version)
            is_new = rows.get(key) != struct
            rows[key] = struct
        if max(len(self.stories), len(self.signals)) > 2 * self.limit:
            self._forget_old()
        return is_new

    def _forget_old(self) -> None:
        newest = {story.news_id for story in self.newest()[: self.limit]}
        self.stories = {key: story for key, story in self.stories.items() if key in newest}
        self.signals = dict(list(self.signals.items())[-self.limit :])

    def newest(self, asset: str | None = None) -> list[News]:
        """Return the stories about an asset, or all, the last known first."""
        found = [story for story in self.stories.values() if asset is None or asset in story.assets]
        return sorted(found, key=lambda story: (-story.available_ms, story.news_id))

    def signals_of(self, scorer: str) -> list[NewsSignal]:
        """Return the signals of one scorer, each story once and by the version that came last."""
        found: list[NewsSignal] = []
        for rows in list(self.signals.values()):
            found.extend([signal for signal in rows.values() if signal.scorer == scorer][-1:])
        return found
