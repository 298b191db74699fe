"""`scow load`: images out of an archive, from a file or standard input."""

from __future__ import annotations

import os

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("input", "Read from a file instead of standard input", "string", "i"),
        Flag("platform", "Platform of the images (os/architecture[/variant])", "string"),
        Flag("quiet", "Show no progress", short="q"),
        Flag("storage", "Unpack them for this mount plugin", "string"),
    ),
    details="Takes the archives of scow save, docker save and skopeo (docker-archive, oci-archive), gzip and zstd too.",
)


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each name, or for the ID of an image without one."""
    from scow.api import NotFound, Platform
    from scow_plugins.cli._progress import metered
    from scow_plugins.cli._units import printable

    path = args.text("input")
    if not path and cli.is_tty(cli.stdin):
        raise UsageError("requested load from stdin, but stdin is empty", hint="use -i FILE, or redirect the input")
    platform = Platform.parse(args.text("platform") or "") if args.text("platform") else None
    try:
        source = open(path, "rb") if path else open(os.dup(cli.stdin), "rb")  # noqa: ASYNC230, SIM115 - closed below
    except OSError as error:
        raise NotFound(f"can't open {path}: {(error.strerror or '').lower()}") from None
    with source:
        quiet = args.on("quiet")
        async with cli.engine() as engine, metered(cli, cli.stdout, list, quiet=quiet, loading=True) as meter:
            loaded = await engine.load(
                source, platform=platform, storage=args.text("storage"), progress=meter.update if meter else None
            )
    for each in loaded:
        for name in each.names:
            cli.out(f"Loaded image: {printable(name)}")
        if not each.names:
            cli.out(f"Loaded image ID: {each.image.id}")
    return 0
