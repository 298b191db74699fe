"""`run`, `start`, `attach` and `exec` against a fake engine: streams, terminals, signals, exit codes."""

from __future__ import annotations

import os
import signal
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scow.api import (
    Conflict,
    Container,
    Digest,
    ExitStatus,
    Internal,
    NoCommand,
    NotExecutable,
    NotFound,
    ProcessSpec,
)
from scow.engine.types import Output, Progress
from scow_plugins.cli._main import main


def echo_until(end: bytes) -> Callable[[Any], AsyncIterator[Output]]:
    """A process that says what it gets, until it gets `end`."""

    async def live(session: Any) -> AsyncIterator[Output]:
        said = 0
        yield Output("stdout", b"ready\n")
        while True:
            if len(session.sent) > said:
                new, said = session.sent[said:], len(session.sent)
                yield Output("stdout", new)
            if end in session.sent:
                return
            await session.changed.wait()

    return live


async def until_signal(session: Any) -> AsyncIterator[Output]:
    """A process that ends with its second signal."""
    yield Output("stdout", b"ready\n")
    while len(session.signals) < 2:
        await session.changed.wait()


def test_output_and_exit_code(scow: Any) -> None:
    scow.engine.script = [Output("stdout", b"out\n"), Output("stderr", b"err\n"), Output("stdout", b"\xc3\xa9")]
    scow.engine.status = ExitStatus(code=3)
    assert scow("run", "--rm", "nginx", "sh", "-c", "x") == (3, "out\né", "err\n")
    assert scow.engine.request.args == ("sh", "-c", "x")
    assert scow.engine.request.auto_remove
    assert not scow.engine.request.detached
    assert scow.engine.calls == [("create",), ("attach", "1" * 64, {"start": True, "stdin": False})]


def test_ended_by_a_signal(scow: Any) -> None:
    scow.engine.status = ExitStatus(signal=9)
    assert scow("run", "nginx").code == 137


def test_detached(scow: Any) -> None:
    assert scow("run", "-d", "nginx") == (0, "1" * 64 + "\n", "")
    assert scow.engine.calls == [("create",), ("start", "1" * 64)]
    assert scow.engine.request.detached


def test_standard_input(scow: Any) -> None:
    scow.engine.live = echo_until(b"bye")
    assert scow("run", "-i", "nginx", stdin=b"hello bye") == (0, "ready\nhello bye", "")


def test_the_end_of_input_is_passed_on(scow: Any) -> None:
    async def live(session: Any) -> AsyncIterator[Output]:
        await session.eof.wait()
        yield Output("stdout", session.sent)

    scow.engine.live = live
    assert scow("run", "-i", "nginx", stdin=b"x" * 200_000).out == "x" * 200_000


def test_without_i_no_input_is_read(scow: Any) -> None:
    scow("run", "nginx", stdin=b"hello")
    assert scow.engine.session.sent == b""
    assert not scow.engine.session.eof.is_set()


def test_chosen_streams(scow: Any) -> None:
    scow.engine.script = [Output("stdout", b"out\n"), Output("stderr", b"err\n")]
    assert scow("run", "-a", "stderr", "nginx") == (0, "", "err\n")
    assert scow("run", "-a", "STDOUT", "-i", "nginx", stdin=b"x") == (0, "out\n", "")
    assert scow.engine.session.sent == b""
    assert scow("run", "-a", "stdin", "nginx") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-a", "foo", "x"], 'invalid argument "foo" for "-a, --attach" flag'),
        (["-a", "stdin", "-d", "x"], "--attach and --detach exclude each other"),
        (["--detach-keys", "foo", "x"], 'invalid argument "foo" for "--detach-keys" flag'),
        (["--pull", "foo", "x"], 'invalid argument "foo" for "--pull" flag'),
        (["--foo"], "unknown flag: --foo"),
        (["--gpus", "all", "x"], "--gpus is not supported by scow"),
        (["-it", "x"], "the input device is not a TTY"),
        (["--mount", "type=bind,src=/nowhere,dst=/x", "x"], "/nowhere doesn't exist"),
        (["-v", "data:/x", "x"], "scow has no named volumes"),
    ],
)
def test_bad_usage_is_125(scow: Any, words: list[str], message: str) -> None:
    code, out, err = scow("run", *words)
    assert (code, out) == (125, "")
    assert message in err
    assert scow.engine.calls == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no such image: x", hint="scow pull x"), 125),
        (NoCommand("no command 'x'"), 127),
        (NotExecutable("'x' can't be executed"), 126),
        (ExceptionGroup("", [ExceptionGroup("", [NoCommand("no command 'x'")])]), 127),
        (Internal("odd"), 125),
        (ValueError("odd"), 125),
    ],
)
def test_failures(scow: Any, error: Exception, code: int) -> None:
    scow.engine.errors["attach"] = error
    got, out, err = scow("run", "nginx")
    assert (got, out) == (code, "")
    assert err.startswith("scow: ")
    assert "Traceback" not in err


def test_hints_and_bugs(scow: Any) -> None:
    scow.engine.errors["create"] = NotFound("no such image: x\x1b[2J", hint="scow pull x")
    assert scow("run", "nginx").err == "scow: no such image: x\\x1b[2J\nhint: scow pull x\n"
    scow.engine.errors["create"] = KeyError("odd")
    assert scow("run", "nginx").err == (
        "scow: KeyError: 'odd'\nthis is a bug in scow; see it with: scow --debug run …\n"
    )
    assert "Traceback" in scow("--debug", "run", "nginx").err


def test_a_pull_on_the_way(scow: Any) -> None:
    layer = Digest.of(b"a")
    scow.engine.news = [Progress("nginx", None, "resolving"), Progress("nginx", layer, "complete")]
    code, out, err = scow("run", "-d", "nginx")
    assert (code, out) == (0, "1" * 64 + "\n")
    assert err.splitlines() == [
        "Unable to find image 'nginx:latest' locally",
        "latest: Pulling from library/nginx",
        f"{layer.short}: Pull complete",
        "Digest: sha256:" + "e" * 64,
        "Status: Downloaded newer image for nginx:latest",
    ]
    scow.engine.news = []
    assert scow("run", "-d", "-q", "nginx").err == ""


def test_id_files(scow: Any, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    assert scow("run", "-d", "--cidfile", str(path), "nginx").code == 0
    assert path.read_text() == "1" * 64
    code, _, err = scow("run", "-d", "--cidfile", str(path), "nginx")
    assert code == 125
    assert f"container ID file {path} exists" in err
    path.unlink()
    scow.engine.errors["create"] = NotFound("no such image")
    assert scow("create", "--cidfile", str(path), "nginx").code == 125
    assert not path.exists()
    assert scow("create", "--cidfile", str(tmp_path / "no" / "cid"), "nginx").code == 125


def test_create(scow: Any) -> None:
    assert scow("create", "--name", "x", "nginx", "-x") == (0, "1" * 64 + "\n", "")
    assert scow("container", "create", "-a", "stdin", "nginx").code == 125


class Pipes:
    """A command in this thread, with a user in another who writes, reads and signals."""

    def __init__(self, scow: Any, *words: str, terminal: bool = False) -> None:
        self.scow = scow
        self.words = words
        if terminal:
            self.user, self.inner = os.openpty()
            termios.tcsetwinsize(self.inner, (30, 90))
            self.fds = (self.inner, self.inner, self.inner)
            self.writing = self.reading = self.user
        else:
            stdin, self.writing = os.pipe()
            self.reading, stdout = os.pipe()
            self.fds = (stdin, stdout, stdout)

    def run(self, user: Callable[[Pipes], None], *, check: Callable[[], None] = lambda: None) -> int:
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                user(self)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        try:
            code = main(list(self.words), self.scow.cli(*self.fds))
            thread.join()
            check()
        finally:
            for descriptor in {*self.fds, self.writing, self.reading}:
                os.close(descriptor)
        if errors:
            raise errors[0]
        return code

    def expect(self, text: bytes) -> bytes:
        got = b""
        while text not in got:
            got += os.read(self.reading, 65536)
        return got

    def say(self, data: bytes) -> None:
        os.write(self.writing, data)


def is_raw(descriptor: int) -> bool:
    return not termios.tcgetattr(descriptor)[3] & termios.ICANON


def test_a_conversation_over_pipes(scow: Any) -> None:
    scow.engine.live = echo_until(b"bye")

    def user(pipes: Pipes) -> None:
        pipes.expect(b"ready")
        pipes.say(b"one\x10\x11")
        pipes.expect(b"one\x10\x11")  # keys detach terminals only
        pipes.say(b"bye")

    assert Pipes(scow, "run", "-i", "nginx").run(user) == 0


def test_signals_are_passed_on(scow: Any) -> None:
    scow.engine.live = until_signal
    scow.engine.status = ExitStatus(signal=15)

    def user(pipes: Pipes) -> None:
        pipes.expect(b"ready")
        for number in (signal.SIGINT, signal.SIGUSR1):
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    assert Pipes(scow, "run", "nginx").run(user) == 143
    assert scow.engine.session.signals == [signal.SIGINT, signal.SIGUSR1]


def test_signals_that_are_not_passed_on_end_us(scow: Any) -> None:
    scow.engine.live = until_signal

    def user(pipes: Pipes) -> None:
        pipes.expect(b"ready")
        os.kill(os.getpid(), signal.SIGTERM)

    assert Pipes(scow, "run", "--sig-proxy=false", "nginx").run(user) == 143
    assert scow.engine.session.signals == []


def test_a_terminal_is_raw_meanwhile_and_resized(scow: Any) -> None:
    scow.engine.live = echo_until(b"bye")
    pipes = Pipes(scow, "run", "-it", "nginx", terminal=True)
    before = termios.tcgetattr(pipes.inner)
    after: list[Any] = []

    def user(pipes: Pipes) -> None:
        pipes.expect(b"ready")
        assert is_raw(pipes.inner)
        pipes.say(b"\x03\x1a")
        pipes.expect(b"\x03\x1a")
        termios.tcsetwinsize(pipes.inner, (40, 100))
        os.kill(os.getpid(), signal.SIGWINCH)
        while (40, 100) not in scow.engine.session.sizes:
            time.sleep(0.005)
        pipes.say(b"bye")

    assert pipes.run(user, check=lambda: after.append(termios.tcgetattr(pipes.inner))) == 0
    assert after == [before]
    assert scow.engine.session.sizes[0] == (30, 90)
    assert (scow.engine.request.rows, scow.engine.request.columns) == (30, 90)
    assert scow.engine.request.tty


@pytest.mark.parametrize("way", ["keys", "crash", "term"])
def test_the_terminal_is_given_back(scow: Any, way: str) -> None:
    async def crash(session: Any) -> AsyncIterator[Output]:
        yield Output("stdout", b"ready\n")
        while not session.sent:
            await session.changed.wait()
        raise Conflict("gone")

    scow.engine.live = crash if way == "crash" else echo_until(b"never")
    pipes = Pipes(scow, "run", "--sig-proxy=false", "-it", "nginx", terminal=True)
    before = termios.tcgetattr(pipes.inner)
    after: list[Any] = []

    def user(pipes: Pipes) -> None:
        pipes.expect(b"ready")
        assert is_raw(pipes.inner)
        if way == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            pipes.say({"keys": b"a\x10", "crash": b"x"}[way])
        if way == "keys":
            pipes.expect(b"a")
            pipes.say(b"\x11")
            pipes.expect(b"read escape sequence")

    code = pipes.run(user, check=lambda: after.append(termios.tcgetattr(pipes.inner)))
    assert code == {"keys": 0, "crash": 125, "term": 143}[way]
    assert after == [before]
    if way == "keys":
        assert scow.engine.session.sent == b"a"


def test_stdout_that_nobody_reads(scow: Any) -> None:
    scow.engine.script = [Output("stdout", b"x" * 100)] * 2000
    reading, writing = os.pipe()
    os.close(reading)
    null = os.open(os.devnull, os.O_RDWR)
    assert main(["run", "nginx"], scow.cli(null, writing, null)) == 141
    assert main(["--help"], scow.cli(null, writing, null)) == 141
    assert main(["ps"], scow.cli(null, writing, null)) == 141
    os.close(writing)
    os.close(null)


def test_start(scow: Any) -> None:
    scow.engine.errors["b"] = Conflict("container b is running already")
    assert scow("start", "a", "b", "c") == (1, "a\nc\n", "scow: container b is running already\n")


def test_start_connected(scow: Any, container: Callable[..., Container]) -> None:
    scow.engine.all = [container(spec={"stdin_open": True})]
    scow.engine.status = ExitStatus(code=4)
    scow.engine.script = [Output("stdout", b"out")]
    assert scow("start", "-ai", "web", stdin=b"in") == (4, "out", "")
    assert scow.engine.calls[-1] == ("attach", "1" * 64, {"start": True, "stdin": True, "rows": 0, "columns": 0})
    assert scow("start", "-a", "web", "other").code == 1


def test_attach(scow: Any, container: Callable[..., Container]) -> None:
    scow.engine.all = [container()]
    scow.engine.status = ExitStatus(code=4)
    assert scow("attach", "web").code == 4
    assert scow.engine.calls[-1][2]["stdin"] is False
    scow.engine.all = [container(spec={"stdin_open": True})]
    scow("attach", "web")
    assert scow.engine.calls[-1][2]["stdin"] is True
    scow("attach", "--no-stdin", "web")
    assert scow.engine.calls[-1][2]["stdin"] is False
    scow.engine.all = [container(spec={"stdin_open": True, "process": ProcessSpec(("sh",), tty=True)})]
    assert "not a TTY" in scow("attach", "web").err


def test_exec(scow: Any) -> None:
    scow.environ["HOME"] = "/h"
    scow.engine.status = ExitStatus(code=5)
    scow.engine.script = [Output("stderr", b"e")]
    got = scow("exec", "-e", "HOME", "-e", "A=1", "-u", "1", "-w", "/w", "--privileged", "web", "ls", "-l")
    assert got == (5, "", "e")
    process = ProcessSpec(("ls", "-l"), ("HOME=/h", "A=1"), "/w", "1", privileged=True)
    assert scow.engine.calls == [("exec", "web", process, {"stdin": False, "detach": False})]
    assert scow("exec", "-d", "web", "ls").code == 0
    assert scow.engine.calls[-1] == (
        "exec",
        "web",
        replace(process, args=("ls",), env=(), cwd="", user="", privileged=False),
        {"stdin": False, "detach": True},
    )


@pytest.mark.parametrize(
    ("error", "code"), [(NoCommand("x"), 127), (NotExecutable("x"), 126), (Conflict("not running"), 1)]
)
def test_exec_failures(scow: Any, error: Exception, code: int) -> None:
    scow.engine.errors["exec"] = error
    assert scow("exec", "web", "x").code == code
    assert scow("exec", "web").code == 1
