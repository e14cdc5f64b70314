"""One service in this process; `crypto-rt up` and the containers start them by these commands."""

from __future__ import annotations

from typing import Annotated

import typer

from apps.cli.options import (
    Broker,
    DataDir,
    Horizon,
    Interval,
    LogLevel,
    NewsFiles,
    Port,
    Symbols,
    settings_of,
)
from apps.cli.parsing import SpreadingCommand
from apps.cli.run import Speed

PANEL = 'One service'


def register(app: typer.Typer) -> None:
    "Add these commands."
    app.command('trades', rich_help_panel=PANEL)(trades)
    app.command('candles', rich_help_panel=PANEL)(candles)
    app.command('candles-replay', rich_help_panel=PANEL)(candles_replay)
    app.command('indicators', rich_help_panel=PANEL)(indicators)
    app.command('news', cls=SpreadingCommand, rich_help_panel=PANEL)(news)
    app.command('news-signals', rich_help_panel=PANEL)(news_signals)
    app.command('feature-store', rich_help_panel=PANEL)(feature_store)
    app.command('predictions', rich_help_panel=PANEL)(predictions)
    app.command('reconcile', rich_help_panel=PANEL)(reconcile)
    app.command('training', rich_help_panel=PANEL)(training)
    app.command('api', rich_help_panel=PANEL)(api)


def trades(
    context: typer.Context,
    record: Annotated[
        str | None,
        typer.Option(metavar='F.jsonl', help='keep the raw frames, as a file that `up --file` replays'),
    ] = None,
    symbols: Symbols = None,
    interval: Interval = None,
    broker: Broker = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Read the exchange, write trades and watermarks."
    from crypto_rt.services.trades import run_trades
    from crypto_rt.store.positions import stored_past

    run_trades(settings_of(context), stored_past, record)


def candles(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    broker: Broker = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Fold trades into candles."
    from crypto_rt.services.candles import run_candles
    from crypto_rt.store.open import newest_candles

    run_candles(settings_of(context), newest_candles)


def candles_replay(
    context: typer.Context,
    file: Annotated[str, typer.Option(metavar='F', help='a candles file')],
    speed: Speed = 'max',
    symbols: Symbols = None,
    interval: Interval = None,
    broker: Broker = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Put the rows of a candles file on the topic of candles."
    from crypto_rt.sandbox.exchange import speed_of
    from crypto_rt.services.candles_replay import run_candle_replay

    run_candle_replay(settings_of(context), file, speed_of(speed))


def indicators(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Compute technical indicators of candles."
    from crypto_rt.services.indicators import run_indicators

    run_indicators(settings_of(context))


def news(
    context: typer.Context,
    news_file: NewsFiles = None,
    symbols: Symbols = None,
    broker: Broker = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Poll the news feeds of the settings, or replay news files in step with the candles."
    from crypto_rt.services.news import run_news

    run_news(settings_of(context), news_file or ())


def news_signals(
    context: typer.Context,
    symbols: Symbols = None,
    broker: Broker = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Score news."
    from crypto_rt.models.news_head import current_head
    from crypto_rt.services.news_signals import run_news_signals

    run_news_signals(settings_of(context), current_head)


def feature_store(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Store candles, indicators and predictions."
    from crypto_rt.services.feature_store import run_feature_store

    run_feature_store(settings_of(context))


def predictions(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Predict on every final candle."
    from crypto_rt.services.predictions import run_predictions

    run_predictions(settings_of(context))


def reconcile(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Compare our candles with the exchange's every few minutes."
    from crypto_rt.services.reconcile import run_reconciliation

    run_reconciliation(settings_of(context))


def training(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Train a first model by itself, and new ones on the schedule of the settings."
    from crypto_rt.services.training import run_training

    run_training(settings_of(context))


def api(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Serve REST, websocket and dashboard."
    from apps.serve import run_api

    run_api(settings_of(context))
