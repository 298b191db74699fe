"""Nothing of an engine's own files is open to others, whatever the umask of those who ran commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Scow
from .machine import eventually

#: What a container sees with its own modes, and the trees of images, containers and cache mounts.
_SEEN = frozenset({"hosts", "hostname", "resolv.conf"})
_TREES = frozenset({"fs", "upper", "scratch", "content", "new"})


def _open_to_others(top: Path) -> list[str]:
    found = []
    for directory, names, files in os.walk(top):
        here = Path(directory)
        if here != top / "content":
            names[:] = [name for name in names if name not in _TREES or (here == top and name == "content")]
        for path in [*(here / name for name in names), *(here / name for name in files)]:
            if not path.is_symlink() and path.name not in _SEEN and path.lstat().st_mode & 0o077:
                found.append(f"{path.lstat().st_mode:o} {path.relative_to(top)}")
    return found


@pytest.mark.root
def test_whatever_the_umask(pulled: Scow, tmp_path: Path) -> None:
    scow = pulled
    context = tmp_path / "context"
    context.mkdir()
    dockerfile = (
        "FROM busybox\nCOPY f /f\nRUN --mount=type=cache,target=/var/x echo x > /var/x/y && cp /var/x/y /made\n"
    )
    (context / "Dockerfile").write_text(dockerfile)
    (context / "f").write_text("f\n")
    before = os.umask(0)
    try:
        scow("build", "-q", "-t", "own/image", str(context))
        scow("run", "-d", "--name", "held", "-e", "SECRET=word", "-p", "18099:80", "own/image", "sleep", "60")
        scow("run", "--name", "done", "--network", "none", "own/image", "echo", "said")
        assert scow("logs", "done") == "said\n"
        scow("commit", "done", "own/other")
    finally:
        os.umask(before)
    try:
        assert eventually(lambda: _open_to_others(scow.root) == [] == _open_to_others(scow.run_dir)), [
            *_open_to_others(scow.root),
            *_open_to_others(scow.run_dir),
        ]
    finally:
        scow("rm", "-f", "held", "done")
