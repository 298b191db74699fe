"""`scow wait`: until containers end."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command

COMMAND = Command("CONTAINER [CONTAINER...]", least=1, most=None)


async def main(cli: Cli, args: Args) -> int:
    """Prints the exit code of each."""
    from scow_plugins.cli._several import each

    async with cli.engine() as engine:

        async def one(name: str) -> str:
            return str(await engine.wait(name))

        return await each(cli, args.words, one)
