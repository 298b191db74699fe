"""Archives made here: the same bytes for the same files, readable by tarfile and by scow's own reader."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from scow.api.layers import TarReader, TarWriter, tree_changes, write_changes, write_tree
from scow.model.storage import ChangeKind


def tree(root: Path, order: int = 1) -> Path:
    root.mkdir()
    names = ["a", "z" * 150, "é", "dir/inner", "dir.x"][::order]
    (root / "dir").mkdir()
    for name in names:
        (root / name).write_bytes(name.encode() * 300)
        os.utime(root / name, ns=(5, 1_700_000_000_123_456_789))
    os.link(root / "a", root / "hard")
    (root / "soft").symlink_to("x" * 120)
    os.mkfifo(root / "fifo")
    old = root / "dir" / "old"
    old.write_text("")
    os.utime(old, ns=(0, -1_500_000_000))
    for directory in (root / "dir", root):
        os.utime(directory, ns=(1, 1))
    for name in ("soft", "fifo"):
        os.utime(root / name, ns=(1, 10**9), follow_symlinks=False)
    return root


def archive(root: Path) -> bytes:
    out = io.BytesIO()
    fd = os.open(root, os.O_RDONLY)
    writer = TarWriter(out.write)
    write_tree(writer, fd)
    writer.end()
    os.close(fd)
    return out.getvalue()


def test_same_files_same_bytes(tmp_path: Path) -> None:
    assert archive(tree(tmp_path / "one")) == archive(tree(tmp_path / "two", -1))


def test_tarfile_reads_it(tmp_path: Path) -> None:
    data = archive(tree(tmp_path / "one"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
        assert members["z" * 150].size == 45000
        assert tar.extractfile("é").read() == "é".encode() * 300  # type: ignore[union-attr]
        assert members["hard"].islnk()
        assert members["hard"].linkname == "a"
        assert members["soft"].linkname == "x" * 120
        assert members["dir/old"].mtime == -1.5
        assert members["fifo"].isfifo()
    chunks = iter([data])
    entries = {entry.name: entry for entry in TarReader(lambda: next(chunks, b""))}
    assert entries[b"a"].mtime == 1_700_000_000_123_456_789
    assert entries[b"dir/old"].mtime == -1_500_000_000


def test_changes_of_a_copy(tmp_path: Path) -> None:
    old, new = tree(tmp_path / "old"), tree(tmp_path / "new")
    with tree_changes(old, new) as written:
        assert not written.changes
    (new / "a").write_text("other")
    (new / "dir" / "inner").unlink()
    (new / "fifo").unlink()
    (new / "fifo").mkdir()
    (new / "fifo" / "x").write_text("")
    same = new / "é"
    same.write_bytes(same.read_bytes()[::-1])
    os.utime(same, ns=(5, 1_700_000_000_123_456_789))
    os.utime(new, ns=(1, 1))
    with tree_changes(old, new) as written:
        found = {change.path.decode(): (change.kind, change.time_only) for change in written.changes}
        out = io.BytesIO()
        writer = TarWriter(out.write)
        write_changes(writer, written.root, written.changes)
        writer.end()
    assert found == {
        "a": (ChangeKind.MODIFIED, False),
        "hard": (ChangeKind.MODIFIED, False),
        "dir": (ChangeKind.MODIFIED, True),
        "dir/inner": (ChangeKind.DELETED, False),
        "fifo": (ChangeKind.MODIFIED, False),
        "fifo/x": (ChangeKind.ADDED, False),
        "é": (ChangeKind.MODIFIED, False),
    }
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getnames() == ["a", "dir", "dir/.wh.inner", "fifo", "fifo/x", "hard", "é"]


def test_never_started(tmp_path: Path) -> None:
    with tree_changes(tmp_path, tmp_path / "nothing") as written:
        assert (written.root, written.changes) == (-1, ())
