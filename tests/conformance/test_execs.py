"""Every runtime plugin in this environment, ours or a stranger's, keeps the contract."""

from __future__ import annotations

import importlib
import os
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from scow.api import Invalid, PluginContext
from scow.testing import execs_adopt, execs_isolation, execs_limits, execs_start
from scow.testing.execs import Bench, Check, ExecMaker, busybox, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(busybox() is None, reason="needs a static busybox (busybox-static)"),
]

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_CHECKS = (*execs_start.CHECKS, *execs_isolation.CHECKS, *execs_limits.CHECKS, *execs_adopt.CHECKS)


def _points() -> dict[str, str]:
    points = {point.name: point.value for point in entry_points(group="scow.exec")}
    if not points and _PROJECT.exists():
        # Not installed: what this tree would register.
        points = tomllib.loads(_PROJECT.read_text())["project"]["entry-points"]["scow.exec"]
    return points


@pytest.mark.parametrize("check", _CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("point", sorted(_points().items()), ids=lambda point: point[0])
def test_conformance(point: tuple[str, str], check: Check, tmp_path: Path) -> None:
    name, target = point
    module, _, factory = target.partition(":")
    make = getattr(importlib.import_module(module), factory)
    context = PluginContext(name, tmp_path / "state", tmp_path / "plugin-run", {}, instance="conf")
    probe = getattr(make(context), "probe", lambda: None)()
    if probe is not None:
        pytest.skip(probe.reason)
    run(check, Bench(ExecMaker(name, lambda: make(context)), tmp_path))


def test_a_group_that_is_not_ours_is_left_alone() -> None:
    """What a journal names is killed only if scow has made it."""
    from scow_plugins.namespaces._cgroups.layout import hierarchies
    from scow_plugins.namespaces._cgroups.reclaim import reclaim

    home = Path(next(each.path for each in hierarchies() if each.version == 2 or "pids" in each.controllers))
    group = home / f"scow-stranger-{os.getpid()}"
    group.mkdir()
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        (group / "cgroup.procs").write_text(str(sleeper.pid))
        with pytest.raises(Invalid):
            reclaim(f"/{group.name}")
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        group.rmdir()
