"""`scow cache ls`: the cache mounts of builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

if TYPE_CHECKING:
    from scow.engine import CacheInfo

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("filter", "id=name or inuse=true|false", "list"),
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("no-trunc", "Don't truncate output"),
        Flag("quiet", "Only display names", short="q"),
    ),
)
_TITLES = {
    "ID": "ID",
    "CacheID": "CACHE ID",
    "Origin": "BEGUN AS",
    "Size": "SIZE",
    "CreatedAt": "CREATED AT",
    "LastUsedAt": "LAST USED AT",
    "LastUsed": "LAST USED",
    "InUse": "IN USE",
}
_COLUMNS = ("ID", "CacheID", "Size", "LastUsed", "InUse")


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each cache, by name."""
    from scow_plugins.cli._filters import select
    from scow_plugins.cli._format import show
    from scow_plugins.cli._units import printable

    async with cli.engine() as engine:
        found = await engine.caches()
    tests = {
        "id": lambda each, value: each.id == value,
        "inuse": lambda each, value: each.in_use == (value.lower() in ("true", "1", "")),
    }
    found = tuple(select(found, args.all("filter"), tests))
    if args.on("quiet"):
        lines = [printable(each.id) for each in found]
    else:
        rows = [_row(each, cli.clock(), truncate=not args.on("no-trunc")) for each in found]
        columns = (*_COLUMNS[:2], "Origin", *_COLUMNS[2:]) if any(each.origin for each in found) else _COLUMNS
        lines = show(rows, args.text("format"), columns=columns, titles=_TITLES)
    for line in lines:
        cli.out(line)
    return 0


def _row(cache: CacheInfo, now: float, *, truncate: bool) -> dict[str, Any]:
    from scow_plugins.cli._units import ago, human_size, stamp

    key = cache.key.partition("-")[0][:12] + (f"-{cache.number}" if cache.number else "")
    return {
        "ID": cache.id,
        "CacheID": key if truncate else cache.key,
        "Origin": cache.origin,
        "Size": human_size(cache.size),
        "CreatedAt": stamp(cache.created),
        "LastUsedAt": stamp(cache.used),
        "LastUsed": ago(cache.used, now),
        "InUse": "true" if cache.in_use else "false",
    }
