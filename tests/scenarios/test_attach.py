"""Clients of a running container: none, one, many, leaving in any order and in any way."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .conftest import Scow
from .machine import eventually

DETACH = b"\x10\x11"


@pytest.fixture
def launcher() -> bool:
    """What happens here happens between supervisors and workers, however these were started."""
    return True


class Terminal:
    """A user's terminal with a command in it."""

    def __init__(self, scow: Scow, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.seen = b""
        # A session of its own with the terminal as its controlling one: closing it hangs up on the command.
        self.process = scow.start(
            *args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=_take_terminal
        )
        os.close(slave)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def shows(self, text: bytes, seconds: float = 10) -> bool:
        """Whether a text comes in time; what came up to it is forgotten."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                return False
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                return False
        self.seen = self.seen.partition(text)[2]
        return True

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(scow: Scow, *args: str) -> Iterator[Terminal]:
    made = Terminal(scow, *args)
    try:
        yield made
    finally:
        made.close()
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


def echoes(user: Terminal, word: str) -> bool:
    """Whether the container's shell answers what is typed."""
    user.type(f"echo {word[:1]}''{word[1:]}\n".encode())
    return user.shows(word.encode() + b"\r\n")


@pytest.mark.parametrize("how", ["run", "start"])
def test_detached_and_attached_again(pulled: Scow, how: str) -> None:
    """What is typed after that arrives, whoever started the container."""
    if how == "start":
        pulled("create", "-it", "--name", "box", "busybox", "sh")
    first = ("run", "-it", "--name", "box", "busybox", "sh") if how == "run" else ("start", "-ai", "box")
    with terminal(pulled, *first) as user:
        assert echoes(user, "one")
        user.type(DETACH)
        assert user.process.wait(10) == 0
    for word in ("two", "three"):
        with terminal(pulled, "attach", "box") as user:
            assert echoes(user, word)
            user.type(DETACH)
            assert user.process.wait(10) == 0
    with terminal(pulled, "attach", "box") as user:
        user.type(b"exit 6\n")
        assert user.process.wait(10) == 6


@pytest.mark.parametrize("end", ["hangup", "kill", "terminate"])
def test_one_of_several_terminals_goes(pulled: Scow, end: str) -> None:
    """It ends, and the others have all that they had."""
    pulled("run", "-dit", "--name", "box", "busybox", "sh")
    with terminal(pulled, "attach", "box") as first, terminal(pulled, "attach", "box") as second:
        # An answer to either shows that both are connected.
        assert echoes(first, "one")
        assert echoes(second, "two")
        assert first.shows(b"two\r\n")
        assert echoes(first, "both")
        assert second.shows(b"both\r\n")
        if end == "hangup":
            second.close()
        else:
            second.process.send_signal(signal.SIGKILL if end == "kill" else signal.SIGTERM)
        assert second.process.wait(10) != 0
        assert echoes(first, "three")
        with terminal(pulled, "attach", "box") as third:
            assert echoes(third, "four")
            assert first.shows(b"four\r\n")
            first.type(DETACH)
            assert first.process.wait(10) == 0
            assert echoes(third, "five")
    # The last one was killed; the container runs on without anybody.
    assert eventually(lambda: "Up" in pulled("ps"))
    pulled("rm", "-f", "box")


def test_input_that_is_for_one_client_ends_with_it(pulled: Scow) -> None:
    """`run -i` and `create -i`: standard input is the first client's (Docker's StdinOnce), `run -di`'s everybody's."""
    reads = ("busybox", "sh", "-c", "cat; echo over; sleep 1000")
    pulled("run", "-di", "--name", "all", *reads)
    for word in (b"one\n", b"two\n"):
        client = pulled.start("attach", "--sig-proxy=false", "all", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert client.stdin is not None
        client.stdin.write(word)
        client.stdin.close()
        assert eventually(lambda word=word: word.decode() in pulled("logs", "all"))
        client.terminate()
        client.wait(10)
    assert pulled("logs", "all") == "one\ntwo\n"
    assert pulled("inspect", "-f", "{{.Config.OpenStdin}} {{.Config.StdinOnce}}", "all") == "true false\n"
    for name, killed in (("ended", False), ("killed", True)):
        pulled("create", "-i", "--name", name, *reads)
        assert pulled("inspect", "-f", "{{.Config.StdinOnce}}", name) == "true\n"
        client = pulled.start("start", "-ai", name, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert client.stdin is not None
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert eventually(lambda name=name: "one\n" in pulled("logs", name))
        if killed:
            client.kill()
        else:
            client.stdin.close()
        assert eventually(lambda name=name: "over\n" in pulled("logs", name))
        client.kill()
        client.wait(10)
        if client.stdin and not client.stdin.closed:
            client.stdin.close()
    pulled("rm", "-f", "all", "ended", "killed")


def test_three_times_ctrl_c_leave(pulled: Scow) -> None:
    """A process that doesn't mind gets them; then the user is let go, and the process stays."""
    script = "trap 'echo got' INT; echo ready; while :; do sleep 0.1; done"
    client = pulled.start(
        "run", "--name", "box", "busybox", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert eventually(lambda: "ready" in pulled.try_("logs", "box").stdout.decode())
    for count in (1, 2):
        client.send_signal(signal.SIGINT)
        assert eventually(lambda count=count: pulled("logs", "box").count("got") == count)
        assert client.poll() is None
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=10)
    assert client.returncode == 1
    assert b"got 3 SIGTERM/SIGINTs, forcefully exiting" in errors
    assert "Up" in pulled("ps")
    pulled("rm", "-f", "box")


def test_ctrl_c_while_the_launcher_starts(scow: Scow) -> None:
    """It ends the command at once, without a traceback, and nothing is broken."""
    run_dir = scow.run_dir
    for number, pause in enumerate((0, 0.05, 0.15, 0.3)):
        scow.run_dir = run_dir.with_name(f"run{number}")
        client = scow.start("ps", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # Made right before the launcher is looked for.
        assert eventually(scow.run_dir.exists, pause=0.001)
        time.sleep(pause)
        client.send_signal(signal.SIGINT)
        _, errors = client.communicate(timeout=20)
        assert errors == b""
        assert client.returncode in (0, 130, -signal.SIGINT)
        assert scow("ps").startswith("CONTAINER ID")
        scow.stop_launcher()
    scow.run_dir = run_dir
