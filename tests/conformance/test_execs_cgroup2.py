"""The namespaces runtime on a machine that has control groups of version 2 alone, which we pretend to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from scow.api import PluginContext, Unsupported
from scow.model.process import Isolation, ProcessSpec, Resources
from scow.testing import execs_isolation, execs_limits, execs_start
from scow.testing.execs import Bench, Check, ExecMaker, busybox, run
from scow_plugins.namespaces import Plugin
from scow_plugins.namespaces._cgroups import group
from scow_plugins.namespaces._cgroups.layout import hierarchies

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(busybox() is None, reason="needs a static busybox (busybox-static)"),
    pytest.mark.skipif(all(h.version != 2 for h in hierarchies()), reason="needs cgroup2 mounted"),
]

_CHECKS = (
    execs_start.check_gives_output_and_exit_code,
    execs_start.check_other_commands_get_in,
    execs_isolation.check_devices_are_the_ordinary_ones,
    execs_isolation.check_kernel_files_are_masked,
    execs_limits.check_signals_reach_everyone,
    execs_limits.check_a_cancelled_start_leaves_nothing,
    execs_limits.check_a_killed_supervisor_takes_its_container_along,
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.setattr(group, "hierarchies", lambda: [h for h in hierarchies() if h.version == 2])
    context = PluginContext("namespaces", tmp_path / "state", tmp_path / "plugin-run", {})
    return Bench(ExecMaker("namespaces", lambda: Plugin(context)), tmp_path)


@pytest.mark.parametrize("check", _CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, bench: Bench) -> None:
    run(check, bench)


def test_a_limit_without_its_controller_is_refused(bench: Bench) -> None:
    if any("memory" in h.controllers for h in hierarchies() if h.version == 2):
        pytest.skip("version 2 has the memory controller here")

    async def check(bench: Bench) -> None:
        with pytest.raises(Unsupported, match=r"--memory.*'memory'"):
            await bench.run("true", isolation=Isolation("x", resources=Resources(memory=64 << 20)))

    run(check, bench)


def test_freezes(bench: Bench) -> None:
    async def check(bench: Bench) -> None:
        async with bench.running(ProcessSpec(("sleep", "60"))) as container:
            container.pause()
            container.resume()
            assert container.stats()["pids"] == 1
            container.pause()

    run(check, bench)
