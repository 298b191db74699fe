"""`scow images`: local images in a table, or as a template or JSON says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.engine import ImageSummary

COMMAND = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    (
        Flag("all", "Show all images (scow has no hidden ones)", short="a"),
        Flag("digests", "Show digests"),
        Flag("filter", "before, dangling, label, reference, since, until=value", "list", "f"),
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("no-trunc", "Don't cut anything short"),
        Flag("quiet", "Show IDs only", short="q"),
        Flag("tree", "Show the platforms of each image, and which of them are here"),
    ),
    most=1,
)


async def main(cli: Cli, args: Args) -> int:
    """Prints a line per name, the newest image first."""
    from scow_plugins.cli._format import show
    from scow_plugins.cli._rows import IMAGE_TITLES, image_rows

    async with cli.engine() as engine:
        images = _select(await engine.images(), args.all("filter"), cli.clock())
        if args.on("tree"):
            from scow_plugins.cli._imagetree import tree

            if args.text("format") or args.on("quiet"):
                raise UsageError("--tree has its own form: it can't be had with --format or --quiet")
            for line in await tree(engine, images, args.words[0] if args.words else ""):
                cli.out(line)
            return 0
    rows = [
        row
        for image in images
        for row in image_rows(image, cli.clock(), truncate=not args.on("no-trunc"), digests=args.on("digests"))
    ]
    if args.words:
        repository, _, tag = _wanted(args.words[0])
        rows = [row for row in rows if row["Repository"] == repository and tag in ("", row["Tag"])]
    if args.on("quiet") and not args.text("format"):
        lines = [row["ID"] for row in rows]
    else:
        digest = ("Digest",) if args.on("digests") else ()
        columns = ("Repository", "Tag", *digest, "ID", "CreatedSince", "Size")
        lines = show(rows, args.text("format"), columns=columns, titles=IMAGE_TITLES)
    for line in lines:
        cli.out(line)
    return 0


def _wanted(text: str) -> tuple[str, str, str]:
    """Repository and tag; without a tag any is meant."""
    from scow_plugins.cli._names import split_name

    repository, tag = split_name(text)
    return repository, ":", tag if text.endswith(f":{tag}") else ""


def _select(images: Iterable[ImageSummary], filters: tuple[str, ...], now: float) -> list[ImageSummary]:
    from fnmatch import fnmatchcase

    from scow.api import NotFound
    from scow_plugins.cli._filters import has_label, select, truth
    from scow_plugins.cli._names import familiar, split_name
    from scow_plugins.cli._units import read_moment

    known = list(images)

    def created(value: str) -> float:
        found = [each for each in known if familiar(value) in each.names or str(each.id)[7:].startswith(value)]
        if not found:
            raise NotFound(f"filter: there is no image {value}", hint="`scow images -a` lists all of them")
        return found[0].created

    def moment(value: str) -> float:
        try:
            return read_moment(value, now)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"filter until: {error}") from None

    def reference(image: ImageSummary, value: str) -> bool:
        forms = [form for name in image.names for form in (familiar(name), split_name(name)[0], name)]
        return any(fnmatchcase(form, value) for form in forms)

    return select(
        sorted(known, key=lambda image: image.created, reverse=True),
        filters,
        {
            "before": lambda image, value: image.created < created(value),
            "since": lambda image, value: image.created > created(value),
            "until": lambda image, value: image.created < moment(value),
            "dangling": lambda image, value: (not image.names) == truth(value),
            "label": lambda image, value: has_label(dict(image.labels), value),
            "reference": reference,
        },
        {"before": created, "since": created, "until": moment, "dangling": truth},
    )
