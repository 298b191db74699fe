"""Usage texts in Docker's layout, made from the declarations. Pure: text in, text out."""

from __future__ import annotations

import textwrap
from typing import Final

from scow_plugins.cli._flags import Command, Flag
from scow_plugins.cli._table import COMMANDS, COMMON, GROUPS, aliases

_WIDTH: Final = 80
_INDENT: Final = 6
#: How a kind is called in a help text, where not by its own name.
_SHOWN: Final = {"swap": "bytes", "bool": ""}


def command_help(words: str, summary: str, command: Command) -> str:
    """The help of one command; `words` is how it was called (`run`, `container run`)."""
    parts = [f"Usage:  scow {words} {command.usage}".rstrip(), summary]
    if command.details:
        parts.append(command.details)
    others = aliases(words)
    if len(others) > 1:
        parts.append("Aliases:\n  " + ", ".join(f"scow {name}" for name in others))
    if command.flags:
        parts.append("Options:\n" + options(command.flags))
    return "\n\n".join(parts) + "\n"


def options(flags: tuple[Flag, ...]) -> str:
    """Flags in two columns, by name."""
    rows = [(_left(flag), _right(flag)) for flag in sorted(flags, key=lambda flag: flag.name.lower())]
    column = max(len(left) for left, _ in rows) + 3
    width = max(_WIDTH - column, 30)
    lines: list[str] = []
    for left, right in rows:
        first, *more = textwrap.wrap(right, width)
        lines.append(left.ljust(column) + first)
        lines += [" " * column + line for line in more]
    return "\n".join(lines)


def _left(flag: Flag) -> str:
    head = f"  -{flag.short}, " if flag.short else " " * _INDENT
    return f"{head}--{flag.name} {_SHOWN.get(flag.kind, flag.kind)}".rstrip()


def _right(flag: Flag) -> str:
    if flag.default in (None, False, ""):
        return flag.help
    shown = {True: "true"}.get(flag.default, flag.default) if isinstance(flag.default, bool) else flag.default
    return f"{flag.help} (default {shown})"


def main_help(flags: tuple[Flag, ...]) -> str:
    """`scow --help`: every command with its one line, from the table alone."""
    common = [name for name in COMMON if name in COMMANDS]
    rest = sorted(name for name in COMMANDS if name not in COMMON)
    parts = [
        "Usage:  scow [OPTIONS] COMMAND",
        "A container engine in which every stage is a plugin",
        "Common Commands:\n" + _list({name: COMMANDS[name].summary for name in common}),
        "Management Commands:\n" + _list({name: group.summary for name, group in GROUPS.items()}),
        "Commands:\n" + _list({name: COMMANDS[name].summary for name in rest}),
        "Global Options:\n" + options(flags),
        "Run 'scow COMMAND --help' for more information on a command.",
    ]
    return "\n\n".join(parts) + "\n"


def group_help(name: str) -> str:
    """`scow container --help`."""
    group = GROUPS[name]
    rows = {word: COMMANDS[target].summary for word, target in group.commands.items() if word not in group.hidden}
    return (
        f"Usage:  scow {name} COMMAND\n\n{group.summary}\n\nCommands:\n{_list(rows)}\n\n"
        f"Run 'scow {name} COMMAND --help' for more information on a command.\n"
    )


def _list(rows: dict[str, str]) -> str:
    width = max(11, *(len(name) for name in rows))
    return "\n".join(f"  {name.ljust(width)} {summary}" for name, summary in rows.items())
