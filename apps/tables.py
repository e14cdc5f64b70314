"""The tables below the live page: predictions, candles, services."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from apps.hub import Hub
from crypto_rt.core.messages import Candle, Prediction
from crypto_rt.core.times import iso

TABLE_ROWS = 12
NONE = '–'

PREDICTION_HEADS = [
    'Symbol',
    'Candle (UTC)',
    'Target (UTC)',
    'From',
    'Expected',
    'Return, bp',
    'Lower, bp',
    'Upper, bp',
    'Level',
    'Status',
    'Model',
]
CANDLE_HEADS = [
    'Symbol',
    'Start (UTC)',
    'Open',
    'High',
    'Low',
    'Close',
    'Volume',
    'Trades',
    'From',
    'State',
]
SERVICE_HEADS = ['Service', 'Last event', 'At (UTC)', 'Counts']


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]], none: str) -> str:
    """Return an HTML table, or the words of `none`; all columns but the first are numbers or short words."""
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) + '</tr>' for row in rows
    )
    if not body:
        return f'<div class="crt-scroll"><div class="crt-none">{html.escape(none)}</div></div>'
    head = ''.join(f'<th>{html.escape(word)}</th>' for word in heads)
    return (
        '<div class="crt-scroll"><table class="crt-table">'
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def newest_rows(hub: Hub, channel: str) -> list[Any]:
    """Return the last messages of a channel over all symbols, newest first."""
    rows = [row for symbol in hub.symbols for row in hub.recent.structs(channel, symbol)[-TABLE_ROWS:]]
    return sorted(rows, key=lambda row: (-row.start_ms, row.symbol))[:TABLE_ROWS]


def price_text(value: float | None) -> str:
    """Return a price with thousands and as many decimals as its size deserves."""
    if value is None:
        return NONE
    if abs(value) >= 100:
        return f'{value:,.2f}'
    return f'{value:,.4f}' if abs(value) >= 1 else f'{value:.8f}'


def basis_points(value: float | None) -> str:
    """Return a log return in basis points."""
    return NONE if value is None else f'{value * 1e4:+.1f}'


def candle_state(candle: Candle) -> str:
    """Return what is odd about a candle, or `complete`."""
    words = []
    if candle.is_empty:
        words.append('empty')
    if candle.is_partial:
        words.append('partial')
    if candle.is_unproven:
        words.append('unproven')
    if candle.revision > 0:
        words.append(f'revision {candle.revision}')
    return ', '.join(words) or 'complete'


def instant(ms: int) -> str:
    """Return a date and a time to the second."""
    return iso(ms)[:19].replace('T', ' ')


def prediction_cells(row: Prediction) -> list[str]:
    """Return one line of the predictions table."""
    return [
        row.symbol,
        iso(row.start_ms)[11:19],
        iso(row.target_ms)[11:19],
        price_text(row.last_price),
        price_text(row.expected_price),
        basis_points(row.expected_log_return),
        basis_points(row.lower),
        basis_points(row.upper),
        f'{row.level:.0%}',
        row.status,
        row.model_version,
    ]


def candle_cells(row: Candle) -> list[str]:
    """Return one line of the candles table."""
    return [
        row.symbol,
        instant(row.start_ms),
        *(price_text(float(text)) for text in (row.open, row.high, row.low, row.close)),
        f'{float(row.volume):,.4f}',
        f'{row.trade_count:,}',
        row.source,
        candle_state(row),
    ]


def predictions_table(hub: Hub) -> str:
    """Return the last predictions."""
    rows = [prediction_cells(row) for row in newest_rows(hub, 'predictions')]
    return table(PREDICTION_HEADS, rows, 'No prediction yet: the first one follows the next final candle.')


def candles_table(hub: Hub) -> str:
    """Return the last final candles."""
    rows = [candle_cells(row) for row in newest_rows(hub, 'candles')]
    return table(CANDLE_HEADS, rows, 'No final candle yet.')


def services_table(hub: Hub) -> str:
    """Return what the services said of themselves."""
    rows = []
    for name, event in sorted(hub.services.items()):
        counts = ', '.join(f'{key} {value:,}' for key, value in sorted(event.counts.items()))
        rows.append([name, event.kind, instant(event.at_ms), counts or NONE])
    return table(SERVICE_HEADS, rows, 'No service has reported yet.')
