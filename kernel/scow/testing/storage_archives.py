"""Checks of storage drivers: archives that are broken or mean harm are refused, and leave nothing."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable

from scow.errors import Corrupt, Exhausted
from scow.model.descriptor import OCI_LAYER
from scow.model.storage import UnpackRequest
from scow.testing.layers import (
    BytesBlob,
    archive,
    contents,
    directory,
    fifo,
    file,
    hardlink,
    symlink,
)
from scow.testing.storage import Storage, refused


async def check_climbing_names(storage: Storage) -> None:
    """Names that lead out of the root are refused; those that only look odd are taken as beneath it."""
    for name in ("../escape", "a/../../escape", "/../escape", "a/b/../../../escape"):
        await refused(storage, archive(file(name, b"out")), Corrupt)
        await refused(storage, archive(file("f"), hardlink("h", name)), Corrupt)
    assert not list(storage.base.rglob("escape"))
    async with storage.mounted(await storage.unpack(archive(file("/abs", b"1"), file("a/./b/../c", b"2")))) as root:
        assert contents(root) == {"abs": b"1", "a": "directory", "a/c": b"2"}


async def check_links_out_of_the_root(storage: Storage) -> None:
    """Writing through a link that points at the host lands in the image; hard links to the host don't exist."""
    target = storage.base / "host"
    target.mkdir()
    (target / "secret").write_bytes(b"host's")
    attack = archive(
        symlink("out", str(target)),
        file("out/written", b"!"),
        symlink("rel", "../" * 30 + str(target).lstrip("/")),
        file("rel/written2", b"!"),
        symlink("last", f"{target}/secret"),
        file("last", b"replaced the link"),
    )
    async with storage.mounted(await storage.unpack(attack)) as root:
        inside = str(target).lstrip("/")
        tree = contents(root)
        assert tree[f"{inside}/written"] == tree[f"{inside}/written2"] == b"!"
        assert tree["last"] == b"replaced the link"
    assert contents(target) == {"secret": b"host's"}


async def check_hard_links_to_the_host(storage: Storage) -> None:
    """Neither by an absolute name nor over a link."""
    target = storage.base / "secret"
    target.write_bytes(b"host's")
    for members in (
        [hardlink("h", str(target))],
        [symlink("s", str(storage.base)), hardlink("h", "s/secret")],
        [directory("d"), hardlink("h", "d")],
        [hardlink("h", "h")],
        [directory("d"), file("d/f"), hardlink("d", "d/f")],
    ):
        await refused(storage, archive(*members), Corrupt)
    assert target.stat().st_nlink == 1


async def check_parents_that_are_no_directories(storage: Storage) -> None:
    """A file, a pipe or a loop of links in a parent's place is refused, without waiting on it."""
    for member in (file("p"), fifo("p"), symlink("p", "p"), symlink("p", "f")):
        await refused(storage, archive(file("f"), member, file("p/x")), Corrupt)
    below = await storage.unpack(archive(file("p")))
    await refused(storage, archive(file("p/x")), Corrupt, below=below)


async def check_senseless_whiteouts(storage: Storage) -> None:
    """A whiteout of nothing, of the directory itself, or of its parent (which once removed the host's files)."""
    for name in (".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."):
        await refused(storage, archive(directory("a"), file(name)), Corrupt)


async def check_overlay_attributes_are_ignored(storage: Storage) -> None:
    """An image can't steer the mount by attributes that the kernel reads from a layer."""
    steering = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/other",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    base = archive(directory("d"), file("d/x", b"1"), directory("other"), file("other/y"))
    top = archive(directory("d", pax_headers=steering))
    async with storage.mounted(await storage.unpack(base, top)) as root:
        assert contents(root) == {"d": "directory", "d/x": b"1", "other": "directory", "other/y": b""}


async def check_odd_names(storage: Storage) -> None:
    """Names that no file system takes are refused; the longest that one takes, and any bytes, are fine."""
    await refused(storage, archive(file("n" * 256)), Corrupt)
    await refused(storage, archive(file("/".join(["d" * 200] * 40))), Corrupt)
    deep = "/".join(["d"] * 1500)
    snapshots = await storage.unpack(archive(file(deep), file("nl\n", b"1"), file("ü", b"2")))
    async with storage.mounted(snapshots) as root:
        assert set(os.listdir(root)) == {"d", "nl\n", "ü"}
    # Deeper than most programs can remove.
    storage.plugin.erase(storage.base / "scratch" / "one")
    storage.plugin.remove(snapshots[-1].chain_id)


async def check_not_an_archive(storage: Storage) -> None:
    """Anything that isn't a tar archive."""
    for data in (b"hello", b"x" * 512, b"\x7fELF" + bytes(5000), os.urandom(3000), archive(file("f"))[:300]):
        await refused(storage, data, Corrupt)


async def check_cut_short(storage: Storage) -> None:
    """An archive, or its compression, that ends too early; also where the archive ends between two entries."""
    whole = archive(file("a", b"a" * 5000), file("b", os.urandom(200_000)))
    for length in (100, 700, 5000, 100_000):
        await refused(storage, whole[:length], Corrupt)
    request = storage.request(whole)
    for data in (
        gzip.compress(whole)[:-9],
        gzip.compress(whole)[:50_000],
        whole[:6144],
        gzip.compress(whole) + b"junk",
    ):
        blob = BytesBlob(data, OCI_LAYER + "+gzip")
        await _corrupt(
            storage, UnpackRequest(request.driver, blob.descriptor, request.diff_id, request.chain_id, (), blob)
        )


async def check_wrong_diff_id(storage: Storage) -> None:
    """Another archive than the configuration says; or the right one with something behind it."""
    right, wrong = archive(file("f", b"right")), archive(file("f", b"wrong"))
    request = storage.request(right)
    for data in (wrong, right + bytes(10240), right + b"more"):
        blob = BytesBlob(gzip.compress(data), OCI_LAYER + "+gzip")
        await _corrupt(
            storage, UnpackRequest(request.driver, blob.descriptor, request.diff_id, request.chain_id, (), blob)
        )


async def check_what_stands_behind_the_archive_counts(storage: Storage) -> None:
    """The diff ID is of all bytes, also of padding behind the end."""
    async with storage.mounted(await storage.unpack(archive(file("f", b"1")) + bytes(1 << 20))) as root:
        assert contents(root) == {"f": b"1"}


async def check_claims_of_size(storage: Storage) -> None:
    """A file that says to be enormous is refused before the disk is full."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    header = info.tobuf(tarfile.GNU_FORMAT)
    await refused(storage, header + bytes(4096), Corrupt, Exhausted)


async def check_compressions(storage: Storage) -> None:
    """gzip of several members, zstd of several frames, none; whatever the media type says."""
    import zstandard

    zstd = zstandard.ZstdCompressor().compress
    packings: list[tuple[Callable[[bytes], bytes], str]] = [
        (lambda data: gzip.compress(data[:3000]) + gzip.compress(data[3000:]), "+gzip"),
        (lambda data: zstd(data[:3000]) + zstd(data[3000:]), "+zstd"),
        (bytes, ""),
        (bytes, "+gzip"),
        (gzip.compress, "+zstd"),
        (lambda data: gzip.compress(data) + bytes(512), "+gzip"),
    ]
    for number, (pack, suffix) in enumerate(packings):
        data = archive(file("f", b"%d" % number * 9000))
        snapshot = await storage.run(storage.request(data, (), BytesBlob(pack(data), OCI_LAYER + suffix)))
        async with storage.mounted((snapshot,), str(number)) as root:
            assert contents(root) == {"f": b"%d" % number * 9000}


async def _corrupt(storage: Storage, request: UnpackRequest) -> None:
    try:
        await storage.run(request)
    except Corrupt:
        storage.check_empty()
        return
    raise AssertionError("unpacked, although the bytes are not those of the diff ID")
