"""`scow pause`: suspend all processes of containers."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command

COMMAND = Command("CONTAINER [CONTAINER...]", (), least=1, most=None)


async def main(cli: Cli, args: Args) -> int:
    """Prints each name."""
    from scow_plugins.cli._several import each

    async with cli.engine() as engine:

        async def one(name: str) -> str:
            await engine.pause(name)
            return name

        return await each(cli, args.words, one)
