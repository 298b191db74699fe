"""`scow cp`: copy files and directories between a container and this machine."""

from __future__ import annotations

import os

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        scow cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    (
        Flag("archive", "Keep the numbers of users and groups", short="a"),
        Flag("follow-link", "Copy what a link SRC_PATH leads to", short="L"),
        Flag("quiet", "Say nothing, as always", short="q"),
    ),
    least=2,
    most=2,
    details=(
        "A directory is copied with all that is in it; one that ends in `/.` is copied without its name. `-` is a tar "
        "archive on standard input or output."
    ),
)


async def main(cli: Cli, args: Args) -> int:
    """Copies in one of the two directions."""
    from scow_plugins.cli._copying import Copy, copy_in, copy_out

    source, target = args.words
    before, after = _split(source), _split(target)
    if (before is None) == (after is None):
        raise UsageError(
            "copying between containers is not possible" if before else "one of the two paths must be in a container",
            hint="write CONTAINER:PATH",
        )
    async with cli.engine() as engine:
        copy = Copy(cli, engine, owners=args.on("archive"), follow=args.on("follow-link"))
        if before is not None:
            await copy_out(copy, *before, cli_path(target))
        elif after is not None:
            await copy_in(copy, cli_path(source), *after)
    return 0


def cli_path(path: str) -> str:
    """A path on this machine, absolute; `-` stays, and so does what a path ends in."""
    if path in ("-", ""):
        return path
    tail = "/." if path.endswith("/.") or path == "." else "/" if path.endswith("/") else ""
    return os.path.abspath(path).rstrip("/") + tail or "/"


def _split(word: str) -> tuple[str, str] | None:
    """Container and path; None for a path on this machine (`./a:b` is one, too)."""
    if word.startswith(("/", ".", "-")):
        return None
    container, colon, path = word.partition(":")
    if not colon or "/" in container:
        return None
    return container, path or "/"
