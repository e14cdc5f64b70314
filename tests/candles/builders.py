"""Messages of trades and marks for the tests of candles."""

from __future__ import annotations

from crypto_rt._core import CandleFold as RustFold
from crypto_rt.candles.fold import CandleFold
from crypto_rt.core.messages import Trade, Trades, Watermark, encode

START = 1_762_795_380_000


FOLDS = (CandleFold, RustFold)


def trades_message(trades: list[Trade], source: str = 'replay', symbol: str = 'BTC/USD') -> bytes:
    return encode(Trades(symbol, trades, START, source))


def mark(
    ms: int,
    through: int,
    connected: bool = True,
    source: str = 'replay',
    symbol: str = 'BTC/USD',
    quotes: tuple[str | None, str | None] = (None, None),
    proven: tuple[int | None, str] = (None, ''),  # up to when, and by whom
) -> bytes:
    return encode(Watermark(symbol, ms, through, connected, source, *quotes, *proven))
