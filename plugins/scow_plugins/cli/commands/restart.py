"""`scow restart`: stop containers, if they run, and start them."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args
from scow_plugins.cli.commands.stop import COMMAND as COMMAND  # the same flags: it is a stop first


async def main(cli: Cli, args: Args) -> int:
    """Prints each name."""
    from scow_plugins.cli._several import each

    timeout = args.decimal("timeout")
    async with cli.engine() as engine:

        async def one(name: str) -> str:
            await engine.stop(name, timeout=timeout)
            await engine.start(name)
            return name

        return await each(cli, args.words, one)
