"""Layers made by tests, and trees as data, to compare what a driver gives with what it should give. Free of pytest.

archive(directory("etc"), file("etc/motd", b"hello"), whiteout("etc/old"))
{"etc/motd": Node("file", data=b"hello"), …} == read_tree(root)
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from scow.model.descriptor import OCI_LAYER, Descriptor
from scow.model.digest import Digest

#: A time that no file gets by chance, in seconds.
WHEN: Final = 1_234_567_890

_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A tar member and its content."""

    info: tarfile.TarInfo
    data: bytes = b""


def _member(name: str, kind: bytes, mode: int, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, len(data), WHEN
    for key, value in fields.items():
        setattr(info, key, value)
    return Member(info, data)


def file(name: str, data: bytes = b"", mode: int = 0o644, **fields: Any) -> Member:
    """A regular file; `fields` are those of `tarfile.TarInfo`."""
    return _member(name, tarfile.REGTYPE, mode, data, **fields)


def directory(name: str, mode: int = 0o755, **fields: Any) -> Member:
    """A directory."""
    return _member(name, tarfile.DIRTYPE, mode, **fields)


def symlink(name: str, target: str) -> Member:
    """A symbolic link."""
    return _member(name, tarfile.SYMTYPE, 0o777, linkname=target)


def hardlink(name: str, target: str) -> Member:
    """Another name of `target`."""
    return _member(name, tarfile.LNKTYPE, 0o644, linkname=target)


def fifo(name: str, mode: int = 0o600) -> Member:
    """A named pipe."""
    return _member(name, tarfile.FIFOTYPE, mode)


def device(name: str, major: int, minor: int, mode: int = 0o600) -> Member:
    """A character device."""
    return _member(name, tarfile.CHRTYPE, mode, devmajor=major, devminor=minor)


def whiteout(name: str) -> Member:
    """Hides `name` in the layers below."""
    head, _, tail = name.rpartition("/")
    return file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")


def opaque(name: str) -> Member:
    """Hides all that the layers below have in the directory `name`."""
    return file(f"{name}/.wh..wh..opq" if name else ".wh..wh..opq")


def archive(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed archive; `form` is one of tarfile's formats."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            tar.addfile(member.info, io.BytesIO(member.data))
    return buffer.getvalue()


class BytesBlob:
    """A layer's blob in memory. `wrap` may replace the reader, to make it slow or faulty."""

    def __init__(self, data: bytes, media_type: str = OCI_LAYER, wrap: Callable[[BinaryIO], BinaryIO] | None = None):
        self._data = data
        self._wrap = wrap
        self._descriptor = Descriptor(media_type, Digest.of(data), len(data))

    @property
    def descriptor(self) -> Descriptor:
        """Of the bytes as they are."""
        return self._descriptor

    def open(self) -> BinaryIO:
        """A reader from the first byte."""
        reader = io.BytesIO(self._data)
        return self._wrap(reader) if self._wrap else reader


def gzipped(data: bytes) -> BytesBlob:
    """A layer as registries have most of them."""
    return BytesBlob(gzip.compress(data, 1, mtime=0), OCI_LAYER + "+gzip")


@dataclass(frozen=True, slots=True)
class Node:
    """An inode as a container sees it. `links` names the other names of a file that has several."""

    kind: str
    mode: int
    data: bytes = b""
    owner: tuple[int, int] = (0, 0)
    mtime: int = WHEN * 1_000_000_000
    links: frozenset[str] = frozenset()
    device: int = 0


def read_tree(root: Path) -> dict[str, Node]:
    """All that lies beneath `root`, by path; the root directory itself is left out."""
    found: dict[str, tuple[os.stat_result, bytes]] = {}
    for directory_, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory_, name)
            found[os.path.relpath(path, root)] = (os.lstat(path), _content(path))
    inodes: dict[tuple[int, int], set[str]] = {}
    for path, (status, _) in found.items():
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            inodes.setdefault((status.st_dev, status.st_ino), set()).add(path)
    return {path: _node(path, status, data, inodes) for path, (status, data) in found.items()}


def _content(path: str) -> bytes:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(path))
    return Path(path).read_bytes() if stat.S_ISREG(mode) else b""


def _node(path: str, status: os.stat_result, data: bytes, inodes: Mapping[tuple[int, int], set[str]]) -> Node:
    same = inodes.get((status.st_dev, status.st_ino), {path}) - {path}
    return Node(
        _KINDS[stat.S_IFMT(status.st_mode)],
        stat.S_IMODE(status.st_mode),
        data,
        (status.st_uid, status.st_gid),
        status.st_mtime_ns,
        frozenset(same),
        status.st_rdev,
    )


def contents(root: Path) -> dict[str, bytes | str]:
    """A tree in short: files with their content, all else with its kind."""
    return {path: node.data if node.kind == "file" else node.kind for path, node in read_tree(root).items()}
