"""`crypto-rt verify X`: each check prints its figures as one JSON object and fails when its claim does not
hold."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from apps.cli.options import (
    Absent,
    Broker,
    DataDir,
    Interval,
    LogLevel,
    Since,
    Symbols,
    Until,
    settings_of,
    span_of,
    symbols_in,
)
from apps.cli.parsing import GroupedCommands

DATA, CODE = 'Claims about stored data', 'Claims about the program'
app = typer.Typer(cls=GroupedCommands, help='Check a claim; prints its figures, fails when it does not hold.')


def report(figures: dict[str, Any]) -> int:
    "Print the figures; return the exit code."
    print(json.dumps(figures))
    return 0 if figures['ok'] else 1


def at_least_one(seeds: int) -> int:
    "Return the number of seeds; `ValueError` when it is none."
    if seeds < 1:
        raise ValueError(f'--seeds must be 1 or more, was {seeds}')
    return seeds


@app.command(rich_help_panel=DATA)
def gaps(
    context: typer.Context,
    symbols: Symbols = None,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "No trade is lost, and none is stored twice."
    from crypto_rt.verify.gaps import verify_gaps

    return report(verify_gaps(settings_of(context)))


@app.command(rich_help_panel=DATA)
def candles(
    context: typer.Context,
    trades: Annotated[str | None, typer.Option(metavar='F', help='a trades file')] = None,
    candles: Annotated[
        str | None, typer.Option(metavar='F', help='a candles file that the trades must give')
    ] = None,
    absent: Absent = 'hole',
    symbols: Symbols = None,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "Candles equal the exchange's: those of two files, or the stored ones."
    from crypto_rt.verify.candles import verify_candles

    settings = settings_of(context)
    progress = sys.stderr.isatty()
    return report(verify_candles(settings, trades, candles=candles, absent=absent, progress=progress))


@app.command(rich_help_panel=DATA)
def serving(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    symbols: Symbols = None,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "What was shown to the model is what the store holds."
    from crypto_rt.verify.serving import verify_serving

    settings = settings_of(context)
    start, end = span_of(since, until)
    return report(verify_serving(settings, settings.data.symbols if symbols else (), start, end))


@app.command(rich_help_panel=CODE)
def indicators(
    context: typer.Context,
    candles: Annotated[str | None, typer.Option(metavar='F', help='a candles file')] = None,
    restart_every: Annotated[
        int, typer.Option('--restart-every', metavar='N', help='candles between two restarts')
    ] = 97,
    absent: Absent = 'hole',
    symbols: Symbols = None,
    interval: Interval = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "Features are the same after restarts, to the last bit."
    from crypto_rt.verify.indicators import verify_indicators

    settings = settings_of(context)
    if not candles:
        raise ValueError('verify indicators needs a candles file; give --candles F')
    figures = verify_indicators(
        candles,
        restart_every,
        symbols=settings.data.symbols if symbols else (),
        interval_seconds=interval,
        absent=absent,
        progress=sys.stderr.isatty(),
    )
    return report(figures)


@app.command(rich_help_panel=CODE)
def chaos(
    context: typer.Context,
    seeds: Annotated[int, typer.Option(metavar='N', help='so many runs')] = 5,
    first: Annotated[int, typer.Option(metavar='N', help='the first seed')] = 1,
    instances: Annotated[int, typer.Option(metavar='N', help='of each service')] = 1,
    brokers: Annotated[int, typer.Option(metavar='N', help='nodes of Kafka')] = 1,
    file: Annotated[
        str | None, typer.Option(metavar='F', help='trades to play (default: simulated ones)')
    ] = None,
    broker: Broker = None,
    log_level: LogLevel = None,
) -> int:
    "The stored data are the same after faults and kills."
    from apps.cli import main
    from crypto_rt.verify.chaos import verify_chaos

    figures = verify_chaos(
        at_least_one(seeds),
        broker,
        main=main,
        instances=instances,
        brokers=brokers,
        progress=sys.stderr.isatty(),
        file=file,
        first=first,
    )
    return report(figures)


@app.command('backends', rich_help_panel=CODE)
@app.command('store', hidden=True)
def backends(
    context: typer.Context,
    backends: Annotated[
        str, typer.Option(metavar='A,B', help='what is compared; a cluster is named by HOPSWORKS_*')
    ] = 'embedded,hopsworks',
    seeds: Annotated[int, typer.Option(metavar='N', help='so many seeded histories')] = 5,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "Two backends of the feature store give the same."
    from crypto_rt.verify.backends import verify_store

    names = [name.strip() for name in backends.split(',')]
    return report(verify_store(settings_of(context), names, at_least_one(seeds)))


@app.command(rich_help_panel=CODE)
def news(
    context: typer.Context,
    labelled: Annotated[
        str | None,
        typer.Option(metavar='F.csv', help='headlines with the columns news and final_manual_labelling'),
    ] = None,
    injection: Annotated[
        str | None,
        typer.Option(metavar='F.jsonl', help='headlines, plain and with an attack around them'),
    ] = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
) -> int:
    "The news signal is worth something, and attacks do not steer it."
    from crypto_rt.verify.news import verify_news

    return report(verify_news(settings_of(context), labelled, injection))


Candles = Annotated[str | None, typer.Option('--candles', metavar='F', help='a candles file')]


def candles_file(candles: str | None, command: str) -> str:
    "Return the file; `ValueError` when none was named."
    if not candles:
        raise ValueError(f'verify {command} needs a candles file; give --candles F')
    return candles


@app.command(rich_help_panel=CODE)
def leaks(
    context: typer.Context,
    candles: Candles = None,
    plant: Annotated[int, typer.Option(metavar='N', help='so many leaks are hidden')] = 20,
    seed: Annotated[int, typer.Option(metavar='N', help='by which they are drawn')] = 0,
    symbols: Symbols = None,
    interval: Interval = None,
    log_level: LogLevel = None,
) -> int:
    "Features that see the future are found, and honest ones are not accused."
    from crypto_rt.verify.leaks import verify_leaks

    figures = verify_leaks(
        candles_file(candles, 'leaks'),
        plant,
        seed=seed,
        symbols=symbols_in(symbols) if symbols else None,
        interval_seconds=interval,
        progress=sys.stderr.isatty(),
    )
    return report(figures)


@app.command(rich_help_panel=CODE)
def lag(
    context: typer.Context,
    candles: Candles = None,
    horizon_candles: Annotated[
        int, typer.Option('--horizon-candles', metavar='N', help='how many candles ahead')
    ] = 1,
    seed: Annotated[int, typer.Option(metavar='N', help='of what is planted')] = 0,
    symbols: Symbols = None,
    interval: Interval = None,
    log_level: LogLevel = None,
) -> int:
    "A claim about the direction that dies when a candle is skipped is called bounce."
    from crypto_rt.verify.lag import verify_lag

    figures = verify_lag(
        candles_file(candles, 'lag'),
        settings_of(context),
        horizon_candles=horizon_candles,
        seed=seed,
        symbols=symbols_in(symbols) if symbols else None,
        interval_seconds=interval,
    )
    return report(figures)


@app.command(rich_help_panel=CODE)
def coverage(
    context: typer.Context,
    candles: Candles = None,
    level: Annotated[float, typer.Option(metavar='L', help='what is promised: 0.9, 0.8 or 0.5')] = 0.9,
    horizons: Annotated[
        str, typer.Option(metavar='N,N', help='how many candles ahead, separated by commas')
    ] = '1,3,12,36',
    folds: Annotated[
        int | None, typer.Option(metavar='N', help='of the walk (default: the settings)')
    ] = None,
    symbols: Symbols = None,
    interval: Interval = None,
    log_level: LogLevel = None,
) -> int:
    "Intervals hold as often as promised, in calm and in wild hours, and where there is nothing to know."
    import msgspec

    from apps.cli.models import horizons_in
    from crypto_rt.verify.coverage import verify_coverage

    training = settings_of(context).training
    if folds is not None:
        training = msgspec.structs.replace(training, folds=folds)
    figures = verify_coverage(
        candles_file(candles, 'coverage'),
        level,
        horizons=horizons_in(horizons),
        training=training,
        symbols=symbols_in(symbols) if symbols else None,
        interval_seconds=interval,
        progress=sys.stderr.isatty(),
    )
    return report(figures)


@app.command(rich_help_panel=CODE)
def gate(
    context: typer.Context,
    candidates: Annotated[
        int, typer.Option(metavar='N', help='so many markets, on each of which three are tried')
    ] = 500,
    alpha: Annotated[float, typer.Option(metavar='A', help='chance to promote any that is no better')] = 0.05,
    power: Annotated[
        int, typer.Option(metavar='N', help='so many markets on which better ones are tried; 0: none')
    ] = 40,
    seed: Annotated[int, typer.Option(metavar='N', help='of the first market')] = 0,
    log_level: LogLevel = None,
) -> int:
    "Candidates that are no better than the champion are promoted at most as often as stated."
    from crypto_rt.verify.gate import verify_gate

    figures = verify_gate(candidates, alpha, power_markets=power, seed=seed, progress=sys.stderr.isatty())
    return report(figures)
