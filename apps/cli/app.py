"""The command line as a whole: its groups of commands, its errors and its exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from apps.cli import INTERRUPTED, bench, data, models, run, services, verify
from apps.cli.parsing import GroupedCommands
from crypto_rt.core.supervisor import ERROR

WRONG_INPUT = (ValueError, KeyError)  # 2: it cannot be done as asked
FAILURE = (OSError, ImportError)  # 1: it could be, and went wrong
OF_A_FILE = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


class CommandLine(GroupedCommands):
    "Turns what goes wrong in a command into one line on stderr and an exit code."

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader has gone; nothing is left to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (*WRONG_INPUT, *FAILURE) as error:
            if ctx.params['debug'] or is_slip_of_ours(error):
                raise
            words = error.args[0] if isinstance(error, KeyError) and error.args else error
            sys.stderr.write(f'{ERROR}{words}\n')
            return 2 if isinstance(error, WRONG_INPUT) or is_about_given_file(error, ctx.obj or ()) else 1


def is_slip_of_ours(error: Exception) -> bool:
    "Tell whether an error is a key that our code missed; those that we raise ourselves are sentences."
    return isinstance(error, KeyError) and not (error.args and ' ' in str(error.args[0]))


def is_about_given_file(error: Exception, words: Sequence[str]) -> bool:
    "Tell whether an error is about a file or a folder that the command line named, and so no fault of ours."
    if not isinstance(error, OF_A_FILE):
        return False
    text = str(error.filename or error)
    given = {word.partition('=')[2] if word.startswith('--') else word for word in words} - {''}
    folders = {str(Path(name).parent) for name in given if Path(name).parent.name}
    return any(text == name or text.startswith((f'{name}:', f'{name} ')) for name in given | folders)


app = typer.Typer(
    name='crypto-rt',
    cls=CommandLine,
    help='Real-time crypto predictions that can be checked.',
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={'help_option_names': ['-h', '--help']},
)
for group in (run, services, data, models):
    group.register(app)
app.add_typer(verify.app, name='verify', rich_help_panel='Checks')
app.add_typer(bench.app, name='bench', rich_help_panel='Checks')


def show_version(asked: bool) -> None:
    "Print the version and end."
    if asked:
        from importlib.metadata import version

        print('crypto-rt', version('crypto-rt'))
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option('--debug', metavar='', help='show the traceback of an error')
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            '--version', metavar='', callback=show_version, is_eager=True, help='print the version and end'
        ),
    ] = False,
) -> None:
    "Real-time crypto predictions that can be checked."


def run_command(arguments: list[str] | None = None) -> int:
    "Run one command; return its exit code."
    try:
        words = sys.argv[1:] if arguments is None else arguments
        result = get_command(app).main(
            args=arguments, prog_name='crypto-rt', standalone_mode=False, obj=tuple(words)
        )
    except typer.TyperException as error:
        context = getattr(error, 'ctx', None)
        if context is not None:
            sys.stderr.write(context.get_usage() + '\n')
        sys.stderr.write(ERROR + ' '.join(error.format_message().split()) + '\n')
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    return result or 0
