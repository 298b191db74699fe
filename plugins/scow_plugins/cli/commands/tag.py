"""`scow tag`: another name for an image."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command

COMMAND = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", least=2, most=2)


async def main(cli: Cli, args: Args) -> int:
    """Prints nothing, as docker."""
    source, target = args.words
    async with cli.engine() as engine:
        await engine.tag(source, target)
    return 0
