"""The command line: parse, call the engine's facade, render. No policy lives here.

Importing this module costs nothing; the modules of the one command that was asked for are imported by `main`.
"""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """Run one command. `argv` is without the program's name; gives the exit code. Never raises."""
    from scow_plugins.cli._main import main as run

    return run(argv)


__all__ = ["main"]
