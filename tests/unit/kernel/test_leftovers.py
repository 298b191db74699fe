"""What scenarios compare: a leak is its engine's, whatever others do on the machine at the same time."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def machine() -> ModuleType:
    spec = spec_from_file_location("machine_under_test", Path(__file__).parents[2] / "scenarios" / "machine.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_process_is_its_directorys_and_nobody_elses(machine: ModuleType, tmp_path: Path) -> None:
    mine, other = machine.Owner(tmp_path / "x1", "11111111"), machine.Owner(tmp_path / "x10", "22222222")
    before = machine.snapshot(mine), machine.snapshot(other)
    sleeper = subprocess.Popen(["sh", "-c", "read x; exit", str(tmp_path / "x10" / "run")], stdin=subprocess.PIPE)
    try:
        assert machine.settled(before[0], mine, seconds=0) == {}
        assert list(machine.settled(before[1], other, seconds=0)) == ["processes"]
    finally:
        sleeper.communicate(b"\n", timeout=10)


def test_bridges_and_tables_bear_the_instance(machine: ModuleType, tmp_path: Path) -> None:
    owner = machine.Owner(tmp_path, "11111111")
    assert owner.has_link("scow-11111111")
    assert not owner.has_link("scow-22222222")
    assert owner.named("table inet scow-11111111")
    assert machine.Owner().has_link("scow-22222222"), "without a directory, all are meant"


def test_groups_bear_a_container_that_the_engine_has_had(machine: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "root" / "containers" / ("a" * 64)).mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").write_text('{"container": "' + "b" * 64 + '"}\n')
    owner = machine.Owner(tmp_path, "11111111")
    assert owner.has_container("/sys/fs/cgroup/scow/" + "a" * 64)
    assert owner.has_container("/sys/fs/cgroup/scow/" + "b" * 64), "removed, and its group is left"
    assert not owner.has_container("/sys/fs/cgroup/scow/" + "c" * 64)
    assert not owner.has_container("/sys/fs/cgroup/scow"), "all engines' parent"
