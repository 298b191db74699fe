"""Which mount a path leads into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scow.engine.copying import Place
from scow.engine.mounted import Mounted
from scow.errors import Denied, NotFound, Unsupported
from scow.model.process import BindMount


@pytest.mark.parametrize(
    ("path", "source", "rest"),
    [
        ("/v", "/s/v", ""),
        ("/v/", "/s/v", ""),
        ("v/a/b", "/s/v", "a/b"),
        ("/v/./a/../b", "/s/v", "b"),
        ("/v/in", "/s/in", ""),
        ("/v/in/x", "/s/in", "x"),
        ("/v/inner", "/s/v", "inner"),
        ("/twice/x", "/s/second", "x"),
    ],
)
def test_the_innermost_mount(path: str, source: str, rest: str) -> None:
    mounted = Mounted(
        tuple(
            BindMount(source, target)
            for source, target in (
                ("/s/v", "/v"),
                ("/s/in", "/v/in/"),
                ("/s/first", "/twice"),
                ("/s/second", "/twice"),
            )
        )
    )
    found = mounted.covering(path.encode())
    assert found is not None
    assert (found[0].source, found[1]) == (source, rest.encode())


@pytest.mark.parametrize("path", ["/", "/vv", "/v/../x", "/a/v"])
def test_no_mount(path: str) -> None:
    assert Mounted((BindMount("/s", "/v"),)).covering(path.encode()) is None


def test_paths_go_on_in_mounts(tmp_path: Path) -> None:
    """Also by a link of the container's, whose way beneath a mount's source ends there."""
    root, source, single = tmp_path / "root", tmp_path / "source", tmp_path / "single"
    (root / "v").mkdir(parents=True)
    (root / "srv").mkdir()
    (root / "link").symlink_to("/v")
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_text("of the host")
    (source / "out").symlink_to("/etc")
    single.write_text("one file")
    binds = (BindMount(str(source), "/v"), BindMount(str(single), "/srv/file"), BindMount(str(source), "/ro", True))
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        with Place(fd, Mounted(binds)) as place:
            for path in ("/v/sub/f", "/link/sub/f", "/link/./sub/f"):
                found = place.find(path, follow=False)
                assert (found.name, found.status.st_size) == (b"f", len("of the host"))
            assert place.find("/v", follow=False).is_directory
            assert place.find("/srv/file", follow=False).status.st_size == len("one file")
            assert place.find("/srv", follow=False).is_directory
            with pytest.raises(NotFound):
                place.find("/v/out/passwd", follow=True)
            with pytest.raises(NotFound):
                place.find("/v/none", follow=False)
            with pytest.raises(Denied, match="read-only"):
                place.check_writable("/ro/sub")
            place.check_writable("/v/sub")
            with pytest.raises(Unsupported, match="mounted file"):
                place.check_entry("/srv", b"file")
            place.check_entry("/srv", b"other")
    finally:
        os.close(fd)
