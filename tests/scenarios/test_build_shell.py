"""A shell in the middle of a build: where a step failed, and before a step; on a terminal and from standard input."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from . import machine
from .conftest import Scow
from .test_build import context, launcher
from .test_build_mounts import agent

__all__ = ["agent", "context", "launcher"]

#: Seconds: nobody else sleeps as long.
LONG = 4_000_000 + os.getpid()

FAILING = """FROM busybox
ARG WHO=somebody
ENV HOME=/srv
WORKDIR /srv
USER www
RUN --mount=type=secret,id=token,mode=0444 --mount=type=ssh,mode=0666 --mount=type=cache,target=/cache,mode=0777 \\
    --mount=type=tmpfs,target=/quick --network=none \\
    echo written > /tmp/written; \\
    echo last words; exit 42
COPY Dockerfile /
"""


def files_with(root: Path, text: bytes) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_a_shell_where_a_step_failed(pulled: Scow, context: Path, agent: Path) -> None:
    (context / "Dockerfile").write_text(FAILING)
    token = context.parent / "token"
    token.write_text("the-" + "token")
    commands = b"""
cat /tmp/written; pwd; echo "$WHO $HOME"; id -un; hostname; cat /run/secrets/token; echo
test -S $SSH_AUTH_SOCK && echo agent
touch /cache/kept && grep -c -e ' /quick ' -e ' /cache ' /proc/mounts
ls /sys/class/net; cp /run/secrets/token /tmp/copied; exit 7
"""
    done = pulled.try_(
        "build", "--on-error", "shell", "--secret", f"id=token,src={token}", "--ssh", f"default={agent}", str(context),
        stdin=commands,
    )  # fmt: skip
    errors = done.stderr.decode()
    assert done.returncode == 1, errors
    assert done.stdout == b""
    said = errors.partition("the build fails when it ends]\n")[2]
    assert said.splitlines()[:9] == [
        "written", "/srv", "somebody /srv", "www", "buildkitsandbox", "the-token", "agent", "2", "lo"
    ]  # fmt: skip
    # Once before the shell, once at the end, as without it.
    assert errors.count("Dockerfile:6: process") == 2
    assert errors.count("exit code: 42") == 2
    assert not list((pulled.root / "build" / "work").glob("*"))
    assert not files_with(pulled.root, b"the-token")
    # What lasts beyond steps keeps what was done to it.
    (context / "Dockerfile").write_text("FROM busybox\nUSER www\nRUN --mount=type=cache,target=/cache ls /cache >&2\n")
    assert b"kept" in pulled.try_("build", "--progress=plain", str(context)).stderr


def test_a_shell_where_a_program_is_missing(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text('FROM busybox\nRUN ["/none", "x"]\n')
    done = pulled.try_("build", "--on-error", "shell", str(context), stdin=b"echo here $((40 + 2))\n")
    assert done.returncode == 1
    assert b"\nhere 42\n" in done.stderr
    # Without a shell there can be none, and what went wrong is still said.
    (context / "Dockerfile").write_text('FROM scratch\nRUN ["/none", "x"]\n')
    errors = pulled.fails("build", "--on-error", "shell", str(context), code=1, says="there is no shell")
    assert 'Dockerfile:2: exec: "/none"' in errors


def test_a_failure_stops_what_runs_beside_it(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox AS slow\nRUN sleep 4322\nFROM busybox\nRUN false\nCOPY --from=slow / /\n"
    )
    commands = b"for i in $(seq 50); do echo; done; echo in the shell; sleep 1\n"
    done = pulled.try_("build", "--on-error", "shell", str(context), stdin=commands, timeout=30)
    assert done.returncode == 1
    assert b"in the shell" in done.stderr


STAGES = """FROM busybox AS unused
RUN echo unused
FROM busybox AS base
ONBUILD RUN echo triggered
ARG WHO=somebody

ENV A=1
# A comment
RUN --mount=type=secret,id=token \\
    echo $A > /made <<END
text
END
COPY Dockerfile /
"""


def test_a_shell_before_a_step(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text(STAGES)
    token = context.parent / "token"
    token.write_text("the-" + "token")
    flags = ("--secret", f"id=token,src={token}")
    commands = b"cat /run/secrets/token; ls /; echo $WHO $A; echo leaked > /leaked; cp /run/secrets/token /tmp; exit 0"
    for line in ("9", "10", "12"):
        done = pulled.try_("build", "--no-cache", "--break", line, *flags, str(context), stdin=commands)
        errors = done.stderr.decode()
        assert done.returncode == 0, errors
        assert "Dockerfile:9: a shell before RUN" in errors
        assert "the-token" in errors
        assert "\nsomebody 1\n" in errors
        assert "\nmade\n" not in errors
        # What the shell has changed is in no layer; standard output has the image alone.
        image = done.stdout.decode().strip()
        there = pulled("run", "--rm", image, "sh", "-c", "ls / /tmp")
        assert "made" in there
        assert "leaked" not in there
        assert "token" not in there
    assert not files_with(pulled.root, b"the-token")
    # A step that is in the cache can be broken at, too; before ENV nothing of it is there.
    done = pulled.try_("build", "--break", "7", "--break", "13", *flags, str(context), stdin=b"echo ${A-none} $WHO\n")
    assert done.stdout.decode().strip() == image
    assert b"\nnone somebody\n" in done.stderr
    assert b"Dockerfile:13: a shell before COPY" in done.stderr
    done = pulled.try_("build", "--break", "13", *flags, str(context), stdin=b"exit 5")
    assert done.returncode == 1
    assert b"Dockerfile:13: given up before this step: the shell's exit code: 5" in done.stderr


def test_lines_without_a_step_are_refused(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text(STAGES)
    for line, code, says in (
        ("3", 2, "Dockerfile:3: FROM is no step"),
        ("8", 2, "there is no instruction on line 8"),
        ("99", 2, "there is no instruction on line 99"),
        ("2", 2, "the stage of line 2 is not built"),
        ("0", 1, "write the number of a line"),
        ("x", 1, "write the number of a line"),
    ):
        pulled.fails("build", "--break", line, str(context), code=code, says=says)
    pulled.fails("build", "--on-error", "bash", str(context), code=1, says="write shell")
    pulled.fails("build", "--on-error", "shell", "-", code=1, says="needs standard input")
    pulled.fails("build", "--break", "3", "-f", "-", str(context), code=1, says="needs standard input")
    pulled.fails("build", "--break", "3", "--progress", "rawjson", str(context), code=1, says="exclude each other")


class Terminal:
    """A terminal with a build on it."""

    def __init__(self, scow: Scow, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        environment = {**scow.environment(), "TERM": "xterm"}
        self.process = subprocess.Popen(
            scow.command(*args), stdin=slave, stdout=subprocess.PIPE, stderr=slave, env=environment
        )
        self.seen = b""

    def until(self, text: bytes) -> None:
        """Read until the text has come, and forget what came before it."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, (text, self.seen)
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def end(self) -> int:
        """The exit code; the terminal is as it was."""
        while self.process.poll() is None:
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize("how", ["exit", "term"])
def test_a_shell_on_a_terminal(pulled: Scow, context: Path, how: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nWORKDIR /srv\nRUN exit 3\n")
    terminal = Terminal(pulled, "build", "--break", "2", "--on-error", "shell", str(context))
    try:
        terminal.until(b"a shell before WORKDIR")
        terminal.until(b"# ")
        terminal.type(b"tty; pwd\r")
        terminal.until(b"/dev/pts/0\r\n/\r\n")
        # Ctrl-C and Ctrl-P Ctrl-Q are the shell's own.
        terminal.type(b"sleep %d\r" % LONG)
        assert machine.eventually(lambda: b"%d" % LONG in running())
        terminal.type(b"\x03")
        terminal.until(b"# ")
        terminal.type(b"\x10\x11\x15true && echo stay$((1))ed\r")
        terminal.until(b"stay1ed\r\n")
        terminal.until(b"# ")
        terminal.type(b"\x04")
        terminal.until(b"exit code: 3")
        terminal.until(b"/srv # ")
        if how == "exit":
            terminal.type(b"exit 9\r")
            terminal.until(b"exit code: 3")
            assert terminal.end() == 1
        else:
            terminal.process.send_signal(signal.SIGTERM)
            assert terminal.end() != 0
    finally:
        terminal.close()
    if how == "exit":
        assert not list((pulled.root / "build" / "work").glob("*"))


def running() -> bytes:
    """The command lines of all processes."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found


@pytest.mark.parametrize("typed", [b"", b"x" * (1 << 20)], ids=["nothing", "much"])
def test_an_interrupt_ends_shell_and_build(pulled: Scow, context: Path, typed: bytes) -> None:
    """Also when the shell doesn't read what has been typed ahead."""
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    process = pulled.start(
        "build", "--break", "2", str(context),
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.write(process.stdin.fileno(), b"sleep %d\n" % LONG)
        assert machine.eventually(lambda: b"%d" % LONG in running())
        ahead = memoryview(typed)
        for _ in range(100 if typed else 0):
            try:
                ahead = ahead[os.write(process.stdin.fileno(), ahead) :]
            except BlockingIOError:
                time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.communicate()
    assert machine.eventually(lambda: b"%d" % LONG not in running())
    assert machine.eventually(lambda: not list((pulled.root / "build" / "work").glob("*")))
