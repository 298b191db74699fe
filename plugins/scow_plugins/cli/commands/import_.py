"""`scow import`: an archive of a file system as an image."""

from __future__ import annotations

import os

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] FILE|- [REPOSITORY[:TAG]]",
    (
        Flag("change", "Apply a Dockerfile instruction (CMD, ENTRYPOINT, ENV, …)", "list", "c"),
        Flag("message", "Say where it comes from", "string", "m"),
        Flag("platform", "Platform of the image (os/architecture[/variant])", "string"),
        Flag("storage", "Unpack it for this mount plugin", "string"),
    ),
    least=1,
    most=2,
)


async def main(cli: Cli, args: Args) -> int:
    """Prints the image's ID."""
    from scow.api import NotFound, Platform

    path, name = args.words[0], args.words[1] if len(args.words) > 1 else None
    if path.startswith(("http://", "https://")):
        raise UsageError("scow import doesn't fetch URLs", hint=f"curl -L {path} | scow import - {name or ''}".rstrip())
    if path == "-" and cli.is_tty(cli.stdin):
        raise UsageError("there is nothing on standard input", hint="redirect an archive to it")
    platform = Platform.parse(args.text("platform") or "") if args.text("platform") else None
    try:
        source = open(os.dup(cli.stdin) if path == "-" else path, "rb")  # noqa: ASYNC230, SIM115 - closed below
    except OSError as error:
        raise NotFound(f"can't open {path}: {(error.strerror or '').lower()}") from None
    with source:
        async with cli.engine() as engine:
            image = await engine.import_image(
                source,
                name,
                changes=args.all("change"),
                message=args.text("message") or "",
                platform=platform,
                storage=args.text("storage"),
            )
    cli.out(str(image.id))
    return 0
