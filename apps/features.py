"""What `/v1/features`, `/v1/news` and the features page say: declarations beside present values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from apps import dashboard as pages
from apps.stream import Hub
from crypto_rt.core.messages import News, NewsSignal, TechnicalIndicators
from crypto_rt.features.news_features import NEWS_FEATURES, news_columns, news_features
from crypto_rt.features.table import TABLE, Feature
from crypto_rt.features.vectors import CONTEXT, leader_features

DECAYED = 'news_sum_6h'


def finite(value: float) -> float | None:
    """Return a number as JSON can say it; null: none, or not finite."""
    return value if math.isfinite(value) else None


def declared(feature: Feature) -> dict[str, Any]:
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


def statistics_of(values: Iterable[float | None]) -> dict[str, Any]:
    """Return count, nulls, mean, standard deviation and extremes."""
    every = list(values)
    known = [value for value in every if value is not None]
    spread = statistics.pstdev(known) if known else None
    return {
        'count': len(known),
        'nulls': len(every) - len(known),
        'mean': math.fsum(known) / len(known) if known else None,
        'std': spread,
        'min': min(known, default=None),
        'max': max(known, default=None),
    }


def context_of(hub: Hub, symbol: str, row: TechnicalIndicators) -> dict[str, float | None]:
    """Return what a vector has beside the candle's own features: another symbol and the news, as of the candle's end."""
    name = hub.settings.features.leader
    known = [
        other
        for other in hub.recent.structs('technical_indicators', name)
        if other.available_ms <= row.end_ms
    ]
    leader = leader_features(row, known[-1] if known and name != symbol else None)
    signals = hub.news.signals_of(hub.settings.news_signals.scorers[0])
    return {**leader, **news_features(signals, symbol.partition('/')[0], row.end_ms)}


def catalogue(hub: Hub, symbols: list[str], stored: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the body of `/v1/features`; a symbol's statistics are over the candles in memory, those of `stored` over all that the store holds."""
    kept: dict[str, Any] = hub.__dict__.setdefault('feature_statistics', {})
    told: dict[str, Any] = {}
    for symbol in symbols:
        rows: list[TechnicalIndicators] = hub.recent.structs('technical_indicators', symbol)
        if not rows:
            continue
        last = rows[-1]
        mark = (last.start_ms, last.revision, len(rows), len(hub.news.signals))
        if kept.get(symbol, (None,))[0] != mark:
            found = {name: statistics_of(row.values.get(name) for row in rows) for name in TABLE.names}
            values = {
                **{name: last.values.get(name) for name in TABLE.names},
                **context_of(hub, symbol, last),
            }
            kept[symbol] = (
                mark,
                {
                    'start_ms': last.start_ms,
                    'is_partial': last.is_partial,
                    'warm_up': last.warm_up,
                    'rows': len(rows),
                    'values': values,
                    'statistics': found,
                },
            )
        told[symbol] = kept[symbol][1]
    unique = {feature.name: feature for feature in (*TABLE.features, *CONTEXT, *NEWS_FEATURES)}
    return {
        'feature_set': TABLE.newest,
        'sets': {name: len(names) for name, names in TABLE.sets.items()},
        'features': [
            {**declared(feature), 'stored': stored.get(feature.name)} for feature in unique.values()
        ],
        'symbols': told,
    }


def told(hub: Hub, story: News) -> dict[str, Any]:
    """Return a story with its signals; the link only where it is http or https."""
    row = msgspec.to_builtins(story)
    row.pop('type', None)
    row['url'] = story.url if story.url.lower().startswith(('http://', 'https://')) else ''
    row['signals'] = sorted(
        hub.news.signals.get(story.news_id, {}).values(), key=lambda s: (s.scorer, s.version)
    )
    return row


def decayed(signals: list[NewsSignal], symbol: str, moments: list[int]) -> list[dict[str, Any]]:
    """Return the sum of the scores about a symbol at each moment; null while nothing was heard."""
    columns = news_columns(np.array(moments, np.int64), symbol.partition('/')[0], signals)
    values, counts = columns[DECAYED].tolist(), columns['news_count_6h'].tolist()
    return [
        {'at_ms': at_ms, 'value': finite(value), 'count': finite(count)}
        for at_ms, value, count in zip(moments, values, counts, strict=True)
    ]


def page() -> str:
    """Return the features page, which features.js fills."""
    return pages.document(
        'Features', (pages.STATIC / 'features.html').read_text(encoding='utf-8'), ' data-page="features"'
    )
