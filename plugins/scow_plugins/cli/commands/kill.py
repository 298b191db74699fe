"""`scow kill`: send containers a signal."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (Flag("signal", "Signal to send, by name or number", "string", "s", default="KILL"),),
    least=1,
    most=None,
)


async def main(cli: Cli, args: Args) -> int:
    """Prints each name."""
    from scow_plugins.cli._several import each

    text = args.text("signal") or "KILL"
    signal = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else text
    async with cli.engine() as engine:

        async def one(name: str) -> str:
            await engine.kill(name, signal)
            return name

        return await each(cli, args.words, one)
