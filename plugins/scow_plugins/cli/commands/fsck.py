"""`scow fsck`: whether blobs and layers are what their digests say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

if TYPE_CHECKING:
    from scow.engine import Damage

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("layers", "Compare unpacked layers with their blobs, too", default=True),
        Flag("quiet", "Print what is damaged only", short="q"),
        Flag("repair", "Fetch what is damaged again"),
    ),
)


async def main(cli: Cli, args: Args) -> int:
    """Prints what is damaged and by which image it is needed; 1 when something is, and stays so."""
    async with cli.engine() as engine:
        found = await engine.fsck(layers=args.on("layers"), repair=args.on("repair"))
    for damage in found.damages:
        cli.out(_line(damage, repair=args.on("repair")))
    left = [damage for damage in found.damages if not damage.repaired]
    if not args.on("quiet"):
        state = "all well" if not found.damages else f"{len(left)} damaged"
        repaired = len(found.damages) - len(left)
        more = f", {repaired} repaired" if repaired else ""
        cli.out(f"Checked {found.blobs} blobs and {found.layers} layers: {state}{more}")
    if left and not args.on("repair"):
        cli.err("scow: `scow fsck --repair` fetches what is damaged again")
    return 1 if left else 0


def _line(damage: Damage, *, repair: bool) -> str:
    from scow_plugins.cli._units import printable

    needed = f"needed by {', '.join(damage.images)}" if damage.images else "needed by no image"
    text = f"{damage.kind} {damage.digest} {damage.problem} ({needed})"
    if repair:
        text += ": repaired" if damage.repaired else f": not repaired: {damage.answer or 'nobody needs it'}"
    return printable(text)
