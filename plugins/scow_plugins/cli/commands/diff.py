"""`scow diff`: what a container has changed in its root file system."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command

COMMAND = Command("CONTAINER", least=1, most=1)


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each path: A added, C changed, D deleted."""
    import os

    from scow_plugins.cli._units import printable

    async with cli.engine() as engine:
        changes = await engine.diff(args.words[0])
    for change in changes:
        cli.out(f"{change.kind.value} {printable('/' + os.fsdecode(change.path))}")
    return 0
