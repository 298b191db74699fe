"""What the prune commands share: the question before, the filters, the report after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from scow.api import Container
from scow.engine import BuildCacheRemoval, ImageSummary, Removal
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._filters import has_label, read
from scow_plugins.cli._flags import UsageError
from scow_plugins.cli._units import human_size, printable, read_moment


def confirmed(cli: Cli, warning: str) -> bool:
    """Ask on standard error; anything but `y` or `yes`, and the input's end, means no."""
    cli.err(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    line = b""
    while (byte := os.read(cli.stdin, 1)) not in (b"", b"\n") and len(line) < 100:
        line += byte
    return line.strip().lower() in (b"y", b"yes")


def choice(cli: Cli, filters: tuple[str, ...]) -> Callable[[ImageSummary], bool]:
    """Whether an image passes `until`, `label` and `label!`. Raises UsageError."""
    passes = _choice(cli, filters)
    return lambda image: passes(image.created, dict(image.labels))


def container_choice(cli: Cli, filters: tuple[str, ...]) -> Callable[[Container], bool]:
    """The same for containers."""
    passes = _choice(cli, filters)
    return lambda container: passes(container.spec.created, dict(container.spec.labels))


def _choice(cli: Cli, filters: tuple[str, ...]) -> Callable[[float, dict[str, str]], bool]:
    wanted = read(filters, {"until": _never, "label": _never, "label!": _never})
    try:
        moments = [read_moment(text, cli.clock()) for text in wanted.get("until", [])]
    except (ValueError, OverflowError) as error:
        raise UsageError(f"filter until: {error}") from None

    def passes(created: float, labels: dict[str, str]) -> bool:
        return (
            all(created < moment for moment in moments)
            and all(has_label(labels, text) for text in wanted.get("label", []))
            and not any(has_label(labels, text) for text in wanted.get("label!", []))
        )

    return passes


def _never(item: Any, value: str) -> bool:
    return False


def show_containers(cli: Cli, gone: Iterable[Container]) -> None:
    """The IDs of containers that are gone."""
    if gone:
        cli.out("Deleted Containers:")
        for container in gone:
            cli.out(container.spec.id)
        cli.out("")


def show_build_cache(cli: Cli, removal: BuildCacheRemoval) -> None:
    """The IDs of entries that are gone."""
    if removal.ids:
        cli.out("Deleted build cache objects:")
        for name in removal.ids:
            cli.out(name)
        cli.out("")


def show_removal(cli: Cli, removal: Removal, title: str, more: int = 0) -> None:
    """The names and digests that are gone, and the space, with `more` bytes that went before."""
    if removal.untagged or removal.deleted:
        cli.out(title)
        for name in removal.untagged:
            cli.out(f"untagged: {printable(name)}")
        for digest in removal.deleted:
            cli.out(f"deleted: {digest}")
        cli.out("")
    show_space(cli, removal.bytes + more, postponed=removal.postponed)


def show_space(cli: Cli, count: int, *, postponed: bool) -> None:
    """The last line of every prune command."""
    cli.out(f"Total reclaimed space: {human_size(count)}")
    if postponed:
        cli.err("scow: another command is at work with the store; what it doesn't need goes when it ends")
