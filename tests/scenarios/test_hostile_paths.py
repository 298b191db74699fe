"""Commands that name a path in a container that has prepared it: what is wrong is said, and is never a bug."""

from __future__ import annotations

from pathlib import Path

from .conftest import Scow
from .test_build import launcher

__all__ = ["launcher"]

PREPARE = """ln -s loop /loop; ln -s gone/gone /dangling; echo x > /file; mkfifo /fifo; ln -s /proc/1/root/etc /magic
ln -s $(printf '%0300d' 0) /long; echo up; exec sleep 1000"""
PLACES = (
    "/loop", "/loop/x", "/dangling/x", "/file/x", "/fifo/x", "/magic/x", "/long", "/proc/x", "/sys/x", "/" + "0" * 256
)  # fmt: skip


def test_hostile_paths_are_no_bugs(pulled: Scow, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    pulled("run", "-d", "--network", "none", "--name", "box", "busybox", "sh", "-c", PREPARE)
    pulled("exec", "box", "sh", "-c", "until [ -L /long ]; do sleep 0.05; done")
    for place in PLACES:
        for words in (
            ("cp", str(source / "file"), f"box:{place}"),
            ("cp", f"box:{place}/x", "-"),
            ("exec", "-w", place, "box", "true"),
            ("exec", "box", place),
        ):
            done = pulled.try_(*words)
            assert done.returncode or (place == "/loop" and words[0] == "cp"), words
            assert b"bug in scow" not in done.stderr, (words, done.stderr)
            assert b"Traceback" not in done.stderr, (words, done.stderr)
