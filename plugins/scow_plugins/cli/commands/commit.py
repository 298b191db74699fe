"""`scow commit`: an image of what a container has become."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    (
        Flag("author", "Who made it (Jane Doe <jane@example.org>)", "string", "a"),
        Flag("change", "A Dockerfile instruction on the settings (CMD, ENV, EXPOSE, LABEL, USER, …)", "list", "c"),
        Flag("message", "What it is", "string", "m"),
        Flag("pause", "Freeze the container meanwhile", short="p", default=True),
        Flag("quiet", "Print the ID only, as always", short="q"),
    ),
    least=1,
    most=2,
)


async def main(cli: Cli, args: Args) -> int:
    """Prints the new image's ID."""
    container, *name = args.words
    async with cli.engine() as engine:
        image = await engine.commit(
            container,
            name[0] if name else None,
            author=args.text("author") or "",
            message=args.text("message") or "",
            changes=args.all("change"),
            pause=args.on("pause"),
        )
    cli.out(str(image.id))
    return 0
