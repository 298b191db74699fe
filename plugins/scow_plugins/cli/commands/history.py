"""`scow history`: how an image was made, the last step first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

if TYPE_CHECKING:
    from scow.engine import HistoryLine

COMMAND = Command(
    "[OPTIONS] IMAGE",
    (
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("human", "Sizes and dates for humans", short="H", default=True),
        Flag("no-trunc", "Don't cut anything short"),
        Flag("quiet", "Show IDs only", short="q"),
    ),
    least=1,
    most=1,
    refused={"--platform": "name the image by its ID"},
)
_COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
_TITLES = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
    "Tags": "TAGS",
}


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each step; `<missing>` where it is no image of its own."""
    from scow_plugins.cli._format import show

    async with cli.engine() as engine:
        lines = await engine.history(args.words[0])
    human, whole = args.on("human"), args.on("no-trunc")
    rows = [_row(line, cli.clock(), human=human, truncate=not whole) for line in lines]
    if args.on("quiet"):
        shown = [row["ID"] for row in rows]
    else:
        columns = _COLUMNS if human else tuple("CreatedAt" if name == "CreatedSince" else name for name in _COLUMNS)
        shown = show(rows, args.text("format"), columns=columns, titles=_TITLES)
    for text in shown:
        cli.out(text)
    return 0


def _row(line: HistoryLine, now: float, *, human: bool, truncate: bool) -> dict[str, Any]:
    from scow_plugins.cli._units import ago, ellipsis, human_size, stamp

    by = line.created_by.replace("\t", " ")
    digest = (line.id or "").partition(":")[2]
    return {
        "ID": "<missing>" if line.id is None else digest[:12] if truncate else line.id,
        "CreatedSince": ago(line.created, now),
        "CreatedAt": stamp(line.created) if line.created > 0 else "N/A",
        "CreatedBy": ellipsis(by, 45) if truncate else by,
        "Size": human_size(line.size, 3) if human else str(line.size),
        "Comment": line.comment,
        "Tags": ", ".join(line.names),
    }
