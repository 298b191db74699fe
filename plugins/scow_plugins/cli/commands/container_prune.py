"""`scow container prune`: remove all stopped containers."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("filter", "until=moment or duration, label, label!", "list"),
        Flag("force", "Don't ask", short="f"),
    ),
)


async def main(cli: Cli, args: Args) -> int:
    """Asks, then prints the IDs and the space."""
    from scow_plugins.cli._pruning import confirmed, container_choice, show_containers, show_space

    chosen = container_choice(cli, args.all("filter"))
    if not args.on("force") and not confirmed(cli, "This will remove all stopped containers."):
        return 0
    async with cli.engine() as engine:
        gone, freed = await engine.prune_containers(chosen)
    show_containers(cli, gone)
    show_space(cli, freed, postponed=False)
    return 0
