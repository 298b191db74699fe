"""A command joins a running container in two steps (see _stub.py): nobody notices, and neither step is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import trio

from scow.api import Conflict, PluginContext
from scow.model.process import Isolation, ProcessSpec, Resources, Stdio
from scow.testing.execs import Bench, ExecMaker, busybox, run
from scow_plugins.namespaces import Plugin
from scow_plugins.namespaces._line import Line
from scow_plugins.namespaces._starting import Starting

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(busybox() is None, reason="needs a static busybox (busybox-static)"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    context = PluginContext("namespaces", tmp_path / "state", tmp_path / "plugin-run", {})
    return Bench(ExecMaker("namespaces", lambda: Plugin(context)), tmp_path)


def _children(*but: str) -> list[str]:
    """Children of this process; tests that ran before may have left fixtures that are some, too."""
    return [pid for pid in Path("/proc/thread-self/children").read_text().split() if pid not in but]


def _profile(*names: str) -> str:
    """Everything is allowed but these."""
    denied = {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]})


def test_a_filter_may_forbid_all_that_joining_takes(bench: Bench) -> None:
    profile = _profile("clone", "clone3", "fork", "vfork", "setsid", "prctl", "close_range", "recvmmsg", "ioctl")

    async def check(bench: Bench) -> None:
        isolation = Isolation("x", seccomp=profile)
        async with bench.running(ProcessSpec(("sleep", "60")), isolation=isolation) as container:
            outcome = await bench.inside(container, "cat", "/proc/self/status")
            assert outcome.status.code == 0, outcome
            assert "\nSeccomp:\t2\n" in outcome.out
            # The command itself has no part in the exemption.
            outcome = await bench.inside(container, "sh", "-c", "true; /bin/true; echo not here")
            assert "not here" not in outcome.out, outcome
            assert "can't fork: Permission denied" in outcome.err, outcome
            async with container.exec(ProcessSpec(("sh", "-c", ": >/dev/tty"), tty=True), None) as process:
                assert (await process.wait()).code == 0

    run(check, bench)


def test_leads_a_session_with_its_terminal(bench: Bench) -> None:
    async def check(bench: Bench) -> None:
        async with bench.running(ProcessSpec(("sleep", "60"))) as container:
            outcome = await bench.inside(container, "sh", "-c", "read -r line </proc/$$/stat; echo $line")
            pid, _, _, parent, group, session, terminal = outcome.out.split()[:7]
            assert parent == "0", outcome
            assert pid == group == session, outcome
            assert terminal == "0", outcome
            spec = ProcessSpec(("sh", "-c", "read -r line </proc/$$/stat; echo $line"), tty=True)
            async with container.exec(spec, None) as process:
                console = process.console
                assert console is not None
                await process.wait()
                pid, _, _, _, group, session, terminal, front = os.read(console, 4096).split()[:8]
            assert pid == group == session == front
            assert terminal != b"0"

    run(check, bench)


@pytest.mark.parametrize("limit", [1, 2])
def test_gets_into_a_container_that_is_full(bench: Bench, limit: int) -> None:
    """As it has always been: the limit on processes is for those inside."""

    async def check(bench: Bench) -> None:
        isolation = Isolation("x", resources=Resources(pids=limit))
        async with bench.running(ProcessSpec(("sleep", "60")), isolation=isolation) as container:
            outcome = await bench.inside(container, "cat", "/proc/self/cgroup")
            assert outcome.status.code == 0, outcome
            assert outcome.out.count(f"/{bench.container}") or "0::/" in outcome.out
            async with container.exec(ProcessSpec(("sleep", "60")), Stdio(0, 1, 2)):
                assert container.stats()["pids"] == 2

    run(check, bench)


def test_a_cancelled_exec_leaves_neither_step_behind(bench: Bench) -> None:
    chance = random.Random(0)
    reached = []
    others = _children()

    async def check(bench: Bench) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        async with bench.running(ProcessSpec(("sleep", "60"))) as container:
            began = trio.current_time()
            await bench.inside(container, "true")
            whole = trio.current_time() - began  # on this machine, at this hour
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(80):
                with trio.move_on_after(chance.uniform(0, 2 * whole)):
                    async with container.exec(ProcessSpec(("sleep", "60")), Stdio(null, null, null)):
                        reached.append(True)
                        await trio.sleep_forever()
                assert container.stats()["pids"] == 1
                assert len(os.listdir("/proc/self/fd")) == before
            children = _children(*others)
            assert str(container.pid) in children
            assert len(children) == 1
        os.close(null)

    run(check, bench)
    assert reached


def test_a_child_that_is_killed_before_it_could_tell_leaves_no_copy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor doesn't listen, the child has made its copy: then it is given up."""

    async def deaf(self: Starting) -> None:
        await trio.lowlevel.wait_readable(self.child.pidfd)  # it has made its copy, and is gone
        raise Conflict("given up")

    others = _children()

    async def check(bench: Bench) -> None:
        async with bench.running(ProcessSpec(("sleep", "60"))) as container:
            for lost in (False, True):
                with monkeypatch.context() as patch:
                    patch.setattr(Starting, "_listen", deaf)
                    if lost:  # as if the record had never been sent
                        patch.setattr(Line, "read", lambda *_: False)
                    with pytest.raises(Conflict):
                        await bench.inside(container, "true")
                assert container.stats()["pids"] == 1
                assert len(_children(*others)) == 1

    run(check, bench)


_GUEST = """
import os, sys, pathlib, trio
from scow.api import PluginContext
from scow.model.process import AdoptRequest, Isolation, ProcessSpec, Stdio
from scow_plugins.namespaces import Plugin
container, pid, directory = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
async def main():
    plugin = Plugin(PluginContext("namespaces", directory / "state", directory / "run", {}))
    request = AdoptRequest(
        "namespaces", container, Isolation("vessel"), pid, os.pidfd_open(pid), None, False, trio.sleep_forever
    )
    null = os.open("/dev/null", os.O_RDWR)
    async with plugin.adopt(request).exec(ProcessSpec(("sleep", "60")), Stdio(null, null, null)) as process:
        os.write(1, str(process.pid).encode())
        await trio.sleep_forever()
trio.run(main)
"""


def _guest(bench: Bench, pid: int) -> tuple[int, int]:
    """(another supervisor, where it says the pid of what it has let in)."""
    heard, told = os.pipe()
    args = (sys.executable, "-c", _GUEST, bench.container, str(pid), str(bench.directory))
    guest = os.posix_spawn(sys.executable, args, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, told, 1)])
    os.close(told)
    return guest, heard


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_ends_with_the_supervisor_that_let_it_in(bench: Bench) -> None:
    """Also in a container that another one keeps: the kernel forgets PR_SET_PDEATHSIG at each of the steps."""

    async def check(bench: Bench) -> None:
        async with bench.running(ProcessSpec(("sleep", "60"))) as first:
            guest, heard = _guest(bench, first.pid)
            await trio.lowlevel.wait_readable(heard)
            inside = os.pidfd_open(int(os.read(heard, 100)))
            os.close(heard)
            _kill(guest)
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(inside)
            trio.lowlevel.notify_closing(inside)
            os.close(inside)
            assert (await bench.inside(first, "true")).status.code == 0

    run(check, bench)
