"""`scow stop`: ask containers to end, and kill those that don't."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (Flag("timeout", "Seconds to wait before killing", "seconds", "t", also=("time",)),),
    least=1,
    most=None,
    refused={"--signal": "set it when the container is created: --stop-signal", "-s": "use scow kill -s"},
)


async def main(cli: Cli, args: Args) -> int:
    """Prints each name."""
    from scow_plugins.cli._several import each

    timeout = args.decimal("timeout")
    async with cli.engine() as engine:

        async def one(name: str) -> str:
            await engine.stop(name, timeout=timeout)
            return name

        return await each(cli, args.words, one)
