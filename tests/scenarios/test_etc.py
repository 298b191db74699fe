"""The engine's files in a container: /etc/hosts, /etc/hostname, /etc/resolv.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Scow
from .test_build import context, launcher

__all__ = ["context", "launcher"]

FILL = "dd if=/dev/zero of=/etc/hosts bs=1M count=100 2>&1"


def size_of(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.name in ("hosts", "hostname", "resolv.conf"))


def test_writing_has_an_end_and_lasts_until_the_restart(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "box", "--stop-timeout", "0", "--hostname", "vessel", "busybox", "sleep", "1000")
    pulled("exec", "box", "sh", "-c", "echo '10.9.8.7 mine' >> /etc/hosts")
    assert "mine" in pulled("exec", "box", "cat", "/etc/hosts")
    assert "No space left" in pulled.try_("exec", "box", "sh", "-c", FILL).stdout.decode()
    assert size_of(pulled.root) < 100_000
    pulled("restart", "box")
    said = pulled("exec", "box", "cat", "/etc/hosts", "/etc/hostname")
    assert "localhost" in said
    assert "vessel" in said
    assert "mine" not in said


def test_a_step_of_a_build_fills_no_disk_either(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {FILL}; cat /etc/hostname\n")
    assert b"No space left" in pulled.try_("build", "--progress=plain", str(context)).stderr


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
def test_they_are_read_only_where_the_root_is(pulled: Scow, name: str) -> None:
    script = f"test -e /etc/{name} && echo x >> /etc/{name}"
    done = pulled.try_("run", "--rm", "--read-only", "busybox", "sh", "-c", script)
    assert b"Read-only file system" in done.stderr
