"""`crypto-rt bench X...`: measurements; several may be named in a row, and each has options of its own."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from typing import Annotated, Any, NamedTuple

import typer

from apps.cli.parsing import ChainedCommands


class Measured(NamedTuple):
    "What one bench found."

    name: str
    figures: dict[str, Any]
    on_one_line: bool  # whether --json was given behind it


class Benches(ChainedCommands):
    "Prints what all the named benches have found as one object."

    def invoke(self, ctx: Any) -> Any:
        measured = [one for each in super().invoke(ctx) for one in each]
        return report(measured, on_one_line=ctx.params['json'] or any(one.on_one_line for one in measured))


def report(measured: list[Measured], on_one_line: bool) -> int:
    "Print the figures; return the exit code."
    good = all(one.figures.get('ok', True) for one in measured)
    found = {'ok': good, **{one.name: one.figures for one in measured}}
    print(dumps(found, indent=None if on_one_line else 2))
    return 0 if good else 1


app = typer.Typer(
    cls=Benches,
    invoke_without_command=True,
    help='Measure; prints one JSON object, fails when a ratio within one run is too low. Without a '
    'name: all.',
    subcommand_metavar='[NAME [OPTIONS]]...',
)
Json = Annotated[
    bool, typer.Option('--json', metavar='', help='the JSON object on one line, without indentation')
]


def of_count(word: str) -> Any:
    "Return the option that sets how much is measured."
    return typer.Option(f'--{word}', metavar='N', min=1)


@app.callback()
def options(context: typer.Context, json: Json = False) -> list[Measured]:
    "Measure; prints one JSON object, fails when a ratio within one run is too low. Without a name: all."
    return [] if context.invoked_subcommand else every(json)


@app.command('all')
def every(json: Json = False) -> list[Measured]:
    "All of them, as they are without options."
    return [one for bench in BENCHES for one in bench(json=json)]


@app.command()
def api(large: Annotated[int, of_count('large')] = 32, json: Json = False) -> list[Measured]:
    "A small request to the API while large ones are made, beside the same one alone."
    from benches.bench_api import bench

    return [Measured('api', bench(large), json)]


@app.command()
def candles(
    trades: Annotated[int, of_count('trades')] = 600_000,
    rounds: Annotated[int, of_count('rounds')] = 3,
    json: Json = False,
) -> list[Measured]:
    "The candle service beside Quix's own window, on a real Kafka."
    from benches.bench_candles import bench

    return [Measured('candles', bench(trades, rounds), json)]


@app.command()
def decode(trades: Annotated[int, of_count('trades')] = 200_000, json: Json = False) -> list[Measured]:
    "Decoding frames and folding trades, beside plain Python."
    from benches.bench_decode import bench

    return [Measured('decode', bench(trades), json)]


@app.command()
def features(candles: Annotated[int, of_count('candles')] = 6000, json: Json = False) -> list[Measured]:
    "Features of a candle, beside TA-Lib over a window and talipp."
    from benches.bench_features import bench

    return [Measured('features', bench(candles), json)]


@app.command()
def memory(trades: Annotated[int, of_count('trades')] = 10_000_000, json: Json = False) -> list[Measured]:
    "Resident memory along a long replay."
    from benches.bench_memory import bench

    return [Measured('memory', bench(trades), json)]


@app.command()
def news(headlines: Annotated[int, of_count('headlines')] = 2000, json: Json = False) -> list[Measured]:
    "Scoring headlines in batches, beside one at a time."
    from benches.bench_news import bench

    return [Measured('news', bench(headlines), json)]


@app.command()
def store(rows: Annotated[int, of_count('rows')] = 1_000_000, json: Json = False) -> list[Measured]:
    "Writing to the feature store, its online vectors and its point-in-time join, beside pandas."
    from benches.bench_store import bench

    return [Measured('store', bench(rows), json)]


@app.command()
def symbols(trades: Annotated[int, of_count('trades')] = 400_000, json: Json = False) -> list[Measured]:
    "A trade among 200 symbols, beside one alone."
    from benches.bench_symbols import bench

    return [Measured('symbols', bench(trades), json)]


BENCHES: tuple[Callable[..., list[Measured]], ...] = (
    api,
    candles,
    decode,
    features,
    memory,
    news,
    store,
    symbols,
)
