"""`scow system prune`: remove what isn't used: stopped containers, images, leftovers."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("all", "Remove all images without a container, not only those without a name", short="a"),
        Flag("filter", "until=moment or duration, label, label!", "list"),
        Flag("force", "Don't ask", short="f"),
    ),
    refused={"--volumes": "scow makes no volumes"},
)


async def main(cli: Cli, args: Args) -> int:
    """Asks, then prints what was removed and the space it took."""
    from scow_plugins.cli._pruning import choice, confirmed, container_choice, show_containers, show_removal

    filters = args.all("filter")
    wanted, chosen = choice(cli, filters), container_choice(cli, filters)
    images = "all images without a container" if args.on("all") else "all images without a name and a container"
    warning = (
        f"This will remove:\n  - all stopped containers\n  - {images}\n  - all leftovers of interrupted commands\n"
    )
    if not args.on("force") and not confirmed(cli, warning):
        return 0
    async with cli.engine() as engine:
        gone, freed = await engine.prune_containers(chosen)
        removal = await engine.prune_images(everything=args.on("all"), wanted=wanted)
        rest = await engine.sweep()
    show_containers(cli, gone)
    show_removal(cli, removal + rest, "Deleted Images:", more=freed)
    return 0
