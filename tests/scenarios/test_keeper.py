"""A container at rest is held by a keeper: nobody notices, but for the memory."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .conftest import Scow, free_port
from .machine import eventually


@pytest.fixture
def launcher() -> bool:
    """A supervisor rests only where a launcher may wake it."""
    return True


def parent_of(scow: Scow, name: str) -> int:
    pid = json.loads(scow("inspect", name))[0]["State"]["Pid"]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_keeper(pid: int) -> bool:
    return b"keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()


def at_rest(scow: Scow, name: str) -> int:
    """The keeper's pid, once it is one and alone."""
    pid = parent_of(scow, name)
    assert eventually(lambda: is_keeper(pid))
    return pid


def guests_of(scow: Scow, name: str) -> list[int]:
    """Processes that are called after the container, without its keeper."""
    comm = f"scow:{json.loads(scow('inspect', name))[0]['Id'][:10]}\n"
    found = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _comm(p) == comm]
    return [pid for pid in found if pid != parent_of(scow, name)]


def _comm(process: Path) -> str:
    try:
        return (process / "comm").read_text()
    except OSError:
        return ""


def private_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))


def test_everything_works_at_rest(pulled: Scow) -> None:
    """Output, commands, counters, pause, ports, names; and the end with its code."""
    port = free_port()
    script = "trap 'echo bye; exit 3' TERM; httpd -h /www; while :; do echo tick; sleep 0.2; done"
    pulled("run", "-d", "--name", "box", "-p", f"{port}:80", "busybox", "sh", "-c", script)
    keeper = at_rest(pulled, "box")
    assert private_kilobytes(keeper) < 4500
    ticks = pulled("logs", "box").count("tick")
    assert eventually(lambda: pulled("logs", "box").count("tick") > ticks)
    assert pulled("exec", "box", "cat", "/second/layer") == "upper\n"
    assert parent_of(pulled, "box") == keeper
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
        assert page.status == 200
    pulled("pause", "box")
    assert eventually(lambda: guests_of(pulled, "box") == [])
    pulled.fails("exec", "box", "true", code=1, says="paused")
    pulled("unpause", "box")
    pulled("exec", "box", "true")
    assert eventually(lambda: guests_of(pulled, "box") == [])
    # Between a supervisor and the next, no line is lost, doubled or cut.
    assert set(pulled("logs", "box").split()) == {"tick"}
    pulled("stop", "box")
    assert "Exited (3)" in pulled("ps", "-a")
    assert pulled("logs", "box").endswith("tick\nbye\n")
    # What it held is free again.
    pulled("start", "box")
    assert "Up" in pulled("ps")
    pulled("rm", "-f", "box")


def test_the_end_is_noticed_by_itself(pulled: Scow) -> None:
    pulled("run", "-d", "--rm", "--name", "box", "busybox", "sh", "-c", "printf begun; sleep 2; echo '; done'; exit 7")
    at_rest(pulled, "box")
    waiting = pulled.start("wait", "box", stdout=subprocess.PIPE)
    assert waiting.communicate(timeout=20)[0] == b"7\n"
    assert eventually(lambda: list((pulled.root / "containers").iterdir()) == [])
    assert list((pulled.run_dir / "containers").iterdir()) == []


def test_a_line_that_was_begun_goes_on(pulled: Scow) -> None:
    script = "printf one; sleep 1.8; printf ' two'; sleep 1; echo ' three'; sleep 1000"
    pulled("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    at_rest(pulled, "box")
    pulled("exec", "box", "true")
    assert eventually(lambda: pulled("logs", "box") == "one two three\n")
    pulled("rm", "-f", "box")


def test_restart_policy(pulled: Scow) -> None:
    """It is run again by the supervisor that the keeper has fetched, which becomes the next keeper."""
    port = free_port()
    pulled(
        "run", "-d", "--name", "box", "--restart", "on-failure:1", "-p", f"{port}:80",
        "busybox", "sh", "-c", "sleep 1.8; exit 4",
    )  # fmt: skip
    first = at_rest(pulled, "box")

    def state() -> dict[str, object]:
        inspected = json.loads(pulled("inspect", "box"))[0]
        return {**inspected["State"], "RestartCount": inspected["RestartCount"]}

    assert eventually(lambda: state()["RestartCount"] == 1 and state()["Running"])
    assert parent_of(pulled, "box") != first
    assert not Path(f"/proc/{first}").exists()
    at_rest(pulled, "box")
    assert eventually(lambda: not state()["Running"])
    assert (state()["ExitCode"], state()["RestartCount"]) == (4, 1)
    pulled("rm", "box")


def test_input_and_its_end(pulled: Scow) -> None:
    """The keeper holds the input open, and lets it end."""
    pulled("create", "-i", "--name", "box", "busybox", "sh", "-c", "cat; echo over; sleep 1000")
    pulled("start", "box")
    at_rest(pulled, "box")
    client = pulled.start("attach", "--sig-proxy=false", "box", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None
    client.stdin.write(b"hello\n")
    client.stdin.close()
    assert eventually(lambda: pulled("logs", "box") == "hello\nover\n")
    client.kill()
    client.wait()
    assert client.stdout is not None
    client.stdout.close()
    pulled("rm", "-f", "box")


def test_input_that_nobody_ends(pulled: Scow) -> None:
    """That of `run -di` stays open, whoever comes and goes."""
    pulled("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", "cat; echo over; sleep 1000")
    for word in ("hello", "again"):
        at_rest(pulled, "box")
        client = pulled.start("attach", "--sig-proxy=false", "box", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert client.stdin is not None
        client.stdin.write(f"{word}\n".encode())
        client.stdin.close()
        assert eventually(lambda word=word: f"{word}\n" in pulled("logs", "box"))
        client.kill()
        client.wait()
        assert eventually(lambda: guests_of(pulled, "box") == [])
    assert pulled("logs", "box") == "hello\nagain\n"
    pulled("rm", "-f", "box")


def test_terminal(pulled: Scow) -> None:
    pulled("run", "-dit", "--name", "box", "busybox", "sh")
    at_rest(pulled, "box")
    master, slave = pty.openpty()
    attached = pulled.start("attach", "box", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"echo $((40 + 2)); exit 5\n")
    seen = b""
    while select.select([master], [], [], 20)[0]:
        try:
            seen += os.read(master, 4096)
        except OSError:
            break
    os.close(master)
    assert b"42" in seen
    assert attached.wait(20) == 5
    assert eventually(lambda: "Exited (5)" in pulled("ps", "-a"))
    pulled("rm", "box")


def test_killed_keeper(pulled: Scow) -> None:
    """As a killed supervisor: its container goes with it, and the next command cleans up."""
    port = free_port()
    pulled("run", "-d", "--name", "box", "-p", f"{port}:80", "busybox", "httpd", "-f", "-h", "/www")
    os.kill(at_rest(pulled, "box"), signal.SIGKILL)
    assert eventually(lambda: "Exited (137)" in pulled("ps", "-a"))
    pulled("start", "box")
    pulled("rm", "-f", "box")


def test_killed_guest(pulled: Scow) -> None:
    """A supervisor that dies at work takes nothing along; the keeper fetches another one."""
    pulled("run", "-d", "--name", "box", "busybox", "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.1; done")
    keeper = at_rest(pulled, "box")
    busy = pulled.start("exec", "box", "sleep", "1000")
    assert eventually(lambda: guests_of(pulled, "box") != [])
    for pid in guests_of(pulled, "box"):
        os.kill(pid, signal.SIGKILL)
    assert busy.wait(20) != 0
    assert pulled("exec", "box", "echo", "there") == "there\n"
    assert parent_of(pulled, "box") == keeper
    pulled("stop", "box")
    assert "Exited (6)" in pulled("ps", "-a")
    pulled("rm", "box")


def test_without_the_launcher_that_it_came_from(pulled: Scow) -> None:
    """Then the keeper has a supervisor made by itself."""
    pulled("run", "-d", "--name", "box", "busybox", "sh", "-c", "sleep 3; exit 8")
    at_rest(pulled, "box")
    pulled.stop_launcher()
    pid = parent_of(pulled, "box")
    time.sleep(3)
    assert eventually(lambda: not Path(f"/proc/{pid}").exists(), 20)
    assert "Exited (8)" in pulled("ps", "-a")
    pulled("rm", "box")


def test_sigterm_stops_the_container(pulled: Scow) -> None:
    """The machine goes down."""
    pulled("run", "-d", "--name", "box", "busybox", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
    os.kill(at_rest(pulled, "box"), signal.SIGTERM)
    assert eventually(lambda: "Exited (9)" in pulled("ps", "-a"))
    pulled("rm", "box")


def test_out_of_memory_is_still_told(pulled: Scow) -> None:
    script = "sleep 2; x=a; while :; do x=$x$x; done"
    pulled("run", "-d", "--name", "box", "-m", "16m", "busybox", "sh", "-c", script)
    at_rest(pulled, "box")
    assert eventually(lambda: json.loads(pulled("inspect", "box"))[0]["State"]["Status"] == "exited", 20)
    state = json.loads(pulled("inspect", "box"))[0]["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (137, True)
    pulled("rm", "box")


def test_the_end_is_on_record_whoever_waits_for_it(pulled: Scow) -> None:
    """Clients that leave while the others are being told; also when a keeper has held the container."""
    flags = ("--memory", "16m", "--network", "none")
    for wait in (0.5, 2.5):
        pulled("run", "-d", "--name", "box", *flags, "busybox", "sh", "-c", f"sleep {wait}; exec tail /dev/zero")
        waiting = [pulled.start("wait", "box", stdout=subprocess.PIPE) for _ in range(6)]
        assert [each.communicate(timeout=30)[0] for each in waiting] == [b"137\n"] * 6
        assert pulled("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "box") == "true 137\n"
        pulled("rm", "-f", "box")
