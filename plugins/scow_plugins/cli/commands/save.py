"""`scow save`: images into an archive, to a file or to standard output."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError
from scow_plugins.cli._through import Through

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        Flag("format", "docker-archive or oci-archive", "string", default="docker-archive"),
        Flag("output", "Write to a file instead of standard output", "string", "o"),
    ),
    least=1,
    most=None,
    refused={"--platform": "pull the platform that you want"},
)


async def main(cli: Cli, args: Args) -> int:
    """Prints nothing beside the archive but whose digest is another one there."""
    kind = args.text("format") or ""
    if kind not in ("docker-archive", "oci-archive"):
        raise UsageError(f"unknown format {kind!r}", hint="there are docker-archive and oci-archive")
    path = args.text("output")
    if not path and cli.is_tty(cli.stdout):
        raise UsageError("cowardly refusing to save to a terminal", hint="use -o FILE, or redirect the output")
    if path and ":" in path:
        raise UsageError(f"{path} can't be written: its path has a colon", hint="redirect standard output to it")
    async with cli.engine() as engine:
        if path:
            changed = await engine.save(args.words, path, format=kind)
        else:
            with Through(cli) as inlet:
                changed = await engine.save(args.words, inlet, format=kind)
    for name in changed:
        cli.err(f"note: Docker's media types of {name} became OCI's there, so its digest is another one than here")
    return 0
