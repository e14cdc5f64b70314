"""What Typer does not do by itself: several values in a row, several commands in a row, and help in groups
without colours."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class SpreadingCommand(TyperCommand):
    "A command whose repeatable options take several values in a row: `--file A B` is `--file A --file B`."

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repeatable = {
            flag for option in self.params if getattr(option, 'multiple', False) for flag in option.opts
        }
        return super().parse_args(ctx, spread(args, repeatable))


def spread(
    arguments: list[str],
    flags: set[str],  # of options that may be repeated
) -> list[str]:
    "Return the arguments with such a flag before each of its values."
    out: list[str] = []
    flag, values = '', 0
    for word in arguments:
        if word.startswith('-') and word != '-':
            name, _, value = word.partition('=')
            flag, values = (name if name in flags else ''), int(bool(value))
            out.append(word)
        elif flag and values:
            out += [flag, word]
        else:
            out.append(word)
            values += 1
    return out


class GroupedCommands(TyperGroup):
    "A group whose help lists its commands under the titles that `rich_help_panel` gives them."

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in shown.items():
            panel = str(getattr(command, 'rich_help_panel', None) or 'Commands')
            panels.setdefault(panel, []).append((name, command.get_short_help_str(200)))
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class ChainedCommands(GroupedCommands):
    "A group that takes several of its commands in a row, each with options of its own, and returns a list."

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        starts = [number for number, word in enumerate(args) if word in self.commands]
        ends = [*starts[1:], len(args)]
        ctx.meta[__name__] = [args[start:end] for start, end in zip(starts[1:], ends[1:], strict=True)]
        return super().parse_args(ctx, args[: ends[0]] if starts else args)

    def invoke(self, ctx: Any) -> list[Any]:
        results = [super().invoke(ctx)]
        for name, *rest in ctx.meta[__name__]:
            command = self.commands[name]
            with command.make_context(name, rest, parent=ctx) as inner:
                results.append(command.invoke(inner))
        return results
