"""`scow logout`: forget a registry's login."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command

COMMAND = Command("[SERVER]", most=1, details="SERVER is Docker Hub by default.")
_HUB = "https://index.docker.io/v1/"


async def main(cli: Cli, args: Args) -> int:
    """Prints what docker prints."""
    server = args.words[0] if args.words else ""
    async with cli.engine() as engine:
        known = await engine.logout(server)
    shown = server or _HUB
    cli.out(f"Removing login credentials for {shown}" if known else f"Not logged in to {shown}")
    return 0
