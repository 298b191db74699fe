"""`scow rmi`: remove names of images, and images with their last name."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        Flag("force", "Also when stopped containers use it or it has names in several repositories", short="f"),
        Flag("no-prune", "Leave blobs and layers on the disk until something else is removed or brought in"),
    ),
    least=1,
    most=None,
    refused={"--platform": "remove it by its ID"},
)


async def main(cli: Cli, args: Args) -> int:
    """Prints what was untagged and deleted. All names are tried; one failure makes the exit code 1."""
    from scow.api import NotFound, ScowError
    from scow_plugins.cli._report import report
    from scow_plugins.cli._units import printable

    failed = False
    async with cli.engine() as engine:
        for name in args.words:
            try:
                removal = await engine.remove_image(name, force=args.on("force"), prune=not args.on("no-prune"))
            except ScowError as error:
                report(cli, error, runs=False)
                failed = failed or not (args.on("force") and isinstance(error, NotFound))
                continue
            for untagged in removal.untagged:
                cli.out(f"Untagged: {printable(untagged)}")
            for deleted in removal.deleted:
                cli.out(f"Deleted: {deleted}")
    return 1 if failed else 0
