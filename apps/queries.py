"""What may be asked of the lists; an unknown parameter is an error."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

from fastapi import HTTPException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from crypto_rt.core.symbols import normalise_symbol

WHOLE = re.compile('-?(?:0|[1-9][0-9]{0,17})')
FIRST_MS, LAST_MS = 10**12, 10**13  # instants in milliseconds lie between: 2001 and 2286


def plain_digits(value: Any) -> Any:
    """Return a whole number written in ASCII digits as it is.

    Raises:
        ValueError: For what Python's `int` would take beside it, such as `1_000`, `+5`, ` 5 ` and the digits
            of other scripts.
    """
    if isinstance(value, str) and not WHOLE.fullmatch(value):
        raise ValueError(f'must be a whole number in plain digits, was {value[:40]!r}')
    return value


PlainDigits = BeforeValidator(plain_digits)
Instant = Annotated[
    int | None, Field(ge=FIRST_MS, lt=LAST_MS, description='milliseconds since 1970 UTC'), PlainDigits
]
SymbolText = Annotated[
    str, Field(max_length=33, pattern=r'^[A-Za-z0-9.]{1,16}[/-][A-Za-z0-9.]{1,16}$', examples=['BTC/USD'])
]
IntervalSeconds = Annotated[
    int | None,
    Field(ge=1, le=7 * 86400, description='seconds; left out: the one of the settings'),
    PlainDigits,
]


class ListQuery(BaseModel):
    """What every list takes; nothing lies in a span that ends where it begins, or before."""

    model_config = ConfigDict(extra='forbid')
    since: Instant = None
    until: Instant = None
    limit: Annotated[int, Field(ge=1, le=5000, description='the newest so many'), PlainDigits] = 500

    def contains(self, at_ms: int) -> bool:
        """Tell whether an instant lies in [since, until)."""
        return (self.since or 0) <= at_ms < (self.until or LAST_MS)


class SeriesQuery(ListQuery):
    """A list of one symbol."""

    symbol: SymbolText
    interval: IntervalSeconds = None


class PredictionsQuery(ListQuery):
    """Predictions of one symbol or of all."""

    symbol: SymbolText | None = None
    interval: IntervalSeconds = None


class GapsQuery(ListQuery):
    """Gaps of one symbol or of all, by when they opened."""

    symbol: SymbolText | None = None


class NewsQuery(ListQuery):
    """News about one symbol's base currency, or all, by when it was known."""

    limit: Annotated[int, Field(ge=1, le=1000, description='the newest so many'), PlainDigits] = 50
    symbol: SymbolText | None = None


class NewsSignalQuery(BaseModel):
    """What the news said of a symbol at the ends of its last candles."""

    model_config = ConfigDict(extra='forbid')
    symbol: SymbolText
    scorer: Annotated[
        str | None, Field(max_length=40, description='left out: the first of [news_signals] scorers')
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description='so many candles back'), PlainDigits] = 300


class SymbolQuery(BaseModel):
    """One symbol or all."""

    model_config = ConfigDict(extra='forbid')
    symbol: SymbolText | None = None


def spelled(symbol: str) -> str:
    """Return a symbol as we write it: `btc-usd` is `BTC/USD`, and `AAPLx/USD` stays as it is."""
    try:
        return normalise_symbol(symbol)
    except ValueError:
        return symbol


def known_symbol(text: str, known: list[str]) -> str:
    """Return the symbol as we write it.

    Raises:
        HTTPException: 404 that names the nearest symbols.
    """
    symbol = spelled(text)
    if symbol in known:
        return symbol
    same = [name for name in known if name.lower() == symbol.lower()]
    if len(same) == 1:
        return same[0]
    nearest = difflib.get_close_matches(symbol, known, 3, cutoff=0.4) or known[:5]
    raise HTTPException(404, f'no symbol {symbol} here; there are {", ".join(nearest)}')


def known_symbols(text: str | None, known: list[str]) -> list[str]:
    """Return the one symbol that was asked for, or all."""
    return [known_symbol(text, known)] if text else known
