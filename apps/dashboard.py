"""The live page in our own markup, and the Gradio app that shows it with the tables below.

The chart, the prediction and the badges live on the websocket; Gradio adds the tables. Nothing is loaded from
outside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from apps.assets import CHART_SHA256, STATIC, version
from apps.hub import Hub
from apps.tables import candles_table, predictions_table, services_table
from crypto_rt.core.settings import default_environment

if TYPE_CHECKING:
    from fastapi import FastAPI

LIVE = 'dashboard'  # the module of the live page
TABLE_SECONDS = 5
TABLES: list[tuple[str, Callable[[Hub], str]]] = [
    ('Predictions', predictions_table),
    ('Candles', candles_table),
    ('Services', services_table),
]
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
FONT_MONO = ['ui-monospace', 'Menlo', 'Consolas', 'DejaVu Sans Mono', 'monospace']


def head(page: str = LIVE) -> str:
    """Return what belongs in a page's head; addresses change with our files, so no browser shows an old page.

    Args:
        page: Names the page's own module under `static/`, and its style sheet where it has one.
    """
    ours = f'/crt/{version()}'
    names = [name for name in dict.fromkeys(('theme', page)) if (STATIC / f'{name}.css').is_file()]
    styles = ''.join(f'<link rel="stylesheet" href="{ours}/{name}.css">' for name in names)
    library = f'<script src="/crt/lightweight-charts.js?v={CHART_SHA256[:8]}" defer></script>'
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="{ours}/favicon.svg" type="image/svg+xml">'
        f'{styles}{library if page == LIVE else ""}'
        f'<script src="{ours}/{page}.js" type="module"></script>'
    )


def panel() -> str:
    """Return the markup that dashboard.js fills."""
    return (STATIC / 'panel.html').read_text(encoding='utf-8')


def document(title: str, body: str, *, page: str = LIVE, attributes: str = '') -> str:
    """Return a page of ours outside Gradio."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · crypto-rt</title>'
        f'{head(page)}</head><body{attributes}>{body}</body></html>'
    )


def plain_page() -> str:
    """Return the live page without Gradio; it reloads itself when the stream says that Gradio is ready."""
    return document('Live', panel(), attributes=' data-plain="1"')


def mount(app: FastAPI, hub: Hub) -> None:
    """Mount the Gradio dashboard at `/` of `app`; imports gradio, which takes 5 s.

    Args:
        app: Routes that it has already come first.
        hub: What the tables show.
    """
    default_environment(GRADIO_ANALYTICS_ENABLED='False')
    import gradio as gr

    with gr.Blocks(title='crypto-rt', analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(panel(), padding=False, apply_default_css=False)
        boxes = []
        with gr.Column(elem_classes='crt-tables'), gr.Tabs():
            for title, make in TABLES:
                with gr.Tab(title):
                    content = functools.partial(make, hub)
                    boxes.append(gr.HTML(content, padding=False, apply_default_css=False))
        gr.Timer(TABLE_SECONDS).tick(
            lambda: [make(hub) for _, make in TABLES],
            None,
            boxes,
            queue=False,
            show_progress='hidden',
            api_visibility='private',
        )
    gr.mount_gradio_app(
        app,
        blocks,
        path='/',
        theme=gr.themes.Base(font=FONT, font_mono=FONT_MONO),
        head=head(),
        ssr_mode=False,
        footer_links=[],
        run_history=False,
    )
