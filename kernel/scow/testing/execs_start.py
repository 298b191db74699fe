"""Checks of runtimes: how a command starts, runs and ends, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio

from scow.errors import Conflict, Invalid, NoCommand, NotExecutable, NotFound, ScowError
from scow.model.process import Isolation, ProcessSpec, Resources
from scow.testing.execs import Bench

__all__ = ["CHECKS"]


async def check_declines_what_is_not_its_own(bench: Bench) -> None:
    """A request for another driver is answered with None."""
    request = bench.request(-1, ProcessSpec(("true",)), None, driver="another-driver")
    assert bench.maker.make().exec(request) is None


async def check_gives_output_and_exit_code(bench: Bench) -> None:
    """0, 7 and 255 come back as they are; output goes where it should."""
    for code in (0, 7, 255):
        outcome = await bench.shell(f"echo out; echo err >&2; exit {code}")
        assert (outcome.status.exit_code, outcome.out, outcome.err) == (code, "out\n", "err\n"), outcome
    assert bench.leftovers() == []


async def check_gives_the_signal_that_ended_it(bench: Bench) -> None:
    """A stop by signal reaches a handler; SIGKILL is seen as the end, 137 for a shell."""
    async with bench.running(ProcessSpec(("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.01; done"))) as process:
        await trio.sleep(0.1)
        process.signal(signal.SIGTERM)
        assert (await process.wait()).code == 9
    async with bench.running(ProcessSpec(("sleep", "60"))) as process:
        process.signal(signal.SIGTERM)  # has no handler: the first process of a PID namespace doesn't get it
        process.signal(signal.SIGKILL)
        assert (await process.wait()).exit_code == 137
        process.signal(signal.SIGKILL)  # no error
        process.signal(signal.SIGTERM, everyone=True)
        try:
            process.signal(1000)
        except Invalid:
            pass
        else:
            raise AssertionError("sent signal 1000")
    assert bench.leftovers() == []


async def check_several_tasks_may_wait(bench: Bench) -> None:
    """All of them get the status, before and after the end; one that is cancelled doesn't disturb the others."""
    seen = []
    async with bench.running(ProcessSpec(("sh", "-c", "sleep 0.1; exit 3"))) as process, trio.open_nursery() as nursery:

        async def wait() -> None:
            seen.append((await process.wait()).code)

        with trio.move_on_after(0.01):
            await process.wait()
        for _ in range(3):
            nursery.start_soon(wait)
        await wait()
        await wait()
    assert seen == [3] * 5


async def check_says_why_a_command_does_not_start(bench: Bench) -> None:
    """127 for what isn't there, 126 for what can't be executed; the message names it."""
    (bench.root / "bin/plain").write_text("echo hello\n")
    (bench.root / "bin/orphan").write_text("#!/no/such/interpreter\n")
    (bench.root / "bin/orphan").chmod(0o755)
    (bench.root / "bin/garbage").write_bytes(b"\x7fELF garbage")
    (bench.root / "bin/garbage").chmod(0o755)
    expected: dict[str, tuple[type[ScowError], str]] = {
        "nosuch": (NoCommand, 'exec: "nosuch": executable file not found in $PATH'),
        "/bin/nosuch": (NoCommand, "no such file or directory"),
        "/bin/orphan": (NoCommand, "no such file or directory"),
        "plain": (NotExecutable, "permission denied"),
        "/bin/plain": (NotExecutable, "permission denied"),
        "/etc": (NotExecutable, "is a directory"),
        "/bin/garbage": (NotExecutable, "exec format error"),
    }
    for command, (kind, words) in expected.items():
        try:
            await bench.run(command)
        except ScowError as error:
            assert type(error) is kind, (command, error)
            assert command in str(error), (command, error)
            assert words in str(error), (command, error)
        else:
            raise AssertionError(command)
        assert bench.leftovers() == [], command


async def check_finds_the_user_in_the_image(bench: Bench) -> None:
    """Names and numbers, groups and HOME by the image's own files; an unknown name is NotFound."""
    script = "id -u; id -g; id -G; echo $HOME; pwd"
    expected = {
        "": ("0", "0", "0", "/root"),
        "boat": ("1000", "1000", "1000 2000", "/home/boat"),
        "1000": ("1000", "1000", "1000 2000", "/home/boat"),
        "boat:harbour": ("1000", "3000", "3000", "/home/boat"),
        "77:88": ("77", "88", "88", "/"),
        "77": ("77", "0", "0", "/"),
    }
    for user, answer in expected.items():
        outcome = await bench.shell(script, user=user)
        assert tuple(outcome.out.split("\n")[:4]) == answer, (user, outcome)
    outcome = await bench.shell("id -G", user="boat", groups=("harbour", "4000"))
    assert set(outcome.out.split()) == {"1000", "2000", "3000", "4000"}, outcome
    for user in ("nobody-here", "boat:nowhere"):
        try:
            await bench.run("true", user=user)
        except NotFound as error:
            assert "no matching entries in" in str(error)
        else:
            raise AssertionError(user)


async def check_survives_a_hostile_passwd(bench: Bench) -> None:
    """A FIFO, a link out of the image or a loop in place of /etc/passwd neither hangs nor leads to the host's file."""
    passwd = bench.root / "etc/passwd"
    for target in (None, "passwd", "/../../../../../../../../etc/shadow", "/proc/self/root/etc/passwd", "/etc"):
        passwd.unlink()
        if target is None:
            os.mkfifo(passwd)
        else:
            passwd.symlink_to(target)
        with trio.fail_after(5):
            assert (await bench.run("true")).status.code == 0
            try:
                await bench.run("true", user="daemon")
            except NotFound:
                pass
            else:
                raise AssertionError("a user of the host's was found")


async def check_environment_is_what_was_given(bench: Bench) -> None:
    """Nothing of the host's, and Docker's defaults for PATH and HOME."""
    outcome = await bench.run("env", env=("A=1", "B=x=y", "A=2"))
    found = set(outcome.out.split("\n")) - {""}
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert found == {"A=2", "B=x=y", "HOME=/root", path}, outcome
    outcome = await bench.run("/bin/env", env=("PATH=/elsewhere", "HOME=/h"))
    assert set(outcome.out.split()) == {"PATH=/elsewhere", "HOME=/h"}, outcome


async def check_makes_the_working_directory(bench: Bench) -> None:
    """A missing one is made beneath the root, through links as the container sees them; a file is refused."""
    victim = bench.directory / "victim"
    victim.mkdir()
    (bench.root / "out").symlink_to(victim)
    (bench.root / "file").write_text("")
    outcome = await bench.run("pwd", cwd="/a/b/c")
    assert outcome.out == "/a/b/c\n", outcome
    outcome = await bench.run("pwd", cwd="/out/deep")
    assert outcome.status.code == 0, outcome
    assert list(victim.iterdir()) == []
    assert (bench.root / str(victim).lstrip("/") / "deep").is_dir()
    for bad in ("/file", "relative"):
        try:
            await bench.run("pwd", cwd=bad)
        except ScowError:
            pass
        else:
            raise AssertionError(bad)
    assert bench.leftovers() == []


async def check_refuses_what_can_not_be(bench: Bench) -> None:
    """A request that is wrong is Invalid before anything is done."""
    for process, isolation in (
        (ProcessSpec(()), Isolation("x")),
        (ProcessSpec(("a\0b",)), Isolation("x")),
        (ProcessSpec(("true",)), Isolation("x", cap_add=("NO_SUCH",))),
        (ProcessSpec(("true",)), Isolation("x", resources=Resources(memory=4096))),
        (ProcessSpec(("true",)), Isolation("x", sysctls=(("kernel.panic", "1"),))),
    ):
        try:
            async with bench.running(process, isolation=isolation):
                raise AssertionError(process, isolation)
        except Invalid:
            pass
    assert bench.journal.count == 0
    assert bench.leftovers() == []


async def check_other_commands_get_in(bench: Bench) -> None:
    """exec: same namespaces, same limits, its own user and exit code; errors as for the first; nothing stays."""
    async with bench.running(ProcessSpec(("sleep", "60"))) as container:
        kinds = ("pid", "mnt", "uts", "ipc", "cgroup", "net")
        names = " ".join(f"/proc/1/ns/{kind} /proc/self/ns/{kind}" for kind in kinds)
        outcome = await bench.inside(container, "sh", "-c", f"for n in {names}; do readlink $n; done; exit 5")
        lines = outcome.out.split()
        assert outcome.status.code == 5, outcome
        assert len(lines) == 12, outcome
        assert lines[0::2] == lines[1::2], outcome
        assert (await bench.inside(container, "hostname")).out == "vessel\n"
        assert (await bench.inside(container, "id", "-u", user="boat")).out == "1000\n"
        assert (await bench.inside(container, "pwd", cwd="/tmp")).out == "/tmp\n"
        limits = await bench.inside(container, "grep", "-E", "CapEff|Seccomp:|SigIgn|SigBlk", "/proc/self/status")
        first = await bench.inside(container, "grep", "-E", "CapEff|Seccomp:|SigIgn|SigBlk", "/proc/1/status")
        assert limits.out == first.out, (limits, first)
        groups = await bench.inside(container, "cat", "/proc/self/cgroup")
        assert {line.split(":", 2)[2] for line in groups.out.split()} == {"/"}, groups
        for args, cwd, kind in (
            (("nosuch",), "/", NoCommand),
            (("/etc",), "/", NotExecutable),
            (("true",), "/nosuch", NotExecutable),
        ):
            try:
                await bench.inside(container, *args, cwd=cwd)
            except kind:
                pass
            else:
                raise AssertionError(args, cwd)
        assert (await bench.inside(container, "sh", "-c", "echo /proc/[0-9]*")).out.count("/proc/") == 2
    assert bench.leftovers() == []


async def check_leaving_exec_ends_it(bench: Bench) -> None:
    """A command that goes on when its context is left is killed; and none gets in after the container's end."""
    async with bench.running(ProcessSpec(("sh", "-c", "sleep 60"))) as container:
        with open(os.devnull) as null:
            stdio = bench.stdio(null.fileno())
            async with container.exec(ProcessSpec(("sleep", "60")), stdio) as process:
                pid = process.pid
                assert Path(f"/proc/{pid}").exists()
            assert not Path(f"/proc/{pid}").exists()
            container.signal(signal.SIGKILL, everyone=True)
            await container.wait()
            try:
                async with container.exec(ProcessSpec(("true",)), stdio):
                    raise AssertionError("got into a container that has ended")
            except Conflict:
                pass
    assert bench.leftovers() == []


CHECKS = tuple(check for name, check in sorted(globals().items()) if name.startswith("check_"))
