"""`scow system df`: what takes how much space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.engine import DiskUsage

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("verbose", "Every image and every container", short="v"),
    ),
)
_TITLES = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
_IMAGE_TITLES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_CONTAINER_TITLES = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "Size": "SIZE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Names": "NAMES",
}


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each kind of thing, or with -v one for each thing."""
    from scow_plugins.cli._format import show

    if args.on("verbose") and args.text("format"):
        raise UsageError("-v has its own form: it can't be had with --format")
    async with cli.engine() as engine:
        usage = await engine.disk_usage()
    if args.on("verbose"):
        lines = _verbose(usage, cli.clock())
    else:
        lines = show(_rows(usage), args.text("format"), columns=tuple(_TITLES), titles=_TITLES)
    for line in lines:
        cli.out(line)
    return 0


def _rows(usage: DiskUsage) -> list[dict[str, Any]]:
    from scow.api import Status

    size = sum(each.size for each in usage.containers)
    busy = [each for each in usage.containers if each.container.state.status in (Status.RUNNING, Status.PAUSED)]
    free = size - sum(each.size for each in busy)
    used = sum(1 for each in usage.images if each.containers)
    return [
        _row("Images", len(usage.images), used, usage.images_bytes, usage.images_reclaimable),
        _row("Containers", len(usage.containers), len(busy), size, free),
        _row("Local Volumes", 0, 0, 0, 0),  # scow has none; scripts look for the row
        _build_row(usage),
        _row("Leftovers", usage.leftovers, 0, usage.leftover_bytes, usage.leftover_bytes),
    ]


def _build_row(usage: DiskUsage) -> dict[str, Any]:
    entries = usage.build_cache
    busy = [each for each in entries if each.in_use]
    # What images have, too, is in their line.
    size = sum(each.own for each in entries if not each.shared)
    used = sum(each.own for each in busy if not each.shared)
    return _row("Build Cache", len(entries), len(busy), size, size - used)


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    from scow_plugins.cli._units import human_size

    share = f" ({free * 100 // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(free) + share,
    }


def _verbose(usage: DiskUsage, now: float) -> list[str]:
    from scow_plugins.cli import _buildcache as buildcache
    from scow_plugins.cli._format import show
    from scow_plugins.cli._rows import container_row
    from scow_plugins.cli._units import human_size

    images = show(_image_rows(usage, now), None, columns=tuple(_IMAGE_TITLES), titles=_IMAGE_TITLES)
    rows = [{**container_row(each.container, now), "Size": human_size(each.size)} for each in usage.containers]
    made = show(rows, None, columns=tuple(_CONTAINER_TITLES), titles=_CONTAINER_TITLES)
    size = sum(each.own for each in usage.build_cache if not each.shared)
    entries = [buildcache.row(each, now) for each in usage.build_cache]
    build = f"Build cache usage: {human_size(size)}"
    cache = show(entries, None, columns=buildcache.VERBOSE, titles=buildcache.TITLES)
    left = f"Leftovers (nobody names them): {usage.leftovers}, {human_size(usage.leftover_bytes)}"
    return [
        "Images space usage:",
        "",
        *images,
        "",
        "Containers space usage:",
        "",
        *made,
        "",
        build,
        "",
        *cache,
        "",
        left,
    ]


def _image_rows(usage: DiskUsage, now: float) -> list[dict[str, Any]]:
    from scow_plugins.cli._names import split_name
    from scow_plugins.cli._units import ago, human_size

    return [
        {
            "Repository": repository,
            "Tag": tag or "<none>",
            "ID": image.id.short,
            "CreatedSince": ago(image.created, now),
            "Size": human_size(image.size),
            "SharedSize": human_size(image.shared),
            "UniqueSize": human_size(image.unique),
            "Containers": str(image.containers),
        }
        for image in usage.images
        for repository, tag in [split_name(name) for name in image.names] or [("<none>", "")]
    ]
