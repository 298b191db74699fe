"""What the pages take from the code: `python tests/docs/pages.py` writes it into them, tests compare.

A comment in a page names its source: a file of this repository, whose text is the code block below, or a module, whose
table or diagram is what follows.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Final

from scow.engine import Engine
from scow.errors import ANSWERS, Kind, ScowError
from scow.lifecycle import TRANSITIONS
from scow.model.container import Status

PROJECT: Final = Path(__file__).parents[2]
DOCS: Final = PROJECT / "docs"
#: Made by the command line itself, and compared by its own test.
OTHERS: Final = {DOCS / "cli.md"}

_FILE: Final = re.compile(r"<!-- (\S+\.(?:py|toml)) -->\n```(\w+)\n.*?^```$", re.DOTALL | re.MULTILINE)
_MODULE: Final = re.compile(r"<!-- (scow\.\w+) -->\n(?:.*?\n<!-- end -->)?", re.DOTALL)


def pages() -> list[Path]:
    """Every page of the documentation that is written by hand."""
    return sorted({*DOCS.rglob("*.md")} - OTHERS)


def filled(text: str) -> str:
    """The page's text with everything that comes from the code as it is now."""
    text = _FILE.sub(lambda found: _block(found[1], found[2]), text)
    return _MODULE.sub(lambda found: f"<!-- {found[1]} -->\n{MADE[found[1]]()}\n<!-- end -->", text)


def _block(path: str, language: str) -> str:
    return f"<!-- {path} -->\n```{language}\n{(PROJECT / path).read_text()}```"


def error_table() -> str:
    """`scow.errors` as a table."""
    rows = ["| error | kind | what | exit | run | HTTP |", "|---|---|---|---|---|---|"]
    classes = {cls.kind: cls for cls in ScowError.__subclasses__()}
    for kind in Kind:
        said = " ".join((classes[kind].__doc__ or "").split("\n\n")[0].split()).rstrip(".")
        answer = ANSWERS[kind]
        name = classes[kind].__name__
        rows.append(f"| `{name}` | `{kind.value}` | {said} | {answer.exit} | {answer.run_exit} | {answer.http} |")
    return "\n".join(rows)


def lifecycle_diagram() -> str:
    """`scow.lifecycle` as a mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Status.CREATED.value}"]
    for status, row in TRANSITIONS.items():
        for happening, after in row.items():
            lines.append(f"    {status.value} --> {after.value}: {happening.value}")
    return "\n".join([*lines, f"    {Status.REMOVING.value} --> [*]", "```"])


def engine_table() -> str:
    """The public methods of `scow.engine.Engine`, each with the first sentence of what it says."""
    rows = ["| method | what |", "|---|---|"]
    for name, member in vars(Engine).items():
        if not name.startswith("_"):
            given = list(inspect.signature(member).parameters.values())[1:]
            words = [each.name if each.default is each.empty else f"{each.name}=" for each in given]
            said = re.split(r"(?<=\.)\s", " ".join((member.__doc__ or "").split()))[0].rstrip(".")
            rows.append(f"| `{name}({', '.join(words)})` | {said} |")
    return "\n".join(rows)


MADE: Final = {"scow.errors": error_table, "scow.lifecycle": lifecycle_diagram, "scow.engine": engine_table}


if __name__ == "__main__":
    for page in pages():
        page.write_text(filled(page.read_text()))
        sys.stdout.write(f"{page.relative_to(PROJECT)}\n")
