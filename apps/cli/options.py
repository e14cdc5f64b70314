"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any, Literal

import typer

from crypto_rt.core.logs import log_formatter
from crypto_rt.core.settings import Settings, load_settings

COMMON = 'Common options'
CHATTY = ('httpx', 'websockets', 'uvicorn', 'alembic', 'numexpr', 'matplotlib', 'papermill')


def set_up_logging(context: typer.Context, level: str | None) -> str | None:
    "Write log lines of this level and above to stderr; `ValueError` when it is no level."
    if not context.resilient_parsing:
        settings = load_settings(data={'log_level': level})
        handler = logging.StreamHandler(sys.stderr)
        service = context.info_name or 'crypto-rt'
        handler.setFormatter(log_formatter(settings.data.log_format, service, settings.run.id))
        logging.basicConfig(level=settings.data.log_level.upper(), handlers=[handler], force=True)
        for name in CHATTY:
            logging.getLogger(name).setLevel('WARNING')
    return level


DataDir = Annotated[
    str | None,
    typer.Option(
        '--data-dir', metavar='D', help='where the state lives (default: data)', rich_help_panel=COMMON
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        '--log-level',
        metavar='LEVEL',
        help='DEBUG, INFO, WARNING or ERROR',
        callback=set_up_logging,
        rich_help_panel=COMMON,
    ),
]
Symbols = Annotated[
    str | None, typer.Option('--symbols', metavar='S', help='separated by commas, such as BTC/USD,ETH/USD')
]
Symbol = Annotated[str, typer.Option('--symbol', metavar='S', help='one, such as BTC/USD')]
Interval = Annotated[int | None, typer.Option('--interval', metavar='SECONDS', help='length of a candle')]
Horizon = Annotated[
    int | None, typer.Option('--horizon', metavar='SECONDS', help='how far ahead is predicted')
]
Broker = Annotated[
    str | None, typer.Option('--broker', metavar='HOST:PORT', help='a Kafka of yours instead of our own')
]
Port = Annotated[int | None, typer.Option('--port', metavar='P', help='port of the API and the dashboard')]
Since = Annotated[
    str | None, typer.Option('--since', metavar='T', help='from here on: ISO 8601 or milliseconds')
]
Until = Annotated[str | None, typer.Option('--until', metavar='T', help='and before this')]
Absent = Annotated[
    Literal['hole', 'empty'],
    typer.Option(
        '--absent', help='what a candle that the file leaves out means: a hole, or a window without trades'
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        '--file',
        metavar='F...',
        help='one or more candles or trades files: Parquet, CSV, JSON lines or REST replies, '
        'each taken whole or not at all',
    ),
]
NewsFiles = Annotated[
    list[str] | None, typer.Option('--news-file', metavar='F...', help='one or more news files')
]


def settings_of(
    context: typer.Context,
    **instead: Any,  # values that win over those of the command line, such as interval=60
) -> Settings:
    "Return the settings with what the command line says; symbols are brought to their usual spelling."
    given = {**context.params, **instead}
    data = {
        'directory': given.get('data_dir'),
        'symbols': given.get('symbols'),
        'interval_seconds': given.get('interval'),
        'horizon_seconds': given.get('horizon'),
        'log_level': given.get('log_level'),
    }
    if data['symbols']:
        data['symbols'] = ','.join(symbols_in(data['symbols']))
    if data['interval_seconds'] and not data['horizon_seconds']:
        usual = load_settings().data.horizon_seconds
        fits = usual % data['interval_seconds'] == 0
        data['horizon_seconds'] = usual if fits else data['interval_seconds']
    return load_settings(data=data, kafka={'broker': given.get('broker')}, api={'port': given.get('port')})


def symbols_in(text: str) -> list[str]:
    "Return the symbols of a list with commas, in their usual spelling."
    from crypto_rt.core.symbols import normalise_symbol

    return [normalise_symbol(part.strip()) for part in text.split(',') if part.strip()]


def span_of(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    "Return two moments in milliseconds, None where none was given."
    from crypto_rt.core.times import parse_time

    start, end = (parse_time(text) if text else None for text in (since, until))
    return start, end
