"""`scow builder prune`: take from the disk what builds have left."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag(
            "all", "Forget also those layers that images have: that frees nothing, but they are built again", short="a"
        ),
        Flag("filter", "until=moment or duration (last used before that), id, type, description, …, key=value", "list"),
        Flag("force", "Don't ask", short="f"),
        Flag(
            "max-used-space",
            "Remove only until the cache takes at most this much (20g)",
            "bytes",
            also=("keep-storage",),
        ),
        Flag("verbose", "Show each entry as `builder du --verbose` does"),
    ),
    refused={"--reserved-space": "--max-used-space SIZE is the limit", "--min-free-space": ""},
    details="What a running build uses stays, and what stays is never cut off from what it is built on. The longest\n"
    "unused goes first.",
)


async def main(cli: Cli, args: Args) -> int:
    """Asks, then prints the IDs and the space."""
    from scow_plugins.cli._buildcache import block, choice
    from scow_plugins.cli._pruning import confirmed, show_build_cache, show_space

    wanted = choice(args.all("filter"), cli.clock())
    which = "all build cache" if args.on("all") else "all dangling build cache"
    if not args.on("force") and not confirmed(cli, f"This will remove {which}."):
        return 0
    async with cli.engine() as engine:
        before = {each.id: each for each in await engine.build_cache()} if args.on("verbose") else {}
        removal = await engine.prune_build_cache(
            everything=args.on("all"), keep=args.number("max-used-space"), wanted=wanted
        )
    for name in removal.ids if before else ():
        if name in before:
            cli.out(block(before[name], cli.clock()))
    if not before:
        show_build_cache(cli, removal)
    show_space(cli, removal.bytes, postponed=removal.postponed)
    return 0
