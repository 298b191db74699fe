"""What those inside of a container can get of a command that joins it: the program of _stub.py, then the command.

A watcher that knows the next process's number meets it within microseconds. SCOW_WATCHED says through how many execs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from scow.api import PluginContext, ScowError
from scow.model.process import BindMount, ContainerProcess, Isolation, ProcessSpec
from scow.testing.execs import Bench, ExecMaker, busybox, run
from scow_plugins.namespaces import Plugin

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(busybox() is None, reason="needs a static busybox (busybox-static)"),
]

_EXECS: Final = int(os.environ.get("SCOW_WATCHED", "500"))
_STUB: Final = "/memfd:scow-exec (deleted)"
_COMMAND: Final = "/bin/busybox"
_TRACER: Final = Isolation("x", cap_add=("SYS_PTRACE",))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    context = PluginContext("namespaces", tmp_path / "state", tmp_path / "plugin-run", {})
    return Bench(ExecMaker("namespaces", lambda: Plugin(context)), tmp_path)


def _python() -> tuple[str, tuple[BindMount, ...]]:
    """The host's, and what it needs."""
    python = os.path.realpath(sys.executable)
    trees = {"/usr", "/lib", "/lib64", os.path.dirname(os.path.dirname(python)), os.path.realpath(sys.base_prefix)}
    return python, tuple(BindMount(tree, tree, read_only=True) for tree in sorted(trees) if os.path.isdir(tree))


@asynccontextmanager
async def _watched(bench: Bench, mode: str, isolation: Isolation) -> AsyncIterator[ContainerProcess]:
    """A container whose first process is the watcher."""
    shutil.copy(Path(__file__).with_name("watcher.py"), bench.root / "watcher.py")
    python, mounts = _python()
    spec = ProcessSpec((python, "-I", "-S", "/watcher.py", mode, "/tmp/seen"))
    async with bench.running(spec, isolation=replace(isolation, mounts=mounts)) as container:
        for _ in range(500):
            if _seen(bench):
                break
            await trio.sleep(0.01)
        yield container


def _seen(bench: Bench) -> list[dict[str, Any]]:
    path = bench.root / "tmp/seen"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _met(bench: Bench, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The watcher itself, and whom it has met; on a busy machine some are gone before."""
    own, *seen = _seen(bench)
    assert len(seen) > count // 10
    return own, seen


def _check(seen: dict[str, Any], own: dict[str, Any]) -> None:
    assert {seen["exe"], seen["exe_after"]} <= {_STUB, _COMMAND, None}, seen
    assert seen["root"] in (own["root"], None), seen
    assert seen["cwd"] in (own["root"], None), seen
    assert re.fullmatch(r"(PATH=[^\0]*\0HOME=/root\0MARK=inside\0)?", seen["environ"] or ""), seen
    for number, where in seen["fd"].items():
        # Its own open files while it looks: 4 is the program, which execve(2) closes.
        assert int(number) <= 4, seen
        if where is not None:
            assert where.startswith(("/dev/null", "/memfd:out", "/memfd:err", "socket:", _STUB)), seen
    paths = {line.split(None, 5)[5] for line in (seen["maps"] or "").splitlines() if len(line.split(None, 5)) > 5}
    assert {path for path in paths if not path.startswith("[")} <= {_STUB, _COMMAND}, seen
    if seen["status"] is not None:
        assert _fields(seen["status"]) == _fields(own["status"]), seen


def _fields(status: str) -> list[str]:
    """What it may do: capabilities, filter, user."""
    return [line for line in status.splitlines() if re.match(r"Cap(Inh|Bnd|Amb)|Seccomp:|NoNewPrivs|[UG]id", line)]


def _exceeds(status: str, own: str) -> int:
    pattern = re.compile(r"CapPrm:\s*(\w+)")
    return sum(int(match[1], 16) for match in pattern.finditer(status)) & ~int(pattern.findall(own)[0], 16)


def test_nothing_of_the_hosts_is_seen_with_sys_ptrace(bench: Bench) -> None:
    secret = secrets.token_hex(32)  # in the memory of who starts the commands

    async def check(bench: Bench) -> None:
        async with _watched(bench, "look", _TRACER) as container:
            for _ in range(_EXECS):
                outcome = await bench.inside(container, "/bin/true", env=("MARK=inside",))
                assert outcome.status.code == 0, outcome
            own, seen = _met(bench, _EXECS)
        for each in seen:
            _check(each, own)
            assert _exceeds(each["status"] or "", own["status"]) == 0, each
        # Else this test would show nothing.
        assert sum(each["exe"] == _STUB for each in seen) > _EXECS // 100
        memory = (bench.root / "tmp/seen.memory").read_bytes()
        assert secret.encode() not in memory
        assert b"scow_plugins" not in memory

    run(check, bench)


@pytest.mark.parametrize("isolation", [Isolation("x"), _TRACER], ids=["default", "sys_ptrace"])
def test_who_traces_a_command_gets_the_command(bench: Bench, isolation: Isolation) -> None:
    count = _EXECS // 5

    async def check(bench: Bench) -> None:
        async with _watched(bench, "trace", isolation) as container:
            for _ in range(count):
                outcome = await bench.inside(container, "/bin/true", env=("MARK=inside",))
                assert outcome.status.code == 0, outcome
            own, seen = _met(bench, count)
        for each in seen:
            if each["attached"]:
                _check(each, own)
            if not isolation.cap_add:
                assert not each["attached"] or each["exe"] == _COMMAND, each
                # The program of _stub.py has no section headers (e_shoff), the command has.
                assert each["program"] is None or int(each["program"][80:96], 16) != 0, each

    run(check, bench)


def test_the_line_to_the_supervisor_believes_nothing(bench: Bench) -> None:
    """Descriptors are taken, and kept, and spoken on. An exec may fail; it neither hangs nor says what it was told."""
    count = _EXECS // 5

    async def check(bench: Bench) -> None:
        async with _watched(bench, "forge", _TRACER) as container:
            before = len(os.listdir("/proc/self/fd"))
            said = []
            for _ in range(count):
                with trio.fail_after(5):
                    try:
                        await bench.inside(container, "/bin/true", env=("MARK=inside",))
                    except ScowError as error:
                        said.append(f"{error} {error.hint}")
            assert "FORGED" not in "".join(said), said
            assert "\x1b" not in "".join(said), said
            assert len(os.listdir("/proc/self/fd")) == before
            _, seen = _met(bench, count)
        assert any("socket" in each["taken"] for each in seen)

    run(check, bench)
