"""--filter key=value: read into a map, and the tests that rows pass.

Different keys must all match, of equal keys one (of labels all), as docker has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from scow_plugins.cli._flags import UsageError

T = TypeVar("T")
Test = Callable[[Any, str], bool]


def select(
    items: Iterable[T],
    filters: tuple[str, ...],
    tests: Mapping[str, Test],
    checks: Mapping[str, Callable[[str], object]] | None = None,
) -> list[T]:
    """The items that pass. Raises UsageError for a key that `tests` doesn't have, and as `checks`."""
    wanted = read(filters, tests)
    check(wanted, checks or {})
    return [item for item in items if passes(item, wanted, tests)]


def read(filters: tuple[str, ...], tests: Mapping[str, Test]) -> dict[str, list[str]]:
    """Filters by key. Raises UsageError."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"filter {text!r} is not key=value")
        if key not in tests:
            raise UsageError(f"unknown filter {key!r}", hint=f"there are {', '.join(sorted(tests))}")
        wanted.setdefault(key, []).append(value.strip())
    return wanted


def check(wanted: Mapping[str, list[str]], checks: Mapping[str, Callable[[str], object]]) -> None:
    """Look at the values, so that a wrong one is told also where there is nothing to filter. Raises as `checks` do."""
    for key, values in wanted.items():
        for value in values:
            if key in checks:
                checks[key](value)


def truth(value: str) -> bool:
    """`true`, `false`, `1`, `0`, as docker has them. Raises UsageError."""
    if value not in ("true", "false", "1", "0"):
        raise UsageError(f"invalid filter value {value!r}", hint="write true or false")
    return value in ("true", "1")


def passes(item: Any, wanted: Mapping[str, list[str]], tests: Mapping[str, Test]) -> bool:
    """Whether one item passes all keys; labels must all match, as docker has it."""
    return all(
        (all if key == "label" else any)(tests[key](item, value) for value in values) for key, values in wanted.items()
    )


def has_label(labels: Mapping[str, Any], wanted: str) -> bool:
    """`key`, or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def matches(pattern: str, text: str) -> bool:
    """A regular expression found anywhere in `text`, as docker's name filter. Raises UsageError."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        raise UsageError(f"filter {pattern!r} is not a regular expression") from None
