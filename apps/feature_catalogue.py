"""Every feature: what the table declares of it, beside present values and statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from apps.hub import Hub
from crypto_rt.core.messages import TechnicalIndicators
from crypto_rt.features.definition import Feature
from crypto_rt.features.news_features import NEWS_FEATURES, news_features
from crypto_rt.features.table import TABLE
from crypto_rt.features.vectors import CONTEXT, leader_features


def finite(value: float) -> float | None:
    """Return a number as JSON can say it; null: none, or not finite."""
    return value if math.isfinite(value) else None


def declaration(feature: Feature) -> dict[str, Any]:
    """Return what the table says of a feature."""
    return {
        'name': feature.name,
        'family': feature.family,
        'meaning': feature.meaning,
        'inputs': feature.inputs,
        'warm_up': feature.warm_up,
        'low': finite(feature.low),
        'high': finite(feature.high),
        'flat': feature.flat,
        'tolerance': feature.tolerance,
        'since': feature.since,
        'until': feature.until,
    }


def describe_values(values: Iterable[float | None]) -> dict[str, Any]:
    """Return count, nulls, mean, standard deviation and extremes."""
    every = list(values)
    known = [value for value in every if value is not None]
    return {
        'count': len(known),
        'nulls': len(every) - len(known),
        'mean': math.fsum(known) / len(known) if known else None,
        'std': statistics.pstdev(known) if known else None,
        'min': min(known, default=None),
        'max': max(known, default=None),
    }


def context_values(hub: Hub, symbol: str, row: TechnicalIndicators) -> dict[str, float | None]:
    """Return what a vector has beside a candle's own features, as of its end: another symbol, the news."""
    leader = hub.settings.features.leader
    known = [
        other
        for other in hub.recent.structs('technical_indicators', leader)
        if other.available_ms <= row.end_ms
    ]
    leader_row = known[-1] if known and leader != symbol else None
    signals = hub.news.signals_of(hub.settings.news_signals.scorers[0])
    return {
        **leader_features(row, leader_row),
        **news_features(signals, symbol.partition('/')[0], row.end_ms),
    }


class _Described(NamedTuple):
    state: tuple[int, int, int, int]  # of the hub, when it was computed
    entry: dict[str, Any]


def symbol_entry(hub: Hub, symbol: str, rows: list[TechnicalIndicators]) -> dict[str, Any]:
    """Return the newest values of a symbol, and statistics over its candles in memory."""
    last = rows[-1]
    return {
        'start_ms': last.start_ms,
        'is_partial': last.is_partial,
        'warm_up': last.warm_up,
        'rows': len(rows),
        'values': {
            **{name: last.values.get(name) for name in TABLE.names},
            **context_values(hub, symbol, last),
        },
        'statistics': {name: describe_values(row.values.get(name) for row in rows) for name in TABLE.names},
    }


class FeatureCatalogue:
    """The features of one hub; a symbol is described again only when something new came."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._described: dict[str, _Described] = {}

    def body(self, symbols: list[str], stored: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the body of `/v1/features`.

        Args:
            symbols: Whose values are shown; a symbol without features is left out.
            stored: Statistics over all that the store holds, by feature.
        """
        features = {feature.name: feature for feature in (*TABLE.features, *CONTEXT, *NEWS_FEATURES)}
        entries = {symbol: self._entry(symbol) for symbol in symbols}
        return {
            'feature_set': TABLE.newest,
            'sets': {name: len(names) for name, names in TABLE.sets.items()},
            'features': [
                {**declaration(feature), 'stored': stored.get(name)} for name, feature in features.items()
            ],
            'symbols': {symbol: entry for symbol, entry in entries.items() if entry},
        }

    def _entry(self, symbol: str) -> dict[str, Any] | None:
        rows: list[TechnicalIndicators] = self.hub.recent.structs('technical_indicators', symbol)
        if not rows:
            return None
        state = (rows[-1].start_ms, rows[-1].revision, len(rows), len(self.hub.news.signals))
        known = self._described.get(symbol)
        if known is None or known.state != state:
            known = _Described(state, symbol_entry(self.hub, symbol, rows))
            self._described[symbol] = known
        return known.entry
