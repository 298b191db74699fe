"""`scow create`: a container that is not started yet."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._createflags import FLAGS, REFUSED
from scow_plugins.cli._flags import Args, Command

COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    tuple(flag for flag in FLAGS if flag.name != "attach"),
    least=1,
    most=None,
    interspersed=False,
    refused={**REFUSED, "--attach": "give it to scow start", "-a": "give it to scow start"},
    runs=True,
)


async def main(cli: Cli, args: Args) -> int:
    """Prints the container's ID."""
    from scow_plugins.cli._creating import create
    from scow_plugins.cli._request import create_request

    request = create_request(args, cli.environ)
    async with cli.engine() as engine:
        container = await create(cli, engine, request, args)
    cli.out(container.spec.id)
    return 0
