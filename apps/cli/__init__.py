"""The command line `crypto-rt`: a file for each group of commands, and what they import is imported when
they run."""

from __future__ import annotations

INTERRUPTED = 130


def main(
    arguments: list[str] | None = None,  # None: those of the process
) -> int:  # exit code: 0 well, 1 failed, 2 asked for the impossible, 130 interrupted
    "Run one command; Ctrl-C is obeyed quietly even while the commands are still being imported."
    try:
        from apps.cli.app import run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
