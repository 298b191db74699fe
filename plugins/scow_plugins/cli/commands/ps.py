"""`scow ps`: containers in a table, or as a template or JSON says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError, near

if TYPE_CHECKING:
    from scow.api import Container

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag("all", "Show those that don't run, too", short="a"),
        Flag("filter", "id, name, status, label, ancestor, exited, network=value", "list", "f"),
        Flag("format", "table, json, a Go template, or table and a template", "string"),
        Flag("last", "Show the last n created, whether they run or not", "int", "n"),
        Flag("latest", "Show the last created, whether it runs or not", short="l"),
        Flag("no-trunc", "Don't cut anything short"),
        Flag("quiet", "Show IDs only", short="q"),
    ),
    refused={"--size": "", "-s": ""},
)


_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


async def main(cli: Cli, args: Args) -> int:
    """Prints the newest first."""
    from scow_plugins.cli._format import show
    from scow_plugins.cli._rows import CONTAINER_COLUMNS, CONTAINER_TITLES, container_row

    filters = args.all("filter")
    last = 1 if args.on("latest") else args.number("last") or 0
    # A filter by state means containers in that state, whether they run or not.
    stopped = last > 0 or any(text.startswith(("status=", "exited=")) for text in filters)
    async with cli.engine() as engine:
        containers = await engine.containers(all=args.on("all") or stopped)
    chosen = _select(containers, filters)[: last if last > 0 else None]
    rows = [container_row(each, cli.clock(), truncate=not args.on("no-trunc")) for each in chosen]
    if args.on("quiet") and not args.text("format"):
        lines = [row["ID"] for row in rows]
    else:
        lines = show(rows, args.text("format"), columns=CONTAINER_COLUMNS, titles=CONTAINER_TITLES)
    for line in lines:
        cli.out(line)
    return 0


def _select(containers: Iterable[Container], filters: tuple[str, ...]) -> list[Container]:
    from scow_plugins.cli._filters import has_label, matches, select

    return select(
        sorted(containers, key=lambda each: each.spec.created, reverse=True),
        filters,
        {
            "id": lambda each, value: each.spec.id.startswith(value),
            "name": lambda each, value: matches(value, each.spec.name) or matches(value, f"/{each.spec.name}"),
            "status": lambda each, value: each.state.status.value == value,
            "label": lambda each, value: has_label(dict(each.spec.labels), value),
            "ancestor": _ancestor,
            "exited": lambda each, value: each.state.status.value == "exited" and str(each.state.exit_code) == value,
            "network": lambda each, value: each.spec.network == value,
        },
        {"status": _check_status, "exited": _check_code},
    )


def _check_status(value: str) -> None:
    """Docker's states; some of them no container of scow's is ever in."""
    if value not in _STATES:
        raise UsageError(
            f"invalid filter 'status={value}'", hint=near(value, _STATES) or f"there are {', '.join(_STATES)}"
        )


def _check_code(value: str) -> None:
    try:
        int(value)
    except ValueError:
        raise UsageError(f"invalid filter 'exited={value}'", hint="write an exit code") from None


def _ancestor(container: Container, wanted: str) -> bool:
    """An image by name (any tag where none is given) or by the beginning of its ID."""
    from scow_plugins.cli._names import familiar, split_name

    image = container.spec.image
    digest = container.spec.image_id
    same = familiar(image) == familiar(wanted) or (":" not in wanted and split_name(image)[0] == split_name(wanted)[0])
    return same or (len(wanted) >= 4 and (digest.startswith(wanted) or digest.partition(":")[2].startswith(wanted)))
