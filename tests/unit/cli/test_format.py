"""Tables, filters and --format."""

from __future__ import annotations

import pytest

from scow_plugins.cli._filters import has_label, select
from scow_plugins.cli._flags import UsageError
from scow_plugins.cli._format import show, table

ROWS = [{"ID": "1", "Name": "one\x1b[0m"}, {"ID": "222222222222", "Name": "two"}]
TITLES = {"ID": "CONTAINER ID", "Name": "NAMES"}


def lines(form: str | None) -> list[str]:
    return show(ROWS, form, columns=("ID", "Name"), titles=TITLES)


@pytest.mark.parametrize("form", [None, "", "table"])
def test_tables(form: str | None) -> None:
    assert lines(form) == [
        "CONTAINER ID   NAMES",
        "1              one\\x1b[0m",
        "222222222222   two",
    ]


def test_narrow_columns_are_ten_wide() -> None:
    assert table(["A", "B", "C"], [["1", "2", "3"]]) == ["A         B         C", "1         2         3"]


def test_json() -> None:
    assert lines("json")[1] == '{"ID":"222222222222","Name":"two"}'


def test_templates() -> None:
    assert lines(r"{{.ID}}\t{{.Name}}")[1] == "222222222222\ttwo"


def test_template_tables() -> None:
    assert lines(r"table {{.Name}}\t{{upper .ID}}") == [
        "NAMES        CONTAINER ID",
        "one\\x1b[0m   1",
        "two          222222222222",
    ]


def test_bad_templates_are_usage_errors() -> None:
    for form in ("{{", "table {{.Foo}}", "{{.Foo}}"):
        with pytest.raises(UsageError, match="template"):
            lines(form)


TESTS = {"name": lambda item, value: item == value, "label": lambda item, value: value in item}


def test_filters() -> None:
    items = ["ab", "b", "c"]
    assert select(items, (), TESTS) == items
    assert select(items, ("name=b", "name=c"), TESTS) == ["b", "c"]
    assert select(items, ("label=a", "label=b"), TESTS) == ["ab"]
    assert select(items, ("name=b", "label=a"), TESTS) == []


@pytest.mark.parametrize("text", ["x=1", "name"])
def test_bad_filters(text: str) -> None:
    with pytest.raises(UsageError):
        select([], (text,), TESTS)


def test_labels() -> None:
    assert has_label({"a": "1"}, "a")
    assert has_label({"a": "1"}, "a=1")
    assert not has_label({"a": "1"}, "a=2")
    assert not has_label({}, "a")
