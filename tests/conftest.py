"""The machine before and after all tests: what no single test could call its own must be gone as well.

Tests run side by side (pytest-xdist), so each looks after its own engine's things only. The controller, which runs
no tests, compares everything once the workers have ended. Elsewhere than in CI others may be at work on the machine:
there it is told, and fails nothing.
"""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

_BEFORE = pytest.StashKey[dict[str, set[str]]]()
_LEFT = pytest.StashKey[dict[str, set[str]]]()


def _machine() -> ModuleType:
    spec = spec_from_file_location("machine_of_all_tests", Path(__file__).parent / "scenarios" / "machine.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # dataclasses look their module up.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _controls(session: pytest.Session) -> bool:
    return not hasattr(session.config, "workerinput") and os.geteuid() == 0 and not session.config.option.collectonly


def pytest_sessionstart(session: pytest.Session) -> None:
    if _controls(session):
        session.config.stash[_BEFORE] = _machine().snapshot()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    before = session.config.stash.get(_BEFORE, None)
    if before is None:
        return
    in_ci = os.environ.get("CI") == "true"
    left = _machine().settled(before, seconds=30 if in_ci else 0)
    session.config.stash[_LEFT] = left
    if left and in_ci and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind, names in config.stash.get(_LEFT, {}).items():
        terminalreporter.write_line(f"new on this machine since the tests began: {kind}: {', '.join(sorted(names))}")
