"""`scow system prune`: remove what isn't used: stopped containers, images, build cache, leftovers."""

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
    from scow.engine import BuildCacheRemoval
    from scow_plugins.cli._buildcache import choice as entry_choice
    from scow_plugins.cli._pruning import (
        choice,
        confirmed,
        container_choice,
        show_build_cache,
        show_containers,
        show_removal,
    )

    filters = args.all("filter")
    wanted, chosen = choice(cli, filters), container_choice(cli, filters)
    # Entries of the build cache have no labels.
    labelled = any(each.strip().lower().startswith("label") for each in filters)
    entries = None if labelled else entry_choice(tuple(filters), cli.clock())
    images = "all images without a container" if args.on("all") else "all images without a name and a container"
    cache = "all build cache" if args.on("all") else "all dangling build cache"
    warning = (
        f"This will remove:\n  - all stopped containers\n  - {images}\n"
        + ("" if labelled else f"  - {cache}\n")
        + "  - all leftovers of interrupted commands\n"
    )
    if not args.on("force") and not confirmed(cli, warning):
        return 0
    async with cli.engine() as engine:
        gone, freed = await engine.prune_containers(chosen)
        removal = await engine.prune_images(everything=args.on("all"), wanted=wanted)
        built = BuildCacheRemoval()
        if not labelled:
            built = await engine.prune_build_cache(everything=args.on("all"), wanted=entries)
        rest = await engine.sweep()
    show_containers(cli, gone)
    show_build_cache(cli, built)
    show_removal(cli, removal + rest, "Deleted Images:", more=freed + built.bytes)
    return 0
