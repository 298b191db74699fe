"""--format: docker's tables, Go templates per row, and JSON. Rows are plain dicts; text comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from scow_plugins.cli._evaluate import Template, header_functions
from scow_plugins.cli._flags import UsageError
from scow_plugins.cli._functions import Method, go_text, to_json
from scow_plugins.cli._template import TemplateError
from scow_plugins.cli._units import printable

_PADDING: Final = 3
_NARROWEST: Final = 10
#: What a shell passes on as backslash and letter.
_ESCAPES: Final = (("\\t", "\t"), ("\\n", "\n"))

Row = Mapping[str, Any]


def show(rows: Iterable[Row], form: str | None, *, columns: tuple[str, ...], titles: Mapping[str, str]) -> list[str]:
    """The lines for `rows`: a table of `columns`, or what --format says. Raises UsageError for a bad template."""
    if not form or form == "table":
        return table([titles[name] for name in columns], [[go_text(row[name]) for name in columns] for row in rows])
    if form == "json":
        return [to_json(row) for row in rows]
    if form.startswith("table "):
        return _template_table(rows, form[6:].strip(), titles)
    return [render(form, row) for row in rows]


def render(form: str, data: Any) -> str:
    """One value through a template. Raises UsageError."""
    try:
        return Template(_unescape(form)).render(data)
    except TemplateError as error:
        raise UsageError(f"template {form!r}: {error}") from None


def _template_table(rows: Iterable[Row], form: str, titles: Mapping[str, str]) -> list[str]:
    form = _unescape(form)
    try:
        template = Template(form)
        heads = {**titles, "Label": Method(lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " "))}
        head = template.render(heads, header_functions())
        lines = [template.render(row) for row in rows]
    except TemplateError as error:
        raise UsageError(f"template {form!r}: {error}") from None
    return table(head.split("\t"), [line.split("\t") for line in lines])


def _unescape(form: str) -> str:
    for written, meant in _ESCAPES:
        form = form.replace(written, meant)
    return form


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Columns at least ten wide and three apart, as Go's tabwriter makes them for docker."""
    lines = [head, *([printable(cell) for cell in row] for row in rows)]
    count = max(len(line) for line in lines)
    widths = [
        max(_NARROWEST, max(len(line[at]) + _PADDING for line in lines if len(line) > at)) for at in range(count - 1)
    ]
    return [
        "".join([cell.ljust(width) for cell, width in zip(line, widths, strict=False)] + line[len(widths) :])
        for line in lines
    ]


def indented(values: list[Any]) -> str:
    """JSON as `inspect` prints it: four spaces."""
    return to_json(values, indent=4)
