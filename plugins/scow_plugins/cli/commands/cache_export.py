"""`scow cache export`: a cache mount of builds as a tar archive."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] CACHE",
    (Flag("output", "Write to a file instead of standard output", "string", "o"),),
    least=1,
    most=1,
    details="A cache is named by its id, or by the beginning of its CACHE ID. One in use is refused.",
)


async def main(cli: Cli, args: Args) -> int:
    """Writes the archive; a file appears when it is complete."""
    from scow_plugins.cli._files import replaced

    path = args.text("output")
    if path == "-":
        path = None
    if not path and cli.is_tty(cli.stdout):
        raise UsageError("an archive is not written to a terminal", hint="use -o FILE, or redirect the output")
    async with cli.engine() as engine:
        if not path:
            await engine.export_cache(args.words[0], cli.stdout)
        else:
            with replaced(path) as fd:
                await engine.export_cache(args.words[0], fd)
    return 0
