"""The dashboard: one live page of our own markup, in a plain shell at once and inside Gradio when that is imported.

The chart, the prediction and the badges live on the websocket; Gradio adds the tables below them. Nothing is loaded from outside.
"""

from __future__ import annotations

import functools
import hashlib
import html
import importlib.metadata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_rt.core.settings import Settings, default_environment
from crypto_rt.core.times import iso

if TYPE_CHECKING:
    from fastapi import FastAPI

    from apps.stream import Hub

STATIC = Path(__file__).with_name('static')
CHART_LIBRARY = (
    'lwcharts',
    'lightweight-charts.standalone.production.js',
)  # TradingView Lightweight Charts 5.2.0, Apache-2.0
CHART_SHA256 = 'c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7'
TABLE_SECONDS = 5
TABLE_ROWS = 12
FONT = [
    'ui-sans-serif',
    'system-ui',
    '-apple-system',
    'Segoe UI',
    'Roboto',
    'Helvetica Neue',
    'Arial',
    'DejaVu Sans',
    'sans-serif',
]


@functools.cache
def chart_library() -> bytes:
    """Return lightweight-charts' JavaScript, out of the installed package and unchanged.

    Raises:
        RuntimeError: When the package is not there, or its file is not the one that was checked.
    """
    package, name = CHART_LIBRARY
    files = importlib.metadata.files(package) or ()
    found = next((Path(str(file.locate())) for file in files if file.name == name), None)
    if found is None:
        raise RuntimeError(f'{name} is not in the package {package}; install what requirements.lock names')
    body = found.read_bytes()
    if (digest := hashlib.sha256(body).hexdigest()) != CHART_SHA256:
        raise RuntimeError(
            f'{package}/{name}: expected SHA-256 {CHART_SHA256}, was {digest}; install what requirements.lock names'
        )
    return body


def head() -> str:
    """Return what belongs in the page's head; addresses change with the files, so no browser shows an old page."""
    stamp = hashlib.sha256(
        b''.join(file.read_bytes() for file in sorted(STATIC.iterdir()) if file.is_file())
    ).hexdigest()[:8]
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="/crt/favicon.svg" type="image/svg+xml">'
        f'<link rel="stylesheet" href="/crt/dashboard.css?v={stamp}">'
        f'<script src="/crt/lightweight-charts.js?v={CHART_SHA256[:8]}" defer></script>'
        f'<script src="/crt/dashboard.js?v={stamp}" defer></script>'
    )


def panel() -> str:
    """Return the markup that dashboard.js fills."""
    return (STATIC / 'panel.html').read_text(encoding='utf-8')


def document(title: str, body: str, plain: str = '') -> str:
    """Return a page of ours outside Gradio."""
    return f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · crypto-rt</title>{head()}</head><body{plain}>{body}</body></html>'


def plain_page() -> str:
    """Return the live page without Gradio; it reloads itself when the stream says that the dashboard is ready."""
    return document('Live', panel(), ' data-plain="1"')


# --- tables


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]], none: str) -> str:
    """Return an HTML table; the first column is text, the others are numbers or short words."""
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) + '</tr>' for row in rows
    )
    if not body:
        return f'<div class="crt-scroll"><div class="crt-none">{html.escape(none)}</div></div>'
    head_row = ''.join(f'<th>{html.escape(word)}</th>' for word in heads)
    return f'<div class="crt-scroll"><table class="crt-table"><thead><tr>{head_row}</tr></thead><tbody>{body}</tbody></table></div>'


def newest(hub: Hub, channel: str) -> list[Any]:
    """Return the last messages of a channel over all symbols, newest first."""
    rows = [row for symbol in hub.symbols for row in hub.recent.structs(channel, symbol)[-TABLE_ROWS:]]
    return sorted(rows, key=lambda row: (-row.start_ms, row.symbol))[:TABLE_ROWS]


def price(value: float | None) -> str:
    """Return a price with thousands and as many decimals as its size deserves."""
    return (
        '–'
        if value is None
        else f'{value:,.2f}'
        if abs(value) >= 100
        else f'{value:,.4f}'
        if abs(value) >= 1
        else f'{value:.8f}'
    )


def basis_points(value: float | None) -> str:
    """Return a log return in basis points."""
    return '–' if value is None else f'{value * 1e4:+.1f}'


def predictions_table(hub: Hub) -> str:
    """Return the last predictions."""
    heads = [
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
    rows = [
        [
            p.symbol,
            iso(p.start_ms)[11:19],
            iso(p.target_ms)[11:19],
            price(p.last_price),
            price(p.expected_price),
            basis_points(p.expected_log_return),
            basis_points(p.lower),
            basis_points(p.upper),
            f'{p.level:.0%}',
            p.status,
            p.model_version,
        ]
        for p in newest(hub, 'predictions')
    ]
    return table(heads, rows, 'No prediction yet: the first one follows the next final candle.')


def candles_table(hub: Hub) -> str:
    """Return the last final candles."""

    def marks(candle: Any) -> str:
        words = (
            'empty' * candle.is_empty,
            'partial' * candle.is_partial,
            f'revision {candle.revision}' * (candle.revision > 0),
        )
        return ', '.join(filter(None, words)) or 'complete'

    heads = ['Symbol', 'Start (UTC)', 'Open', 'High', 'Low', 'Close', 'Volume', 'Trades', 'From', 'State']
    rows = [
        [
            c.symbol,
            iso(c.start_ms)[:19].replace('T', ' '),
            *(price(float(v)) for v in (c.open, c.high, c.low, c.close)),
            f'{float(c.volume):,.4f}',
            f'{c.trade_count:,}',
            c.source,
            marks(c),
        ]
        for c in newest(hub, 'candles')
    ]
    return table(heads, rows, 'No final candle yet.')


def services_table(hub: Hub) -> str:
    """Return what the services said of themselves, and what this process read."""
    rows = [
        [
            name,
            e.kind,
            iso(e.at_ms)[:19].replace('T', ' '),
            ', '.join(f'{k} {v:,}' for k, v in sorted(e.counts.items())) or '–',
        ]
        for name, e in sorted(hub.services.items())
    ]
    return table(['Service', 'Last event', 'At (UTC)', 'Counts'], rows, 'No service has reported yet.')


# --- Gradio


def mount(app: FastAPI, settings: Settings, hub: Hub | None = None) -> FastAPI:
    """Mount the Gradio dashboard at `/` of `app`; imports gradio, which takes 5 s.

    Args:
        app: Routes that it has already come first.
        settings: All sections.
        hub: What the tables show; without it there are none.
    """
    default_environment(GRADIO_ANALYTICS_ENABLED='False')
    import gradio as gr

    with gr.Blocks(title='crypto-rt', analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(panel(), padding=False, apply_default_css=False)
        if hub is not None:
            makers: list[tuple[str, Callable[[Hub], str]]] = [
                ('Predictions', predictions_table),
                ('Candles', candles_table),
                ('Services', services_table),
            ]
            with gr.Column(elem_classes='crt-tables'), gr.Tabs():
                boxes = []
                for title, maker in makers:
                    with gr.Tab(title):
                        boxes.append(
                            gr.HTML(functools.partial(maker, hub), padding=False, apply_default_css=False)
                        )
            gr.Timer(TABLE_SECONDS).tick(
                lambda: [maker(hub) for _, maker in makers],
                None,
                boxes,
                queue=False,
                show_progress='hidden',
                api_visibility='private',
            )
    theme = gr.themes.Base(
        font=FONT, font_mono=['ui-monospace', 'Menlo', 'Consolas', 'DejaVu Sans Mono', 'monospace']
    )
    return gr.mount_gradio_app(
        app, blocks, path='/', theme=theme, head=head(), ssr_mode=False, footer_links=[], run_history=False
    )
