"""`scow gc`: keep the store below a size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.engine import Collection

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("dry-run", "Remove nothing; say what would go, and why", short="n"),
        Flag("keep", "Bytes that images may take, as in 10g; 0 removes all that no container uses", "bytes"),
        Flag("quiet", "Print the reclaimed space only", short="q"),
    ),
    details=(
        "Leftovers go first, then what builds have left, then images that no container uses, the longest unused\n"
        "first. FREES is what goes with an image, SHARES what stays because others have it, too."
    ),
)


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each thing, with its reason, then the sum."""
    from scow_plugins.cli._pruning import show_space
    from scow_plugins.cli._units import human_size

    keep = args.number("keep")
    if keep is None:
        raise UsageError("gc needs --keep SIZE", hint="scow gc --keep 10g; --dry-run shows what would go")
    async with cli.engine() as engine:
        done = await engine.collect_garbage(keep, dry_run=args.on("dry-run"))
    if not args.on("quiet"):
        for line in _table(done, cli.clock()):
            cli.out(line)
        cli.out("")
    if args.on("dry-run"):
        cli.out(f"Would take {human_size(done.after)} instead of {human_size(done.before)}")
    else:
        show_space(cli, max(done.before - done.after, 0), postponed=done.postponed)
    if done.after > keep > 0 and not args.on("quiet") and not done.postponed:
        cli.out(f"More than {human_size(keep)}: what stays is used by containers")
    return 0


def _table(done: Collection, now: float) -> list[str]:
    from scow_plugins.cli._format import table
    from scow_plugins.cli._units import ago, human_size

    rows = [
        [
            each.action,
            ", ".join(_shown(name) for name in each.name.split(", ")),
            human_size(each.bytes) if each.action == "remove" else "",
            human_size(each.shared) if each.shared else "",
            ago(each.last_used, now) if each.last_used else "",
            each.reason,
        ]
        for each in done.decisions
    ]
    return table(["ACTION", "IMAGE", "FREES", "SHARES", "LAST USED", "REASON"], rows)


def _shown(name: str) -> str:
    """A name as `images` has it; what has none, by the beginning of its ID."""
    from scow_plugins.cli._names import familiar

    return name[7:19] if name.startswith("sha256:") else familiar(name)
