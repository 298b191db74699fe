"""`scow cache rm`: remove cache mounts of builds."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CACHE [CACHE...]",
    (Flag("force", "A cache that isn't there is no failure", short="f"),),
    least=1,
    most=None,
    details="A cache is named by its id, or by the beginning of its CACHE ID. One in use is refused.",
)


async def main(cli: Cli, args: Args) -> int:
    """Prints each name. All are tried; one failure makes the exit code 1."""
    from scow.api import NotFound
    from scow_plugins.cli._several import each

    async with cli.engine() as engine:

        async def remove(name: str) -> str:
            await engine.remove_cache(name)
            return name

        return await each(cli, args.words, remove, forgiven=(NotFound,) if args.on("force") else ())
