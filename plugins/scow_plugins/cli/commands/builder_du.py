"""`scow builder du`: what builds have left, and the space it takes."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("filter", "until, id, type, description, inuse, shared, private or mutable, key=value", "list"),
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("verbose", "All that is known of each entry"),
    ),
    details="Entries are layers that steps have made (regular), cache mounts (exec.cachemount), and digests of a\n"
    "context's files (source.local). What can be written to has a star.",
)


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each entry, the last used first, then the sums."""
    from scow_plugins.cli._buildcache import COLUMNS, TITLES, block, choice, row, sums
    from scow_plugins.cli._format import show

    if args.on("verbose") and args.text("format"):
        raise UsageError("--verbose has its own form: it can't be had with --format")
    wanted = choice(args.all("filter"), cli.clock())
    async with cli.engine() as engine:
        entries = [each for each in await engine.build_cache() if wanted is None or wanted(each)]
    now = cli.clock()
    if args.on("verbose"):
        lines = [block(each, now) for each in entries]
    else:
        lines = show((row(each, now) for each in entries), args.text("format"), columns=COLUMNS, titles=TITLES)
    if args.text("format") in (None, "", "table"):
        lines += sums(entries)
    for line in lines:
        cli.out(line)
    return 0
