"""Running the system, and looking at it: up, status, doctor, and what a run starts beside its services."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

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

PANEL = 'Run'
Speed = Annotated[str, typer.Option('--speed', metavar='N|max', help='a factor, or max')]


def register(app: typer.Typer) -> None:
    "Add these commands."
    app.command('up', cls=SpreadingCommand, rich_help_panel=PANEL)(up)
    app.command('status', rich_help_panel=PANEL)(status)
    app.command('doctor', rich_help_panel=PANEL)(doctor)
    app.command('exchange', rich_help_panel=PANEL)(exchange)
    app.command('kafka', rich_help_panel=PANEL)(kafka)
    app.command('events', hidden=True)(events)


def up(
    context: typer.Context,
    source: Annotated[
        Literal['auto', 'live', 'replay', 'simulate'],
        typer.Option(help='auto: live when the exchange answers, else simulated'),
    ] = 'auto',
    file: Annotated[
        str | None, typer.Option(metavar='F', help='what to replay: a trades or a candles file')
    ] = None,
    news_file: NewsFiles = None,
    speed: Annotated[
        str | None,
        typer.Option(metavar='N|max', help='of a replay or a simulation (default: 1; max for candles)'),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option('--for', metavar='SECONDS', help='stop by itself after so long')
    ] = None,
    until_idle: Annotated[
        bool, typer.Option('--until-idle', metavar='', help='end when the replay has flowed through')
    ] = False,
    no_browser: Annotated[
        bool, typer.Option('--no-browser', metavar='', help='do not open the dashboard')
    ] = False,
    symbols: Symbols = None,
    interval: Interval = None,
    horizon: Horizon = None,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "Run everything: trades in, predictions out, dashboard."
    from apps.cli import main
    from crypto_rt.market.files.forms import sniff
    from crypto_rt.services.candles_replay import interval_of
    from crypto_rt.system.plan import make_plan
    from crypto_rt.system.runner import up as run_up

    candles = bool(file) and source in ('auto', 'replay') and sniff(str(file)) == 'candles'
    if file and candles:
        interval = interval_of(file, symbols.split(',') if symbols else None, interval)
    plan, identity = make_plan(
        settings_of(context, interval=interval),
        source,
        file=file,
        speed=speed or ('max' if candles else '1'),
        named=bool(symbols),
        candles=candles,
        news_files=news_file or (),
        until_idle=until_idle,
        seconds=seconds,
        browser=not no_browser,
    )
    return run_up(plan, identity, main)


def status(
    context: typer.Context,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Print what the running system says of itself."
    import urllib.request

    from crypto_rt.models.training_status import read_status, status_words

    settings = settings_of(context)
    noted = Path(settings.data.directory) / 'api.port'
    port = port or (int(noted.read_text()) if noted.is_file() else settings.api.port)
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/v1/status', timeout=5) as answer:
            print(json.dumps(json.load(answer), indent=2))
        sys.stderr.write(f'{status_words(read_status(settings))}\n')
    except OSError as error:
        raise ConnectionError(
            f'no system answers at 127.0.0.1:{port} ({error}); '
            'start it with `crypto-rt up`, or name its --port or --data-dir'
        ) from None


def doctor(
    context: typer.Context,
    broker: Broker = None,
    port: Port = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "Look at the machine and say what is missing."
    from crypto_rt.system.doctor import run_checks

    verdicts = {True: 'ok', None: 'warn', False: 'BAD'}
    bad = 0
    for name, good, words in run_checks(settings_of(context)):
        bad += good is False
        print(f'{verdicts[good]:<4} {name:<12} {words}')
    return 1 if bad else 0


def exchange(
    context: typer.Context,
    file: Annotated[str | None, typer.Option(metavar='F', help='replay this trades file')] = None,
    simulate: Annotated[bool, typer.Option('--simulate', metavar='', help='a seeded simulation')] = False,
    seed: Annotated[int, typer.Option(metavar='N', help='of the simulation')] = 7,
    speed: Speed = '1',
    faults: Annotated[
        str,
        typer.Option(
            metavar='SPEC',
            help='faults on demand: a rate each, and a seed, such as drop=0.05,cut=0.001;seed=7',
        ),
    ] = '',
    host: Annotated[
        str, typer.Option(metavar='H', help='to listen on; others can reach it when it is not loopback')
    ] = '127.0.0.1',
    port: Annotated[int | None, typer.Option(metavar='P', help='to listen on; 0: any free one')] = None,
    symbols: Symbols = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Run a local server that speaks Kraken's WebSocket v2 and REST."
    from crypto_rt.sandbox.server import run_exchange
    from crypto_rt.system.plan import check_speed

    if bool(file) == simulate:
        raise ValueError('give either --file F or --simulate')
    check_speed(speed)
    run_exchange(
        settings_of(context),
        file=file,
        simulate=simulate,
        seed=seed,
        speed=speed,
        port=port or 0,
        host=host,
        faults=faults,
    )


def kafka(
    context: typer.Context,
    fetch: Annotated[
        bool, typer.Option('--fetch', metavar='', help='fetch and check the jars, then end')
    ] = False,
    port: Annotated[int | None, typer.Option(metavar='P', help='to listen on (default: 9092)')] = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Start our own Kafka, or only fetch its jars."
    from crypto_rt.bus.broker import fetch_jars, prepare
    from crypto_rt.core.settings import secret

    if fetch:
        fetch_jars(progress=sys.stderr.isatty() or bool(secret('CI')))
        return
    settings = settings_of(context, port=None)
    command, address = prepare(Path(settings.data.directory) / 'kafka', port or 9092)
    logging.getLogger('crypto_rt.broker').info('Kafka at %s', address)
    os.execv(command[0], command)


def events(
    context: typer.Context,
    broker: Broker = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> None:
    "Print the end markers that services have passed on."
    from crypto_rt.system.runner import watch_events

    settings = settings_of(context)
    watch_events(settings, settings.run.id)
