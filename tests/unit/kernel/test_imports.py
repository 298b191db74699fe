"""Import budgets: what a command loads before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scow
from scow.entrypoints import scan

KERNEL = str(Path(scow.__file__).parent.parent)
HEAVY = {
    "trio", "httpx2", "httpcore2", "pyroute2", "rich", "ssl", "asyncio", "sqlite3", "subprocess", "concurrent.futures",
    "scow.engine", "scow.stages", "scow.plugins", "structlog",
}  # fmt: skip


def loaded(code: str, *flags: str) -> set[str]:
    """The modules that `code` adds to those of an empty program."""
    path = os.pathsep.join([KERNEL, *(entry for entry in sys.path if entry)])
    script = f"import os, sys; sys.path[:0] = {path!r}.split(':'); before = set(sys.modules)\n{code}\n"
    script += "print('\\n'.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_dispatcher_loads_next_to_nothing() -> None:
    found = loaded("import scow.boot, scow.warm", "-I", "-S")
    assert found <= {"scow", "scow.boot", "scow.warm", "_socket", "_signal", "__future__"}


def test_import_scow_is_cheap() -> None:
    found = loaded("import scow; scow.__version__", "-I", "-S")
    assert found <= {"scow", "__future__"}


@pytest.mark.parametrize("module", sorted({p.module for p in scan() if p.group != "scow.frontend"}))
def test_claims_are_light(module: str) -> None:
    """A plugin's package holds claims; what works is imported behind them."""
    assert not loaded(f"import {module}") & HEAVY


def test_unknown_names() -> None:
    with pytest.raises(AttributeError):
        scow.nothing  # noqa: B018
    assert scow.Engine.__name__ == "Engine"
