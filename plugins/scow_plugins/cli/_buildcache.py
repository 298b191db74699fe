"""The build cache in tables, as docker shows it, and the filters that choose among it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from scow.engine import BuildCacheEntry
from scow_plugins.cli._filters import Test, passes, read
from scow_plugins.cli._flags import UsageError
from scow_plugins.cli._units import ago, human_size, printable, read_moment, stamp

TITLES: Final = {
    "ID": "ID",
    "Reclaimable": "RECLAIMABLE",
    "Size": "SIZE",
    "LastUsedSince": "LAST ACCESSED",
    "CacheID": "CACHE ID",
    "CacheType": "CACHE TYPE",
    "Parents": "PARENTS",
    "Description": "DESCRIPTION",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "LastUsedAt": "LAST USED AT",
    "LastUsed": "LAST USED",
    "UsageCount": "USAGE",
    "InUse": "IN USE",
    "Shared": "SHARED",
    "Mutable": "MUTABLE",
}
COLUMNS: Final = ("ID", "Reclaimable", "Size", "LastUsedSince")
#: Those of `system df -v`.
VERBOSE: Final = ("CacheID", "CacheType", "Size", "CreatedSince", "LastUsed", "UsageCount", "Shared")


def row(entry: BuildCacheEntry, now: float) -> dict[str, Any]:
    """One line of `builder du`."""
    return {
        "ID": entry.id + ("*" if entry.mutable else ""),
        "CacheID": entry.id[:12] + ("*" if entry.mutable else ""),
        "CacheType": entry.kind,
        "Parents": ",".join(entry.parents),
        "Description": entry.description,
        "CreatedAt": stamp(entry.created),
        "CreatedSince": ago(entry.created, now),
        "LastUsedAt": stamp(entry.used),
        "LastUsed": ago(entry.used, now),
        "LastUsedSince": ago(entry.used, now),
        "UsageCount": "" if entry.uses is None else str(entry.uses),
        "InUse": _truth(entry.in_use),
        "Shared": _truth(entry.shared),
        "Mutable": _truth(entry.mutable),
        "Reclaimable": _truth(not entry.in_use),
        "Size": human_size(entry.size),
    }


def block(entry: BuildCacheEntry, now: float) -> str:
    """One entry of `builder du --verbose`: a line for each fact."""
    shown = row(entry, now)
    lines = [f"ID:\t\t{entry.id}"]
    if entry.parents:
        lines.append(f"Parents:\t{', '.join(entry.parents)}")
    lines += [
        f"Created at:\t{shown['CreatedAt']}",
        f"Mutable:\t{shown['Mutable']}",
        f"Reclaimable:\t{shown['Reclaimable']}",
        f"Shared:\t\t{shown['Shared']}",
        f"Size:\t\t{shown['Size']}",
    ]
    if entry.description:
        lines.append(f"Description:\t{printable(entry.description)}")
    if entry.uses is not None:
        lines.append(f"Usage count:\t{entry.uses}")
    lines += [f"Last used:\t{shown['LastUsed']}", f"Type:\t\t{entry.kind}"]
    return "\n".join(lines) + "\n"


def sums(entries: Iterable[BuildCacheEntry]) -> list[str]:
    """What it all takes; everything counts once."""
    entries = list(entries)
    shared = sum(each.own for each in entries if each.shared)
    total = sum(each.own for each in entries)
    free = sum(each.own for each in entries if not each.in_use and not each.shared)
    lines = [f"Shared:\t\t{human_size(shared)}", f"Private:\t{human_size(total - shared)}"] if shared else []
    return [*lines, f"Reclaimable:\t{human_size(free)}", f"Total:\t\t{human_size(total)}"]


def choice(filters: tuple[str, ...], now: float) -> Callable[[BuildCacheEntry], bool] | None:
    """What --filter says of entries; None when it says nothing. Raises UsageError."""
    wanted = read(filters, _TESTS)
    if not wanted:
        return None
    try:
        moments = [read_moment(text, now) for text in wanted.pop("until", [])]
    except (ValueError, OverflowError) as error:
        raise UsageError(f"filter until: {error}") from None
    for key in ("inuse", "shared", "private", "mutable"):
        for value in wanted.get(key, []):
            if value.lower() not in _WORDS:
                raise UsageError(f"filter {key}={value}: write true or false")
    return lambda entry: all(entry.used < moment for moment in moments) and passes(entry, wanted, _TESTS)


def _truth(value: bool) -> str:
    return "true" if value else "false"


#: A filter without a value means true, as docker has it.
_WORDS: Final = {"true": True, "1": True, "": True, "false": False, "0": False}
_TESTS: Final[Mapping[str, Test]] = {
    "until": lambda entry, value: True,
    "id": lambda entry, value: entry.id.startswith(value) if value else False,
    "type": lambda entry, value: entry.kind == value,
    "description": lambda entry, value: value in entry.description,
    "inuse": lambda entry, value: entry.in_use == _WORDS[value.lower()],
    "shared": lambda entry, value: entry.shared == _WORDS[value.lower()],
    "private": lambda entry, value: entry.shared != _WORDS[value.lower()],
    "mutable": lambda entry, value: entry.mutable == _WORDS[value.lower()],
}
