"""A paused container can be ended in every way that ends one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Scow
from .machine import eventually
from .test_build import launcher

__all__ = ["launcher"]


def status(scow: Scow, name: str = "box") -> str:
    return scow("inspect", "--format", "{{.State.Status}}", name).strip()


def paused(scow: Scow, *command: str) -> int:
    """A paused container; gives its PID."""
    scow(
        "run",
        "-d",
        "--network",
        "none",
        "--stop-timeout",
        "1",
        "--name",
        "box",
        "busybox",
        *(command or ("sleep", "1000")),
    )
    scow("pause", "box")
    assert status(scow) == "paused"
    return int(json.loads(scow("inspect", "box"))[0]["State"]["Pid"])


@pytest.mark.parametrize("words", ["stop -t 1", "stop -t 0", "kill", "kill -s KILL", "rm -f", "restart -t 0"])
def test_ended_by_command(pulled: Scow, words: str) -> None:
    paused(pulled)
    began = time.monotonic()
    pulled(*words.split(), "box", timeout=30)
    assert time.monotonic() - began < 8
    expected = {"rm": [], "restart": ["running"]}.get(words.split()[0], ["exited"])
    assert eventually(lambda: pulled("ps", "-a", "--format", "{{.State}}").split() == expected)


def test_the_stop_signal_is_obeyed_and_others_wait(pulled: Scow) -> None:
    script = "trap 'echo hup' HUP; trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    pulled("run", "-d", "--network", "none", "--name", "box", "busybox", "sh", "-c", script)
    assert eventually(lambda: pulled("logs", "box") == "up\n")
    pulled("pause", "box")
    pulled("kill", "-s", "HUP", "box")
    time.sleep(0.3)
    assert (status(pulled), pulled("logs", "box")) == ("paused", "up\n")
    pulled("stop", "box", timeout=30)
    assert pulled("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "box") == "exited 3\n"
    assert sorted(pulled("logs", "box").split()) == ["hup", "term", "up"]


def test_an_attached_client_ends_it(pulled: Scow) -> None:
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
    client = pulled.start(
        "run", "--network", "none", "--name", "box", "busybox", "sh", "-c", script, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    pulled("pause", "box")
    client.send_signal(signal.SIGTERM)
    assert client.wait(15) == 5
    client.stdout.close()


def test_what_runs_inside_ends_too(pulled: Scow) -> None:
    pulled("run", "-d", "--network", "none", "--name", "box", "busybox", "sleep", "1000")
    client = pulled.start("exec", "box", "sh", "-c", "echo up; sleep 1000", stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    pulled("pause", "box")
    pulled("stop", "-t", "0", "box", timeout=30)
    assert client.wait(15) != 0
    client.stdout.close()
    assert status(pulled) == "exited"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_supervisor_ends(pulled: Scow, number: signal.Signals) -> None:
    pid = paused(pulled)
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, number)
    assert eventually(lambda: "box" not in pulled("ps"), seconds=20)
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))
