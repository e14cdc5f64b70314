"""What is stored: bring it in, look at it, compute and compact it, take it out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from apps.cli.options import (
    Absent,
    DataDir,
    Files,
    Interval,
    LogLevel,
    NewsFiles,
    Since,
    Symbol,
    Symbols,
    Until,
    settings_of,
    span_of,
)
from apps.cli.parsing import SpreadingCommand

PANEL = 'Data'


def register(app: typer.Typer) -> None:
    "Add these commands."
    app.command('backfill', cls=SpreadingCommand, rich_help_panel=PANEL)(backfill)
    app.command('features', rich_help_panel=PANEL)(features)
    app.command('recompute', rich_help_panel=PANEL)(recompute)
    app.command('compact', rich_help_panel=PANEL)(compact)
    app.command('export', rich_help_panel=PANEL)(export)


def backfill(
    context: typer.Context,
    file: Files = None,
    absent: Absent = 'hole',
    news_file: NewsFiles = None,
    since: Since = None,
    until: Until = None,
    symbols: Symbols = None,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    """Bring candles, trades or news into the feature store.

    From files; without one, the newest candles of the exchange, or its trades between two moments.
    """
    from crypto_rt.backfill.exchange import backfill_exchange, backfill_trades
    from crypto_rt.backfill.files import backfill_file
    from crypto_rt.backfill.fill import recompute as compute_features
    from crypto_rt.market.exchanges import open_exchange

    settings, progress = settings_of(context), sys.stderr.isatty()
    if news_file:
        from crypto_rt.backfill.news import backfill_news

        for name in news_file:
            print_json(file=Path(name).name, **backfill_news(settings, name))
        return
    if file and (since or until):
        raise ValueError('--since and --until are for the exchange; with --file the whole file is taken')
    if since or until:
        start, end = span_of(since, until)
        lengths = (interval,) if interval else None
        done = backfill_trades(settings, open_exchange(settings), None, start or 0, end, lengths, progress)
        print_json(**done)
        return
    if not file:
        backfill_exchange(settings, open_exchange(settings), progress)
        data = settings.data
        compute_features(settings, data.symbols, data.interval_seconds, progress, thorough=False)
        return
    for name in file:
        done = backfill_file(
            settings,
            name,
            symbols=settings.data.symbols if symbols else None,
            interval_seconds=interval,
            absent=absent,
            progress=progress,
        )
        print_json(file=Path(name).name, **done)


def print_json(**figures: Any) -> None:
    "Print one JSON object on one line."
    print(json.dumps(figures, default=str))


def features(
    context: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar='GROUP', show_default=False)] = None,
    version: Annotated[
        int | None, typer.Option(metavar='N', help='of the group (default: the newest)')
    ] = None,
    statistics: Annotated[
        bool,
        typer.Option(
            '--statistics',
            metavar='',
            help='count, nulls, range, quantiles, mean and deviation of each column',
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option('--json', metavar='', help='one JSON value instead of a table')
    ] = False,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Show what the feature store has: groups, or the columns of one with what they mean."
    from crypto_rt.store.catalogue import catalogue_text
    from crypto_rt.store.open import open_feature_store

    store = open_feature_store(settings_of(context))
    try:
        print(catalogue_text(store, group, version=version, statistics=statistics, as_json=as_json))
    finally:
        store.close()


def recompute(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Compute the features that stored candles lack."
    from crypto_rt.backfill.fill import recompute as compute_features

    settings = settings_of(context)
    asked = settings.data.symbols if symbols else ()
    done = compute_features(settings, asked, interval, sys.stderr.isatty())
    if missing := sorted(set(asked) - {each['symbol'] for each in done['of_each']}):
        raise ValueError(
            f'no candles of {", ".join(missing)} are stored, or none of this --interval; '
            'run crypto-rt backfill first'
        )
    if not done['of_each']:
        raise ValueError('no candles are stored, or none of this --interval; run crypto-rt backfill first')
    print_json(ok=True, **done)


def compact(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option('--dry-run', metavar='', help='only say what would be dropped')
    ] = False,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Merge the segments of the feature store, and drop what `[store] retention_days` keeps no longer."
    from crypto_rt.store.open import open_feature_store

    settings = settings_of(context)
    store = open_feature_store(settings)
    try:
        print_json(**store.compact(settings.store.retention_days, dry=dry_run))
    finally:
        store.close()


def export(
    context: typer.Context,
    what: Annotated[
        Literal['trades', 'candles', 'indicators', 'features', 'predictions', 'outcomes'],
        typer.Argument(metavar='WHAT', help='trades, candles, indicators, features, predictions or outcomes'),
    ],
    symbol: Symbol,
    out: Annotated[str, typer.Option(metavar='F.parquet', help='the file that is written')],
    since: Since = None,
    until: Until = None,
    all_revisions: Annotated[
        bool, typer.Option('--all-revisions', metavar='', help='also what was revised later')
    ] = False,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Write what is stored to a Parquet file."
    from crypto_rt.core.symbols import normalise_symbol
    from crypto_rt.store.export import export as write_export

    start, end = span_of(since, until)
    rows = write_export(
        settings_of(context),
        what,
        normalise_symbol(symbol),
        out,
        since=start,
        until=end,
        all_revisions=all_revisions,
        interval_seconds=interval,
    )
    print_json(what=what, rows=rows, file=Path(out).name)
