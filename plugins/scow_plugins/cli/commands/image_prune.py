"""`scow image prune`: remove the images that nobody uses."""

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
)


async def main(cli: Cli, args: Args) -> int:
    """Asks, then prints what was removed and the space it took."""
    from scow_plugins.cli._pruning import choice, confirmed, show_removal

    everything = args.on("all")
    wanted = choice(cli, args.all("filter"))
    which = "without at least one container associated to them" if everything else "without a name"
    if not args.on("force") and not confirmed(cli, f"This will remove all images {which}."):
        return 0
    async with cli.engine() as engine:
        removal = await engine.prune_images(everything=everything, wanted=wanted)
    show_removal(cli, removal, "Deleted Images:")
    return 0
