"""An image in an archive as one tree: every path with what makes it a file of its own, whatever layers say it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard


@dataclass(frozen=True)
class Entry:
    """One path. `content` is a file's digest, a link's target, or a device's numbers; times aren't looked at."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()


def image_of(archive: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Configuration and tree of the only image of an archive as `docker save` writes it."""
    with tarfile.open(archive) as tar:
        (image,) = json.loads(_read(tar, "manifest.json"))
        tree: dict[str, Entry] = {}
        for layer in image["Layers"]:
            _apply(tree, _plain(_read(tar, layer)))
        return json.loads(_read(tar, image["Config"])), tree


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _plain(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


def _apply(tree: dict[str, Entry], layer: bytes) -> None:
    """One layer on top (OCI image spec, layer.md): whiteouts speak of what is below, whatever their place."""
    added: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            path = posixpath.normpath("/" + member.name)
            directory, name = posixpath.split(path)
            if name == ".wh..wh..opq":
                _remove(tree, directory, itself=False)
            elif name.startswith(".wh."):
                _remove(tree, posixpath.join(directory, name[4:]), itself=True)
            elif member.islnk():
                target = posixpath.normpath("/" + member.linkname)
                added[path] = added.get(target) or tree[target]
            else:
                added[path] = _entry(tar, member)
    for path, entry in added.items():
        if entry.kind != "directory":
            _remove(tree, path, itself=True)
        tree[path] = entry


def _remove(tree: dict[str, Entry], path: str, *, itself: bool) -> None:
    for known in [each for each in tree if each.startswith(path.rstrip("/") + "/") or (itself and each == path)]:
        del tree[known]


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    content = ""
    if member.isreg():
        file = tar.extractfile(member)
        assert file is not None
        content = hashlib.sha256(file.read()).hexdigest()
    elif member.issym():
        content = member.linkname
    elif member.isdev() and not member.isfifo():
        content = f"{member.devmajor}:{member.devminor}"
    mode = 0o777 if member.issym() else member.mode & 0o7777
    prefix = "SCHILY.xattr."
    xattrs = {name.removeprefix(prefix): text for name, text in member.pax_headers.items() if name.startswith(prefix)}
    return Entry(_KINDS[member.type], mode, (member.uid, member.gid), content, tuple(sorted(xattrs.items())))
