"""The Rust core: exchange frames to trades to candles. State and arithmetic, no I/O."""

from typing import Self, final

from .core.messages import Candle

__all__ = ['CandleFold', 'decode_trade_frame']

def decode_trade_frame(raw: bytes) -> list[tuple[str, int, str, str, str, str, int]]:
    """Decode a Kraken WebSocket v2 frame of the channel `trade`.

    Keys may come in any order, unknown ones are passed over. Numbers are taken from the bytes as exact decimals, with or without
    an exponent; times are floored to milliseconds.

    Args:
        raw: One frame, UTF-8 JSON.

    Returns:
        For each trade, in the order of the frame: symbol, trade_id, price and quantity as normalised decimal text (no exponent,
        no trailing zeros), side ('buy' or 'sell'), order type ('limit', 'market', or '' where the frame has none), event_ms.

    Raises:
        ValueError: If the frame is not a well-formed trade frame; says what was expected and what came. Nothing else is raised,
            whatever the bytes.
    """

@final
class CandleFold:
    """Folds the messages of the topic `trades` into candles; equal, byte by byte, to `crypto_rt.candles.fold.CandleFold`.

    One fold serves any number of symbols. What it returns depends only on the messages and their order; of the trades between two
    marks, not even on their order.
    """

    def __new__(
        cls, interval_seconds: int, grace_ms: int = 2000, keep_closed: int = 120, proof_wait_ms: int = 0
    ) -> Self:
        """Make an empty fold.

        Args:
            interval_seconds: Length of a window.
            grace_ms: How long after its end a window still waits for trades, in exchange time.
            keep_closed: For so many windows behind the newest final one a late trade makes a revision.
            proof_wait_ms: How much longer than grace it waits for a proof that nothing is missing at its end.

        Raises:
            ValueError: If a number is out of range.
        """

    def feed(self, raw: bytes, offset: int = 0) -> list[bytes]:
        """Take one `Trades` or `Watermark` message.

        Args:
            raw: The message as it lies in the topic.
            offset: Where it lies; see `oldest_offset`.

        Returns:
            Encoded `Candle` messages that became final or were revised, oldest first. Trades alone return none.

        Raises:
            ValueError: If the message is malformed; then nothing of it was taken.
        """

    def feed_many(self, raws: list[bytes], offsets: list[int]) -> list[tuple[int, bytes | str]]:
        """Take many messages in one call: `feed` for each of them.

        Args:
            raws: Messages as they lie in the topic, in order.
            offsets: Where each of them lies.

        Returns:
            In order, the index of a message with an encoded `Candle` that it made final or revised, or with the reason (a str) why
            nothing of it was taken.

        Raises:
            ValueError: If there are not as many offsets as messages.
        """

    def feed_frame(self, raw: bytes, offset: int = 0) -> int:
        """Take the trades of a Kraken WebSocket v2 frame, decoded and folded in one pass: for replay and backfill.

        Returns:
            How many trades the frame had; candles come with the next mark.

        Raises:
            ValueError: As `decode_trade_frame`; then nothing of it was taken.
        """

    def forming(self) -> list[bytes]:
        """Return an encoded `FormingCandle` of each symbol that has traded in its newest open window since the last call."""

    def restore(self, symbol: str, candle: Candle) -> None:
        """Take a candle as final already: a previous run has emitted it. Call it oldest first, each window's latest revision.

        Trades of its window are taken in silence while they are no more than it counts; one more makes the next revision. The
        window after it is whole if the first trade_id follows its `last_trade_id`.

        Raises:
            ValueError: If the candle is of another interval.
        """

    def rejected(self) -> list[tuple[int, int, str]]:
        """Return (offset, trade_id, reason) of the trades that came too late for any candle, and forget them."""

    def oldest_offset(self) -> int | None:
        """Return the lowest `offset` that a restart must read again, None if none: the first that touched a window still kept."""

    def counts(self) -> dict[str, int]:
        """Return how many trades, zero_quantity, duplicates, covered, too_late, marks, candles, empty, unproven and
        revisions there were.

        `covered` counts trades read again that belong to candles from before the first restored one.
        """
