"""What killed writers of layouts leave, and that nothing else is taken away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scow_plugins.layout._temporary import clear, replacing

WRITER = """
import sys
from pathlib import Path
from scow_plugins.layout._temporary import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print(flush=True)
    sys.stdin.read()
"""
NAMES = re.compile("index.json|blob")


def test_a_killed_writer_leaves_what_the_next_one_clears(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "blob")], stdin=pipe, stdout=pipe) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        clear(tmp_path, NAMES)
        (left,) = tmp_path.iterdir()
        assert left.read_bytes() == b"half"
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(10) == -signal.SIGKILL
    clear(tmp_path, re.compile("index.json"))
    assert left.exists()
    clear(tmp_path, NAMES)
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".blob.12-abcdef01.tmp").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / ".blob.13.tmp")
    (tmp_path / ".blob.14.tmp").mkdir()
    for name in (".other.12.tmp", ".blob.tmp", "blob.12.tmp", ".blob.12.tmp~", ".blob.x.tmp"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.iterdir())
    clear(tmp_path, NAMES)
    clear(tmp_path / "nowhere", NAMES)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "blob"
    target.write_bytes(b"old")

    def fail() -> None:
        with replacing(target) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"
    with replacing(target) as file:
        file.write(b"new")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"new"
