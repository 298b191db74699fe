"""Writes docs/cli.md from the commands' declarations: `python -m scow_plugins.cli._docs docs/cli.md [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from scow_plugins.cli._createflags import REFUSED
from scow_plugins.cli._flags import Command
from scow_plugins.cli._help import command_help, main_help
from scow_plugins.cli._main import GLOBALS, load
from scow_plugins.cli._table import COMMANDS, GROUPS

_HEAD = """\
<!-- Made by `python -m scow_plugins.cli._docs docs/cli.md`; a test compares. -->

# The command line

`scow` takes Docker's commands and flags under Docker's names. Flags end at the image's name (`run`, `create`) or the
container's (`exec`): what follows belongs to the process. A flag that docker has and scow doesn't is refused by name.
`--trace`, `--log-level` and `--log-format` may also stand among a command's own flags.
"""
_CODES = """\
## Exit codes

`run`, `create` and `exec` end with the exit code of the process, or

| code | meaning |
|---|---|
| 125 | scow itself failed, or the flags are wrong |
| 126 | the command exists but can't be executed |
| 127 | the command doesn't exist |
| 128 + n | the process was ended by signal n |

Wrong flags make it 125 with every command; too few or too many words, and unknown commands, 1 (as docker).
All commands: 130 after Ctrl-C, 141 when nobody reads their output. Of several containers all are tried; one failure
makes the exit code 1. By kind of error:
"""
_TEMPLATES = """\
## Output on a terminal

Labels, histories, names and messages come from strangers: on a terminal their control characters, but for newline and
tab, are shown as `\\x1b`. Into a pipe or a file goes what is there, with `--format` byte for byte; tables have
none anywhere.
What a container writes itself (`run`, `logs`, `attach`, `exec`) is never changed.

## --format

`json`, `table`, or a Go template: `{{.Field}}`, `{{.A.B}}`, `{{json .}}`, `{{index .Labels "key"}}`, `{{range}}`,
`{{if}}`, `{{with}}`, `{{else}}`, variables, pipes, `{{-` and `-}}`, comments, and the functions
"""


def document() -> str:
    """The whole page."""
    parts = [_HEAD, f"```text\n{main_help(GLOBALS)}```\n", _codes(), _templates()]
    for name, entry in COMMANDS.items():
        command: Command = load(name).COMMAND
        parts.append(f"## {name}\n\n```text\n{command_help(name, entry.summary, command)}```\n")
        parts += _refused(name, command)
    parts.append(_groups())
    return "\n".join(parts)


def _codes() -> str:
    from scow.api import ANSWERS

    rows = [f"| {kind.value} | {answer.exit} | {answer.run_exit} |" for kind, answer in ANSWERS.items()]
    return _CODES + "\n| error | commands | run, create, exec |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _templates() -> str:
    from scow_plugins.cli._functions import FUNCTIONS

    return _TEMPLATES + ", ".join(f"`{name}`" for name in sorted([*FUNCTIONS, "and", "or"])) + ".\n"


def _refused(name: str, command: Command) -> list[str]:
    """`create` has those of `run`, so they are said once."""
    names = [flag for flag in command.refused if name != "create" or flag not in REFUSED]
    if not names:
        return []
    return ["Refused, because scow doesn't have it: " + ", ".join(f"`{flag}`" for flag in sorted(names)) + ".\n"]


def _groups() -> str:
    rows = [
        f"| `scow {group} {word}` | `scow {target}` |"
        for group, each in GROUPS.items()
        for word, target in each.commands.items()
    ]
    return "## Management commands\n\n| command | is |\n|---|---|\n" + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is as it should be."""
    path = Path(arguments[0])
    text = document()
    if "--check" not in arguments:
        path.write_text(text)
        return 0
    if path.read_text() == text:
        return 0
    sys.stderr.write(f"{path} is not what the commands say: python -m scow_plugins.cli._docs {path}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
