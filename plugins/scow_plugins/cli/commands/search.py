"""`scow search`: look for images in Docker Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.api import Found

COMMAND = Command(
    "[OPTIONS] TERM",
    (
        Flag("filter", "stars=N, is-official=true|false, is-automated=true|false", "list", "f"),
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("limit", "Number of results (1 to 100)", "int", default=25),
        Flag("no-trunc", "Don't cut anything short"),
    ),
    least=1,
    most=1,
    details="HOST/TERM searches another registry, if it has a search.",
)
_TITLES = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_WIDTH = 45


async def main(cli: Cli, args: Args) -> int:
    """Prints a line per image, the best first."""
    from scow_plugins.cli._filters import check, read, select, truth
    from scow_plugins.cli._format import show

    limit = args.number("limit") or 0
    if not 1 <= limit <= 100:
        raise UsageError(f"limit {limit} is outside the range of [1, 100]")
    if not args.words[0].strip():
        raise UsageError("there is nothing to search for: the term is empty")
    # Before anybody is asked.
    check(read(args.all("filter"), _TESTS), {"stars": _number, "is-official": truth, "is-automated": truth})
    async with cli.engine() as engine:
        found = await engine.search(args.words[0], limit=limit)
    rows = [_row(each, full=args.on("no-trunc")) for each in select(found, args.all("filter"), _TESTS)]
    columns = ("Name", "Description", "StarCount", "IsOfficial")
    for line in show(rows, args.text("format"), columns=columns, titles=_TITLES):
        cli.out(line)
    return 0


def _row(found: Found, *, full: bool) -> dict[str, Any]:
    text = found.description
    return {
        "Name": found.name,
        "Description": text if full or len(text) <= _WIDTH else text[: _WIDTH - 1] + "…",
        "StarCount": str(found.stars),
        "IsOfficial": "[OK]" if found.official else "",
        "IsAutomated": "[OK]" if found.automated else "",
    }


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise UsageError(f"invalid filter 'stars={value}'")
    return int(value)


_TESTS: dict[str, Any] = {
    "stars": lambda each, value: each.stars >= _number(value),
    "is-official": lambda each, value: each.official == (value in ("true", "1")),
    "is-automated": lambda each, value: each.automated == (value in ("true", "1")),
}
