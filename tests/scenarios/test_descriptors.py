"""What a process in a container holds from its start: nothing of the host's that it could change."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Scow
from .test_build import context, launcher

__all__ = ["context", "launcher"]

#: Every descriptor with its device. What the process itself has, not what its shell opens for a moment.
LIST = 'for f in $(seq 0 30); do [ -e /proc/self/fd/$f ] && stat -L -c "held $f %d." /proc/self/fd/$f; done; true'
#: The mode and the owner of what standard input leads to.
CHANGE = "chmod 676 /proc/self/fd/0; chown 77:77 /proc/self/fd/0; chmod 676 /dev/null; true"


@pytest.fixture(autouse=True)
def null_stays() -> Iterator[None]:
    """The host's device; what a failing test did to it is undone."""
    before = os.stat("/dev/null")
    yield
    after = os.stat("/dev/null")
    os.chmod("/dev/null", stat.S_IMODE(before.st_mode))
    os.chown("/dev/null", before.st_uid, before.st_gid)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def host_devices() -> set[int]:
    """The file systems that the host has mounted, as stat(2) names them."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        major, minor = line.split()[2].split(":")
        found.add(os.makedev(int(major), int(minor)))
    return found


def holds_nothing_of_the_hosts(said: str) -> None:
    held = {int(number): int(device) for number, device in re.findall(r"held (\d+) (\d+)\.", said)}
    assert held.keys() >= {0, 1, 2}, said
    assert not host_devices() & set(held.values()), said


@pytest.mark.parametrize("flags", [(), ("-i",), ("-t",), ("--cap-drop", "ALL"), ("--privileged",)], ids=" ".join)
def test_of_run(pulled: Scow, flags: tuple[str, ...]) -> None:
    holds_nothing_of_the_hosts(pulled("run", "--rm", *flags, "busybox", "sh", "-c", f"{LIST}; {CHANGE}"))


def test_of_exec(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    for flags in ((), ("-i",), ("-t",), ("--privileged",)):
        holds_nothing_of_the_hosts(pulled("exec", *flags, "box", "sh", "-c", f"{LIST}; {CHANGE}"))
    # What a container has put in the place of its /dev/null is not waited for, and not given.
    for instead in ("mkfifo /dev/null", "mkdir /dev/null", "ln -s /etc/passwd /dev/null", "true"):
        pulled("exec", "box", "sh", "-c", f"rm -rf /dev/null; {instead}")
        assert pulled("exec", "box", "cat") == ""
        holds_nothing_of_the_hosts(pulled("exec", "box", "sh", "-c", LIST))


def test_of_a_build_step(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {LIST}; {CHANGE}\n")
    done = pulled.try_("build", "--progress=plain", str(context))
    holds_nothing_of_the_hosts(done.stderr.decode())


def test_of_a_shell_in_a_build(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN false\n")
    done = pulled.try_("build", "--on-error", "shell", str(context), stdin=f"{LIST}\n{CHANGE}\n".encode())
    holds_nothing_of_the_hosts(done.stderr.decode())
