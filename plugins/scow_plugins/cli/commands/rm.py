"""`scow rm`: remove containers."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag("force", "Kill it first if it runs; no failure if there is none", short="f"),
        Flag("volumes", "Remove anonymous volumes too (scow makes none)", short="v"),
    ),
    least=1,
    most=None,
    refused={"--link": "scow has no links", "-l": "scow has no links"},
)


async def main(cli: Cli, args: Args) -> int:
    """Prints each name."""
    from scow.api import NotFound
    from scow_plugins.cli._several import each

    force = args.on("force")
    async with cli.engine() as engine:

        async def one(name: str) -> str:
            await engine.remove(name, force=force)
            return name

        return await each(cli, args.words, one, forgiven=(NotFound,) if force else ())
