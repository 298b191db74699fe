"""Requests to the launcher, byte by byte, and the launcher itself with a toy command line behind it."""

from __future__ import annotations

import _socket
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import scow
from scow import warm
from scow.standby import Standbys

KERNEL = Path(scow.__file__).parent.parent
SCRIPT = KERNEL / "bin" / "scow-python"
TOY = """
import json, os, signal, sys, time
VERSION = 1
def main(arguments):
    match arguments:
        case ["show", *rest]:
            mask = os.umask(0)
            seen = {"args": rest, "cwd": os.getcwd(), "umask": mask, "env": dict(os.environ), "ppid": os.getppid(),
                    "stdin": sys.stdin.buffer.read().decode(), "version": VERSION, "argv": sys.argv,
                    "fds": len(os.listdir("/proc/self/fd")), "nice": os.nice(0),
                    "ignored": [s for s in range(1, 32) if signal.getsignal(s) == signal.SIG_IGN]}
            print(json.dumps(seen))
            return 0
        case ["exit", code]:
            return int(code)
        case ["sys-exit", text]:
            sys.exit(text)
        case ["count", path]:
            with open(path, "a") as file:
                file.write("x")
            return 43
        case ["orphan"]:
            if os.fork() == 0:
                child = os.fork()
                if child == 0:
                    os.closerange(0, 3)
                    time.sleep(0.3)
                    os._exit(0)
                print(child, flush=True)
                os._exit(0)
            os.wait()
        case ["raise"]:
            raise KeyError("bug")
        case ["wait"]:
            signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"usr1\\n"))
            try:
                os.write(1, f"{os.getpid()}\\n".encode())
                time.sleep(30)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                return 7
        case ["sleep", seconds]:
            print(os.getpid(), flush=True)
            time.sleep(float(seconds))
            return 9
    return 0
"""


def pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)


@pytest.mark.parametrize("fields", [[b"cli"], [b"", b""], [b"cli", b"x" * 500_000, "é".encode(), b"\xff"]])
def test_requests(fields: list[bytes]) -> None:
    ours, theirs = pair()
    null = os.open("/dev/null", os.O_RDONLY)
    sender = threading.Thread(target=warm.send, args=(ours, fields, [null, null]))
    sender.start()
    got, descriptors = warm.receive(theirs)
    sender.join()
    assert got == fields
    assert len(descriptors) == 2
    for fd in (null, *descriptors):
        assert os.fstat(fd).st_rdev == os.stat("/dev/null").st_rdev
        os.close(fd)
    ours.close()
    theirs.close()


def test_a_request_that_is_cut_leaves_no_descriptors() -> None:
    count = len(os.listdir("/proc/self/fd"))
    ours, theirs = pair()
    theirs.settimeout(0.05)
    message = (100).to_bytes(4, "little") + b"x"
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, (1).to_bytes(4, "little"))]
    ours.sendmsg([message], rights)
    with pytest.raises(TimeoutError):
        warm.receive(theirs)
    ours.sendmsg([message], rights)
    ours.close()
    with pytest.raises(EOFError):
        warm.receive(theirs)
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) == count


def test_socket_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCOW_RUN", "relative")
    assert warm.socket_path().startswith(f"{tmp_path}/relative/launcher-")
    monkeypatch.delenv("SCOW_RUN")
    assert warm.socket_path().startswith("/run/scow/launcher-")
    assert warm.connect(str(tmp_path / "nobody")) is None
    assert warm.connect(str(tmp_path / ("x" * 150))) is None
    assert warm.connect(str(tmp_path / "missing" / ("x" * 150))) is None


def test_no_process_to_be_had() -> None:
    """Nothing of the one that could not be made is left, and the next try is like the first."""

    def fork(body: Any) -> int:
        raise BlockingIOError("no more processes")

    standbys = Standbys(fork, lambda *_: None)
    before = os.listdir("/proc/self/fd")
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            standbys.make(b"cli")
    assert os.listdir("/proc/self/fd") == before
    assert standbys.missing() == [b"cli", b"supervise"]


class Place:
    """A run directory with a toy command line, for a launcher of its own."""

    def __init__(self, folder: Path, idle: float = 20) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.run = folder / "run"
        info = self.site / "toycli-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "entry_points.txt").write_text("[scow.frontend]\ncli = toy_scow_cli:main\n")
        self.module = self.site / "toy_scow_cli.py"
        self.module.write_text(TOY)
        path = os.pathsep.join([str(self.site), str(KERNEL), *(entry for entry in sys.path if entry)])
        keep = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.env = {**keep, "PYTHONPATH": path, "SCOW_RUN": str(self.run), "SCOW_WARM_IDLE": str(idle), "MARK": "1"}

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE, **options}
        return subprocess.Popen([sys.executable, SCRIPT, *arguments], text=True, env=self.env, **options)

    def scow(self, *arguments: str, text: str = "", **options: Any) -> tuple[int, str, str]:
        process = self.popen(*arguments, **options)
        out, err = process.communicate(text, timeout=20)
        return process.returncode, out, err

    def show(self, *arguments: str, **options: Any) -> dict[str, Any]:
        code, out, err = self.scow("show", *arguments, **options)
        assert (code, err) == (0, "")
        return dict(json.loads(out))

    @property
    def socket(self) -> str:
        # The script's interpreter looks for modules elsewhere than this one: it has a launcher of its own.
        found = self.run.glob("launcher-*.sock") if self.run.is_dir() else ()
        return next(map(str, found), str(self.run / "launcher-none.sock"))

    def launcher(self) -> int | None:
        """Its PID (unix(7), SO_PEERCRED)."""
        connection = warm.connect(self.socket)
        if connection is None:
            return None
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        connection.close()
        return int(struct.unpack("iII", data)[0])

    def quit(self) -> None:
        pid = self.launcher()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            gone(pid)


def gone(pid: int, seconds: float = 10) -> None:
    """Wait until a process that is not our child has ended."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("warm"))
    yield made
    made.quit()
    assert not list(made.run.iterdir())


@pytest.mark.root
class TestLauncher:
    """One launcher for all of these."""

    def test_the_command_s_surroundings(self, place: Place, tmp_path: Path) -> None:
        seen = place.show("a", "", "é", "--x=1", text="input", cwd=tmp_path, umask=0o027)
        assert (seen["args"], seen["argv"]) == (["a", "", "é", "--x=1"], ["scow", "show", "a", "", "é", "--x=1"])
        assert (seen["cwd"], seen["umask"], seen["stdin"]) == (str(tmp_path), 0o027, "input")
        assert {key: seen["env"].get(key) for key in place.env} == place.env
        assert seen["ppid"] == place.launcher()
        assert seen["ignored"] == [signal.SIGPIPE, signal.SIGXFSZ]  # Python's own

    def test_nothing_of_one_command_is_seen_by_the_next(self, place: Place) -> None:
        place.env["SECRET"] = "x"
        assert "SECRET" in place.show()["env"]
        del place.env["SECRET"]
        first, second = place.show(), place.show()
        assert "SECRET" not in first["env"]
        assert first["fds"] == second["fds"]

    def test_it_is_as_nice_as_its_caller(self, place: Place) -> None:
        """Whether a child on standby does the work or a new one."""
        own = os.nice(0)
        for more in (3, 0, 5, 0):
            assert place.show(preexec_fn=lambda more=more: os.nice(more))["nice"] == own + more
            time.sleep(0.1 if more else 0)

    @pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
    def test_exit_codes(self, place: Place, code: int) -> None:
        assert place.scow("exit", str(code)) == (code, "", "")

    def test_a_quick_command_runs_once(self, place: Place, tmp_path: Path) -> None:
        """43 is the byte that says "taken": it must not be taken for the answer, nor the answer for it."""
        for _ in range(15):
            assert place.scow("count", str(tmp_path / "count")) == (43, "", "")
            time.sleep(0.05)  # as long as a child on standby needs to get ready
        assert len((tmp_path / "count").read_text()) == 15

    def test_other_ends(self, place: Place) -> None:
        assert place.scow("sys-exit", "text") == (1, "", "text\n")
        code, _, err = place.scow("raise")
        assert code == 1
        assert "KeyError" in err

    def test_closed_descriptors(self, place: Place) -> None:
        for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            done = subprocess.run(
                ["/bin/sh", "-c", f'exec "$0" "$1" exit 4 {closed}', sys.executable, SCRIPT], env=place.env, check=False
            )
            assert done.returncode == 4

    def test_signals(self, place: Place) -> None:
        process = place.popen("wait")
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert worker != process.pid
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "usr1\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=5)[0] == "interrupted\n"
        assert process.returncode == 7

    def test_a_signal_at_once(self, place: Place) -> None:
        """Whenever it comes, it ends the command, and no traceback is seen."""
        for delay in (0.02, 0.03, 0.04, 0.06):
            process = place.popen("wait")
            time.sleep(delay)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=5)
            assert (process.returncode, err) == (-signal.SIGTERM, "")
            if out:
                gone(int(out))

    def test_a_worker_that_is_killed(self, place: Place) -> None:
        process = place.popen("wait")
        assert process.stdout is not None
        os.kill(int(process.stdout.readline()), signal.SIGKILL)
        _, err = process.communicate(timeout=5)
        assert (process.returncode, err) == (125, "scow: the command's process was killed\n")

    def test_orphans_are_the_launcher_s(self, place: Place) -> None:
        """Whatever process 1 is, they are collected."""
        orphan = int(place.scow("orphan")[1])
        assert int(Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1]) == place.launcher()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{orphan}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_nonsense_on_the_socket(self, place: Place) -> None:
        pid = place.launcher()
        for data in (b"", b"\0", b"\xff" * 4, b"\0\0\0\0", b"\3\0\0\0cli", b"\4\0\0\0quip", b"\x09\0\0\0supervise"):
            connection = warm.connect(place.socket)
            assert connection is not None
            connection.sendall(data)
            connection.close()
        assert place.show()["ppid"] == pid

    def test_stale_code(self, place: Place) -> None:
        old = place.launcher()
        assert old is not None
        place.module.write_text(TOY.replace("VERSION = 1", "VERSION = 2"))
        assert place.show()["version"] == 2
        gone(old)
        new = place.launcher()
        assert new not in (old, None)
        (place.site / "other-1.dist-info").mkdir()  # something was installed
        assert place.show()["ppid"] not in (old, new)

    def test_the_launcher_is_killed_in_mid_command(self, place: Place) -> None:
        process = place.popen("sleep", "0.3")
        assert process.stdout is not None
        process.stdout.readline()
        pid = place.launcher()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=5)
        assert process.returncode == 9
        assert place.scow("exit", "5")[0] == 5

    def test_without(self, place: Place) -> None:
        place.env["SCOW_WARM"] = "0"
        try:
            seen = place.show("x")
            assert seen["ppid"] == os.getpid()
            assert place.scow("exit", "6")[0] == 6
        finally:
            del place.env["SCOW_WARM"]


@pytest.mark.root
def test_two_at_once_and_idle(tmp_path: Path) -> None:
    """Several commands start a launcher at the same moment: one stays, serves all, and leaves nothing."""
    place = Place(tmp_path / ("long" * 30), idle=2)
    commands = [place.popen("show") for _ in range(2)]
    seen = [json.loads(command.communicate("", timeout=20)[0]) for command in commands]
    (pid,) = {each["ppid"] for each in seen}
    gone(pid)
    assert list(place.run.iterdir()) == []


@pytest.mark.root
def test_leaving_and_coming_at_the_same_moment(tmp_path: Path) -> None:
    """No command waits long, or fails, because the launcher is just about to leave."""
    place = Place(tmp_path, idle=0.05)
    for _ in range(2):
        start = time.monotonic()
        assert place.scow("exit", "3")[0] == 3
        assert time.monotonic() - start < 6
        time.sleep(0.03)
    place.quit()
