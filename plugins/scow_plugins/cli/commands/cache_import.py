"""`scow cache import`: a tar archive as a cache mount of builds."""

from __future__ import annotations

import os

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] CACHE [FILE|-]",
    (Flag("force", "Replace the cache that is there", short="f"),),
    least=1,
    most=2,
    details="Takes a tar archive, plain or packed with gzip or zstd, from a file or standard input. Nothing in it\n"
    "leads out of the cache; the cache is as it was until the archive is whole.",
)


async def main(cli: Cli, args: Args) -> int:
    """Prints the cache's name."""
    from scow.api import NotFound
    from scow_plugins.cli._units import printable

    name, path = args.words[0], args.words[1] if len(args.words) > 1 else "-"
    if path == "-" and cli.is_tty(cli.stdin):
        raise UsageError("there is nothing on standard input", hint="name a file, or redirect an archive to it")
    try:
        source = open(os.dup(cli.stdin) if path == "-" else path, "rb")  # noqa: ASYNC230, SIM115 - closed below
    except OSError as error:
        raise NotFound(f"can't open {path}: {(error.strerror or '').lower()}") from None
    with source:
        async with cli.engine() as engine:
            cache = await engine.import_cache(name, source, replace=args.on("force"))
    cli.out(printable(cache.id))
    return 0
