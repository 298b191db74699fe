"""kill -9 at the worst moment: nothing half-visible, and the next command reclaims what the dead held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Scow, free_port
from .machine import eventually


def supervisor_of(scow: Scow, name: str) -> int:
    """The process that holds a container: the parent of its first process."""
    pid = json.loads(scow("inspect", name))[0]["State"]["Pid"]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_killed_supervisor_takes_its_container_along(pulled: Scow) -> None:
    port = free_port()
    pulled("run", "-d", "--name", "box", "-p", f"{port}:80", "busybox", "httpd", "-f", "-h", "/www")
    pid = json.loads(pulled("inspect", "box"))[0]["State"]["Pid"]
    os.kill(supervisor_of(pulled, "box"), signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert "Exited (137)" in pulled("ps", "-a")
    # Its name, port and address are free again.
    pulled("start", "box")
    assert "Up" in pulled("ps")
    pulled("rm", "-f", "box")


def test_killed_rm_container_is_removed_by_the_next_command(pulled: Scow) -> None:
    pulled("run", "-d", "--rm", "--name", "box", "busybox", "sleep", "1000")
    os.kill(supervisor_of(pulled, "box"), signal.SIGKILL)
    assert eventually(lambda: pulled("ps", "-aq") == "")
    assert list((pulled.root / "containers").iterdir()) == []


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06, 0.1, 0.3, 0.6])
def test_killed_command(pulled: Scow, delay: float) -> None:
    """The command is killed while it creates and starts a container; either it is there or it isn't."""
    process = pulled.start("run", "--rm", "--name", "killed", "busybox", "sleep", "0.3", stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait(10)
    assert eventually(
        lambda: "killed" not in pulled("ps", "-a", "--format", "{{.Names}}").split() or _remove(pulled), 15
    )
    pulled("run", "--rm", "--name", "killed", "busybox", "true")


def test_killed_command_leaves_no_worker(pulled: Scow, tmp_path: Path) -> None:
    """kill -9 of the command is kill -9 of what works for it: its output ends, and the container goes on."""
    process = pulled.start("run", "--name", "box", "busybox", "sh", "-c", "echo up; sleep 1000", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.kill()
    assert process.communicate(timeout=10)[0] == b""
    assert "Up" in pulled("ps")
    pulled("rm", "-f", "box")


def _remove(scow: Scow) -> bool:
    """A container that was created and never started stays, as docker's does; it can be removed."""
    return scow.try_("rm", "-f", "killed").returncode == 0


def test_killed_pull_goes_on(mirrored: Scow) -> None:
    for delay in (0.05, 0.15, 0.3, 0.5):
        process = mirrored.start("pull", "-q", "busybox", stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait(10)
    mirrored("pull", "-q", "busybox")
    assert mirrored("run", "--rm", "busybox", "cat", "/second/layer") == "upper\n"


def test_two_commands_at_once(pulled: Scow) -> None:
    """Several containers started at the same moment get different names and addresses."""
    running = [
        pulled.start(
            "run", "--rm", "busybox", "sh", "-c", "ip -4 addr show eth0 | grep inet; sleep 1", stdout=subprocess.PIPE
        )
        for _ in range(6)
    ]
    addresses = []
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        addresses.append(out.split()[1])
    assert len(set(addresses)) == 6


def test_two_engines_do_not_meet(pulled: Scow, tmp_path: Path) -> None:
    other = Scow(tmp_path / "other" / "root", tmp_path / "other" / "run", pulled.config, pulled.warm)
    pulled("run", "-d", "--name", "same", "busybox", "sleep", "1000")
    other("pull", "-q", "busybox")
    other("run", "-d", "--name", "same", "busybox", "sleep", "1000")
    first = json.loads(pulled("inspect", "same"))[0]["NetworkSettings"]["IPAddress"]
    second = json.loads(other("inspect", "same"))[0]["NetworkSettings"]["IPAddress"]
    assert first.rsplit(".", 1)[0] != second.rsplit(".", 1)[0]
    other("rm", "-f", "same")
    assert "Up" in pulled("ps")
    other.stop_launcher()
