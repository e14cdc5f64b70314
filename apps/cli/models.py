"""Models: train and compare them, and decide which one predicts."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Literal

import typer

from apps.cli.options import (
    Absent,
    DataDir,
    Horizon,
    Interval,
    LogLevel,
    Symbol,
    Symbols,
    settings_of,
    symbols_in,
)
from crypto_rt.core.settings import Settings

PANEL = 'Models'
Why = Annotated[str, typer.Option(metavar='WORDS', help='for the promotion log')]


def register(app: typer.Typer) -> None:
    "Add these commands."
    app.command('train', rich_help_panel=PANEL)(train)
    app.command('train-news', rich_help_panel=PANEL)(train_news)
    app.command('evaluate', rich_help_panel=PANEL)(evaluate)
    app.command('models', rich_help_panel=PANEL)(models)
    app.command('promote', rich_help_panel=PANEL)(promote)
    app.command('rollback', rich_help_panel=PANEL)(rollback)


def train(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar='"CRON"',
            help='stay, and train whenever this line of cron says so (UTC), such as "17 3 * * *"',
        ),
    ] = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Train a model beside the naive forecast, and register it."
    import signal

    from crypto_rt.models.training_runs import train_alone

    settings = settings_of(context)
    if schedule is not None:
        run_on_schedule(settings, schedule)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as by Ctrl-C, and says so in MLflow
    for symbol in settings.data.symbols:
        done = train_alone(settings, symbol, interval, horizon, progress=sys.stderr.isatty())
        print(json.dumps(done, default=str), flush=True)


def run_on_schedule(settings: Settings, schedule: str) -> None:
    "Train on a schedule of the command line until Ctrl-C; `ValueError` when it is none."
    from msgspec.structs import replace

    from crypto_rt.services.training import run_training

    if not schedule.strip():
        raise ValueError('--schedule must be a line of cron (UTC) such as "17 3 * * *", was empty')
    run_training(replace(settings, training=replace(settings.training, schedule=schedule)))


def train_news(
    context: typer.Context,
    labelled: Annotated[
        str, typer.Option(metavar='F.csv', help='columns news, final_manual_labelling and, better, date')
    ],
    until: Annotated[
        str, typer.Option(metavar='DATE', help='learn from rows before this date, examine on the others')
    ] = '',
    origin: Annotated[
        str, typer.Option(metavar='WORDS', help="where the labels come from, for the model's card")
    ] = '',
    promote: Annotated[
        bool, typer.Option('--promote', metavar='', help='let it score from the next start of the service on')
    ] = False,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Train the head of the news signal on labelled headlines, and register it."
    from crypto_rt.models.news_head import train_news as train_head

    done = train_head(settings_of(context), labelled, until=until, source=origin, promote=promote)
    print(json.dumps(done, default=str))


def evaluate(
    context: typer.Context,
    ablate: Annotated[Literal['news'], typer.Option(help='which features are left out')] = 'news',
    scorer: Annotated[
        str | None, typer.Option(metavar='NAME', help='whose signals, when several scorers have spoken')
    ] = None,
    signals: Annotated[
        str | None,
        typer.Option(
            metavar='F.jsonl', help='a message of the topic news_signals on each line (default: the store)'
        ),
    ] = None,
    candles: Annotated[
        str | None,
        typer.Option(metavar='F', help='walk through this candles file instead, and judge every forecast'),
    ] = None,
    horizons: Annotated[
        str, typer.Option(metavar='N,N', help='of the walk: how many candles ahead, separated by commas')
    ] = '1,3,12,36',
    folds: Annotated[
        int | None,
        typer.Option(metavar='N', help='of the walk (default: the settings); the first teaches only'),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar='P.parquet', help='of the walk: each forecast beside what came')
    ] = None,
    absent: Absent = 'hole',
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Judge forecasts out of fold: of a candles file, or with and without the news on stored rows."
    if candles:
        if horizon is not None:
            raise ValueError('--candles goes with --horizons N,N (in candles), not with --horizon')
        evaluate_candles(context)
        return
    if out or folds is not None:
        raise ValueError('--out and --folds go with --candles F')
    evaluate_news_features(context)


def evaluate_candles(context: typer.Context) -> None:
    "Walk through a candles file, write each forecast, and print the figures."
    import msgspec

    from crypto_rt.forecasts.evaluation import evaluate_forecasts, report_lines, series_of_file

    given, training = context.params, settings_of(context).training
    if given['folds'] is not None:
        training = msgspec.structs.replace(training, folds=given['folds'])
    markets = series_of_file(
        given['candles'],
        symbols=symbols_in(given['symbols']) if given['symbols'] else None,
        interval_seconds=given['interval'],
        absent=given['absent'],
    )
    done = evaluate_forecasts(
        markets,
        horizons_in(given['horizons']),
        training=training,
        out=given['out'],
        progress=sys.stderr.isatty(),
    )
    for line in report_lines(done):
        print(line, file=sys.stderr)
    print(json.dumps(done))


def horizons_in(text: str) -> tuple[int, ...]:
    "Return the horizons of a list with commas, ascending; `ValueError` when one is no number of candles."
    parts = [part.strip() for part in text.split(',')]
    if wrong := [part for part in parts if not (part.isdecimal() and int(part) > 0)]:
        raise ValueError(f'--horizons: expected numbers of candles such as 1,3,12,36, was {wrong[0]!r}')
    return tuple(sorted({int(part) for part in parts}))


def evaluate_news_features(context: typer.Context) -> None:
    "Train with and without the news on the same rows, and say whether it helps."
    from crypto_rt.models.ablation import evaluate as evaluate_news

    settings, given = settings_of(context), context.params
    reports = [
        evaluate_news(
            settings,
            symbol,
            scorer=given['scorer'],
            signals=given['signals'],
            progress=sys.stderr.isatty(),
        )
        for symbol in settings.data.symbols
    ]
    print(json.dumps({'ok': True, 'ablated': given['ablate'], 'reports': reports}))


def models(
    context: typer.Context,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "List the registered models."
    from crypto_rt.models.registry import models as registered
    from crypto_rt.models.registry import registry_dir
    from crypto_rt.models.training_status import read_status, status_words

    settings = settings_of(context)
    rows = registered(settings)
    for row in rows:
        print(json.dumps(row, default=str))
    if not rows:
        folder = registry_dir(settings)
        sys.stderr.write(f'no model is registered in {folder}; train one with crypto-rt train\n')
    sys.stderr.write(f'{status_words(read_status(settings))}\n')


def promote(
    context: typer.Context,
    symbol: Symbol,
    version: Annotated[
        str | None, typer.Option(metavar='V', help='a version of the registry (default: the newest)')
    ] = None,
    why: Why = 'by hand',
    interval: Interval = None,
    horizon: Horizon = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Make a registered model the champion."
    from crypto_rt.models.promotion import promote as make_champion

    print(json.dumps(make_champion(*one_model(context, symbol), version=version, why=why), default=str))


def rollback(
    context: typer.Context,
    symbol: Symbol,
    why: Why = 'by hand',
    interval: Interval = None,
    horizon: Horizon = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Go back to the champion before."
    from crypto_rt.models.promotion import rollback as go_back

    print(json.dumps(go_back(*one_model(context, symbol), why=why), default=str))


def one_model(context: typer.Context, symbol: str) -> tuple[Settings, str, int, int]:
    "Return the settings, and which model is meant: its symbol, interval and horizon."
    from crypto_rt.core.symbols import normalise_symbol

    settings = settings_of(context)
    data = settings.data
    return settings, normalise_symbol(symbol), data.interval_seconds, data.horizon_seconds
