"""Layers: one archive into each kind of storage. All take it or all refuse it, and nothing is written outside."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zstandard
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Finding, Target, check_error
from tests.unit.erofs.fsck import complaints
from tests.unit.erofs.reader import Reader
from tests.unit.layers.blocks import extended, header, long, old_sparse, padded, pair
from tests.unit.layers.compare import check_as_go
from tests.unit.layers.gotar import GoError

from scow.api import Digest, ScowError
from scow.api.layers import (
    LayerStream,
    Limits,
    LowerTree,
    Tree,
    apply_layer,
    copy_tree,
    plain,
    remove_tree,
    write_image,
    write_overlay_marks,
)
from scow.testing.layers import BytesBlob, archive, device, directory, fifo, file, hardlink, opaque, symlink, whiteout

LIMITS: Final = Limits(entries=2000, written=8 << 20)
_ROOT: Final = os.geteuid() == 0
#: What the limits allow, with whole blocks for each entry.
_DISK_MAX: Final = 32 << 20
#: With holes an image may be of any size; the reader takes all of it.
_READ_MAX: Final = 64 << 20
_PIECE_MAX: Final = 4 << 20
_INFLATED_MAX: Final = 128 << 20


def _gnu() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("n" * 180, "short", "d/" + "m" * 120):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"12345"))
    return buffer.getvalue()


def _sparse() -> bytes:
    info = tarfile.TarInfo("sparse")
    info.size = 512 + 2
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "8192"}
    return (
        info.tobuf(tarfile.PAX_FORMAT) + b"2\n0\n1\n8191\n1\n".ljust(512, b"\0") + b"ab".ljust(512, b"\0") + bytes(1024)
    )


_BELOW: Final = archive(
    directory("d"),
    file("d/f", b"lower"),
    symlink("d/l", ".."),
    directory("e"),
    file("e/g", b"g" * 5000),
    file("top", b"t"),
)
_SEEDS: Final = (
    archive(
        directory("a", 0o1777),
        file("a/b", b"x" * 700),
        symlink("a/l", "b"),
        hardlink("a/h", "a/b"),
        file("d/new", b"n"),
    ),
    archive(whiteout("d/f"), opaque("e"), file("e/new"), whiteout("top"), directory("top"), file("top/x", b"x")),
    archive(fifo("p"), device("null", 1, 3), file("c", b"", 0o4755), hardlink("h", "d/f"), symlink("loop", "loop")),
    archive(
        file("x", b"1", pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}),
        file("n" * 200, b"long", pax_headers={"comment": "c" * 600}),
    ),
    archive(symlink("out", "../victim"), file("out/x", b"x"), file("d/f", b"2"), directory(".")),
    _gnu(),
    _sparse(),
    archive(
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/8.650", b"kept"),
        hardlink("one", ".wh..wh.plnk/8.650"),
        hardlink("d/two", ".wh..wh.plnk/8.650"),
    ),
)
#: What readers of archives are known to read differently.
_ODD: Final = (
    header(size=b"000000001000") + header(b"evil") + padded(b"x") + bytes(1024),
    long(b"long") + extended(("mtime", "1.5")) + header() + bytes(1024),
    extended(("path", "pax"), ("size", "3")) + header(rest=b"prefix") + padded(b"abc") + bytes(1024),
    old_sparse(pair(0, 1) + pair(4000, 2), b"xyz") + bytes(1024),
)


def layer(data: bytes, place: Path) -> str:
    """Into an EROFS image, into a directory for overlayfs, into a whole tree."""
    (place / "victim").mkdir()
    (place / "victim" / "file").write_bytes(b"safe")
    (place / "lower").mkdir()
    _unpack(_BELOW, place / "lower", None, lambda tree: None)
    before = _outside(place)
    try:
        results = {name: _result(make, data, place) for name, make in _STORAGE.items()}
        if (after := _outside(place)) != before:
            raise Finding(f"something outside was changed: {after}, not {before}")
        if (used := _disk(place)) > _DISK_MAX:
            raise Finding(f"{len(data)} bytes take {used} bytes on the disk")
        _agree(results)
        return " ".join(results.values())
    finally:
        _empty(place)


def _result(make: Callable[[bytes, Path], None], data: bytes, place: Path) -> str:
    try:
        make(data, place)
    except ScowError as error:
        check_error(error)
        return f"{error.kind.value}: {error.message}"[:60]
    return "ok"


def _agree(results: dict[str, str]) -> None:
    """For root; without, device nodes are for images alone. One kind may reach a limit before another."""
    took = [name for name, said in results.items() if said == "ok"]
    if _ROOT and 0 < len(took) < len(results) and not any("exhausted" in said for said in results.values()):
        raise Finding(f"storage plugins disagree: {results}")


def _erofs(data: bytes, place: Path) -> None:
    path = place / "image"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    below = LowerTree.of(place / "lower")
    digest = Digest.of(data)
    try:
        blob = BytesBlob(data)
        write_image(blob, digest, digest, fd, lower=below, check=lambda: None, limits=LIMITS, eager=False)
    finally:
        os.close(fd)
        below.close()
    if path.stat().st_size < _READ_MAX:
        Reader(path)
    if said := complaints(path):
        raise Finding(f"fsck.erofs: {said[-500:]}")


def _overlay(data: bytes, place: Path) -> None:
    # Marks are trusted attributes and 0:0 devices, which are root's.
    (place / "overlay").mkdir()
    _unpack(data, place / "overlay", place / "lower", write_overlay_marks if _ROOT else lambda tree: None)


def _native(data: bytes, place: Path) -> None:
    def settle(tree: Tree) -> None:
        if tree.lower is not None and _ROOT:
            copy_tree(tree.lower.fd, tree.root, merge=lambda path: not tree.covers(path), check=lambda: None)

    (place / "native").mkdir()
    _unpack(data, place / "native", place / "lower", settle)


_STORAGE: Final = {"erofs": _erofs, "overlay": _overlay, "native": _native}


def _unpack(data: bytes, root: Path, lower: Path | None, settle: Callable[[Tree], None]) -> None:
    below = LowerTree.of(lower) if lower else None
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        apply_layer(
            BytesBlob(data),
            Digest.of(data),
            fd,
            lower=below,
            settle=settle,
            check=lambda: None,
            limits=LIMITS,
            owners=_ROOT,
        )
    finally:
        os.close(fd)
        if below:
            below.close()


def _outside(place: Path) -> object:
    """What a layer has no business with: the victim, the layer below, names beside them."""
    kept = [place / "victim", place / "victim/file", place / "lower", *sorted((place / "lower").rglob("*"))]
    known = [(path.name, path.lstat().st_mode, path.lstat().st_nlink, path.lstat().st_mtime_ns) for path in kept]
    return known, sorted(path.name for path in place.iterdir() if path.name not in ("image", *_STORAGE))


def _disk(place: Path) -> int:
    """Bytes on the disk; du goes as deep as a tree may be."""
    done = subprocess.run(["du", "-sk", str(place)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) << 10


def _empty(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(fd):
            remove_tree(fd, os.fsencode(name))
    finally:
        os.close(fd)


def _frames() -> tuple[bytes, ...]:
    data = b"layer " * 400 + bytes(5000)
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    skippable = b"\x50\x2a\x4d\x18\4\0\0\0skip"
    return (
        gzip.compress(data, mtime=0),
        gzip.compress(data, mtime=0) + gzip.compress(b"second", mtime=0) + bytes(20),
        gzip.compress(bytes(3 << 20), mtime=0),
        zstandard.compress(data),
        skippable + unsized.compress(data) + zstandard.compress(b"second"),
        zstandard.compress(bytes(3 << 20)),
        data,
    )


def stream(data: bytes, place: Path) -> str:
    """Inflating: however much comes out, little of it is held at a time."""
    total = 0
    for piece in plain(io.BytesIO(data)):
        if len(piece) > _PIECE_MAX:
            raise Finding(f"a piece of {len(piece)} bytes")
        total += len(piece)
        if total > _INFLATED_MAX:
            break
    with LayerStream(io.BytesIO(data), len(data), "sha256", lambda: None) as pieces:
        first = pieces.chunk()
    return f"{min(total, 1)} {bool(first)}"


def readers(data: bytes, place: Path) -> str:
    """Go's archive/tar sees the same files, or scow takes the archive for none."""
    try:
        return check_as_go(data)
    except AssertionError as error:
        raise Finding(f"Go sees other files: {str(error)[:300]}") from None
    except GoError as error:
        raise Finding(f"Go reads no such archive: {error}") from None


TARGETS: Final = (
    Target("readers", (*_SEEDS, *_ODD), Mutator.tar, readers, (b"d/", b"0,1", b"00000000", b"ustar", b" ", b"\0")),
    Target("layer", _SEEDS, Mutator.tar, layer, (b"d", b"d/f", b"e/g", b"top", b"../victim/file", b".wh.", b"/")),
    Target("stream", _frames(), Mutator.data, stream, (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")),
)
