"""Checks of runtimes: resources, freezing, cancellation, and what is left when the supervisor dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NoReturn

import trio

from scow.errors import Denied, Invalid
from scow.model.process import Isolation, ProcessSpec, Resources, Ulimit
from scow.testing.execs import Bench

__all__ = ["CHECKS"]


async def check_memory_is_limited(bench: Bench) -> None:
    """Too much memory is the end, and said to be why."""
    isolation = Isolation("x", resources=Resources(memory=16 << 20))
    outcome = await bench.run("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", isolation=isolation)
    assert outcome.status.oom_killed, outcome
    assert outcome.status.exit_code == 137, outcome
    assert bench.leftovers() == []


async def check_processes_are_limited(bench: Bench) -> None:
    """fork(2) fails beyond the limit."""
    isolation = Isolation("x", resources=Resources(pids=4))
    outcome = await bench.shell("for i in 1 2 3 4 5 6; do sleep 1 & done", isolation)
    assert "fork" in outcome.err, outcome
    assert bench.leftovers() == []


async def check_processors_are_limited(bench: Bench) -> None:
    """Quota and shares arrive where the container can read them."""
    isolation = Isolation("x", resources=Resources(cpus=0.5, cpu_shares=512, cpuset_cpus="0"))
    files = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.max"
    outcome = await bench.shell(f"cat {files} 2>/dev/null; grep Cpus_allowed_list /proc/self/status", isolation)
    assert outcome.out.startswith(("50000\n512\n", "50000 100000\n")), outcome
    assert outcome.out.endswith("\t0\n"), outcome
    try:
        await bench.shell("true", Isolation("x", resources=Resources(cpuset_cpus="4000")))
    except Invalid:
        pass
    else:
        raise AssertionError("a processor that isn't there")
    assert bench.leftovers() == []


async def check_single_processes_are_limited(bench: Bench) -> None:
    """Limits of setrlimit(2), also for those that get in later; what isn't named stays as it is."""
    limits = (Ulimit("nofile", 64, 128), Ulimit("core", 0, 0))
    isolation = Isolation("x", resources=Resources(ulimits=limits))
    script = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -s"
    outcome = await bench.shell(script, isolation)
    assert outcome.out.split()[:3] == ["64", "128", "0"], outcome
    assert outcome.out.split()[3] == (await bench.shell("ulimit -s")).out.strip(), outcome
    async with bench.running(ProcessSpec(("sleep", "60")), isolation=isolation) as container:
        outcome = await bench.inside(container, "sh", "-c", "ulimit -Hn")
        assert outcome.out == "128\n", outcome
    for wrong in (Ulimit("nofile", 9, 8), Ulimit("nofile", -1, 8), Ulimit("files", 1, 1)):
        try:
            await bench.run("true", isolation=Isolation("x", resources=Resources(ulimits=(wrong,))))
        except Invalid:
            continue
        raise AssertionError(wrong)
    try:  # nobody may have more than this
        await bench.run("true", isolation=Isolation("x", resources=Resources(ulimits=(Ulimit("nofile", -1, -1),))))
    except Denied as error:
        assert "nofile=-1:-1" in error.message, error
    else:
        raise AssertionError("more files than there can be")
    assert bench.leftovers() == []


async def check_other_parents(bench: Bench) -> None:
    """A control group of one's choice above the container's; made if need be, and then gone with the last one."""
    above = f"/scow-check-{os.getpid()}"
    isolation = Isolation("x", resources=Resources(memory=64 << 20, cgroup_parent=f"{above[1:]}/inner"))
    async with bench.running(ProcessSpec(("sleep", "60")), isolation=isolation) as container:
        assert f":{above}/inner/" in Path(f"/proc/{container.pid}/cgroup").read_text()
        async with bench.running(ProcessSpec(("sleep", "60")), isolation=isolation, container="other") as other:
            assert f":{above}/inner/" in Path(f"/proc/{other.pid}/cgroup").read_text()
        assert f":{above}/inner/" in Path(f"/proc/{container.pid}/cgroup").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"**{above}"))
    for parent in ("../x", "a/../../x", "a\0b"):
        try:
            await bench.run("true", isolation=Isolation("x", resources=Resources(cgroup_parent=parent)))
        except Invalid:
            continue
        raise AssertionError(parent)
    assert bench.leftovers() == []


async def check_freezes_and_counts(bench: Bench) -> None:
    """pause stops every process, resume lets them go on, a frozen one can be killed; stats are numbers."""
    with open(bench.directory / "ticks", "w+b") as ticks, open(os.devnull) as null:
        script = "while :; do echo; sleep 0.005; done"
        async with bench.running(
            ProcessSpec(("sh", "-c", script)), bench.stdio(null.fileno(), ticks.fileno())
        ) as container:
            await trio.sleep(0.1)
            container.pause()
            await trio.sleep(0.02)
            frozen = os.fstat(ticks.fileno()).st_size
            assert frozen > 0
            await trio.sleep(0.1)
            assert os.fstat(ticks.fileno()).st_size == frozen
            container.resume()
            await trio.sleep(0.1)
            assert os.fstat(ticks.fileno()).st_size > frozen
            stats = container.stats()
            assert stats["pids"] >= 1, stats
            assert stats["memory_bytes"] > 0, stats
            assert stats["cpu_ns"] > 0, stats
            container.pause()
    assert bench.leftovers() == []


async def check_a_paused_container_ends(bench: Bench) -> None:
    """Left while it is paused, it and what runs inside end at once; so does a group that was frozen from inside."""
    with open(os.devnull, "r+b") as null:
        sleep, stdio = ProcessSpec(("sleep", "60")), bench.stdio(null.fileno())
        with trio.fail_after(8):
            async with bench.running(sleep) as container, container.exec(sleep, stdio):
                container.pause()
        script = (
            "cd /sys/fs/cgroup; [ -d freezer ] && cd freezer; mkdir in && { sleep 60 & } && echo $! > in/cgroup.procs"
        )
        script += "; echo FROZEN > in/freezer.state || echo 1 > in/cgroup.freeze; sleep 60"
        with trio.fail_after(8):
            async with bench.running(ProcessSpec(("sh", "-c", script)), isolation=Isolation("x", privileged=True)):
                await trio.sleep(0.3)
    assert bench.leftovers() == []


async def check_signals_reach_everyone(bench: Bench) -> None:
    """`everyone` is every process of the container."""
    script = "sh -c 'trap \"exit 0\" USR1; while :; do sleep 0.01; done' & wait; echo child ended"
    with open(bench.directory / "out", "w+b") as out, open(os.devnull) as null:
        async with bench.running(
            ProcessSpec(("sh", "-c", script)), bench.stdio(null.fileno(), out.fileno())
        ) as container:
            await trio.sleep(0.2)
            container.signal(signal.SIGUSR1, everyone=True)
            assert (await container.wait()).code == 0
    assert (bench.directory / "out").read_text().endswith("child ended\n")


async def check_nothing_leaks(bench: Bench) -> None:
    """Descriptors of the supervisor's after many containers are those from before."""
    await bench.run("true")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await bench.run("true")
        try:
            await bench.run("nosuch")
        except Exception as error:  # noqa: BLE001 - which one is another check's business
            del error
    assert sorted(os.listdir("/proc/self/fd")) == before
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(bench.directory) not in mounts


async def check_several_at_a_time(bench: Bench) -> None:
    """Containers that come and go together don't disturb each other."""

    async def one(number: int) -> None:
        for _ in range(3):
            async with bench.running(ProcessSpec(("true",)), container=f"{bench.container}{number}") as container:
                assert (await container.wait()).code == 0

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(one, number)
    assert bench.leftovers() == []


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope, self._left = scope, step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


async def check_a_cancelled_start_leaves_nothing(bench: Bench) -> None:
    """Cancelled at every scheduling step, until a run gets through untouched."""
    for step in range(1, 100):
        with trio.CancelScope() as scope:
            instrument = _CancelAtStep(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with bench.running(ProcessSpec(("sleep", "0.001"))) as container:
                    await container.wait()
                scope.shield = True
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert bench.leftovers() == [], step
        if not scope.cancelled_caught:
            return
    raise AssertionError("never got through")


def check_a_killed_supervisor_takes_its_container_along(bench: Bench) -> None:
    """kill -9 of the supervisor: the container dies, and `reclaim` finds what is left and may be called again."""
    heard, told = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        _supervise(bench, told)
    os.close(told)
    said = os.read(heard, 1000).decode()
    os.close(heard)
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    pid, _, group = said.partition(" ")
    assert pid.isdigit(), said
    end = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < end:
        time.sleep(0.005)
    assert not _lives(pid), "it outlived its supervisor"
    plugin = bench.maker.make()
    for _ in range(2):
        getattr(plugin, "reclaim")({"cgroup": group})  # noqa: B009 - optional in the protocol
    assert bench.leftovers() == []


def _lives(pid: str) -> bool:
    """A zombie doesn't: it waits for the machine's first process to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _supervise(bench: Bench, told: int) -> NoReturn:
    """The supervisor that will be killed."""

    async def main() -> None:
        async with bench.running(ProcessSpec(("sh", "-c", "sleep 1000 & sleep 1000"))) as container:
            handle = next(iter(bench.journal.held.values()))
            os.write(told, f"{container.pid} {handle['cgroup']}".encode())
            await container.wait()

    try:
        trio.run(main)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the other side must hear it
        os.write(told, repr(error).encode())
    finally:
        os._exit(1)


CHECKS = tuple(check for name, check in sorted(globals().items()) if name.startswith("check_"))
