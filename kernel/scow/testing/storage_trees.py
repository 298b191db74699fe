"""Checks of storage drivers: layers become the tree that they describe."""

from __future__ import annotations

import os
import struct
import tarfile
from pathlib import Path

from scow.testing.layers import (
    WHEN,
    archive,
    contents,
    device,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    read_tree,
    symlink,
    whiteout,
)
from scow.testing.storage import Storage


async def check_metadata_is_kept(storage: Storage) -> None:
    """Owners, modes with set-user-ID and sticky bits, times with nanoseconds, attributes, capabilities, devices."""
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    xattrs = {"SCHILY.xattr.user.note": "yes", "SCHILY.xattr.security.capability": capability.decode("latin-1")}
    layer = archive(
        directory("d", 0o1777, uid=7, gid=8),
        file("d/suid", b"x", 0o4755, uid=1000, gid=1001),
        file("d/exact", b"", pax_headers={"mtime": "1234567890.123456789"}),
        file("d/cap", b"y", 0o755, pax_headers=xattrs),
        symlink("d/link", "/nowhere"),
        fifo("d/pipe", 0o622),
        device("d/null", 1, 3, 0o666),
        file("d/" + "n" * 255, b"long"),
        directory("locked", 0o000),
        file("locked/in", b"z", 0o000),
    )
    async with storage.mounted(await storage.unpack(layer)) as root:
        tree = read_tree(root)
        assert (tree["d"].mode, tree["d"].owner, tree["d"].mtime) == (0o1777, (7, 8), WHEN * 10**9)
        assert (tree["d/suid"].mode, tree["d/suid"].owner) == (0o4755, (1000, 1001))
        assert tree["d/exact"].mtime == 1234567890_123456789
        assert os.getxattr(root / "d/cap", "security.capability") == capability
        assert os.getxattr(root / "d/cap", "user.note") == b"yes"
        assert (tree["d/link"].kind, tree["d/link"].data, tree["d/link"].mtime) == (
            "symlink",
            b"/nowhere",
            WHEN * 10**9,
        )
        assert (tree["d/pipe"].kind, tree["d/pipe"].mode) == ("fifo", 0o622)
        assert (tree["d/null"].kind, tree["d/null"].mode, tree["d/null"].device) == ("char", 0o666, os.makedev(1, 3))
        assert tree["d/" + "n" * 255].data == b"long"
        assert (tree["locked"].mode, tree["locked/in"].mode) == (0, 0)


async def check_layers_add_up(storage: Storage) -> None:
    """Several layers make one tree, the topmost wins, and a directory that a layer only uses keeps its metadata."""
    snapshots = await storage.unpack(
        archive(directory("a", 0o700, uid=5), file("a/one", b"1"), file("a/two", b"2"), directory("b")),
        archive(file("a/two", b"22"), file("a/three", b"3"), directory("b", 0o711)),
    )
    async with storage.mounted(snapshots) as root:
        tree = read_tree(root)
        assert contents(root) == {"a": "directory", "a/one": b"1", "a/two": b"22", "a/three": b"3", "b": "directory"}
        assert (tree["a"].mode, tree["a"].owner, tree["a"].mtime) == (0o700, (5, 0), WHEN * 10**9)
        assert tree["b"].mode == 0o711


async def check_whiteouts(storage: Storage) -> None:
    """They hide files, links and whole directories of lower layers, and leave no trace."""
    snapshots = await storage.unpack(
        archive(directory("a"), file("a/x"), file("a/y"), directory("a/d"), file("a/d/z"), symlink("a/l", "x")),
        archive(whiteout("a/x"), whiteout("a/d"), whiteout("a/l"), whiteout("never/was")),
    )
    async with storage.mounted(snapshots) as root:
        assert contents(root) == {"a": "directory", "a/y": b"", "never": "directory"}


async def check_opaque_directories(storage: Storage) -> None:
    """They hide what lower layers have in them, wherever in the archive they are said to be opaque."""
    base = archive(directory("a"), file("a/x"), directory("b"), file("b/x"), directory("b/d"), file("b/d/z"))
    top = archive(opaque("a"), file("a/new", b"n"), whiteout("b/d"), file("b/new", b"n"), opaque("b"))
    async with storage.mounted(await storage.unpack(base, top)) as root:
        assert contents(root) == {"a": "directory", "a/new": b"n", "b": "directory", "b/new": b"n"}


async def check_opaque_root(storage: Storage) -> None:
    """The root itself may be opaque."""
    base = archive(directory("a"), file("a/x"), file("f"), directory("keep"), file("keep/old"))
    top = archive(directory("keep"), opaque(""), file("keep/new"))
    async with storage.mounted(await storage.unpack(base, top)) as root:
        assert contents(root) == {"keep": "directory", "keep/new": b""}


async def check_whiteout_spares_own_layer(storage: Storage) -> None:
    """A whiteout is about lower layers, whichever comes first in the archive (OCI image spec, layer.md)."""
    base = archive(directory("d"), file("d/old"), file("f", b"old"), file("g", b"old"))
    top = archive(
        directory("d"), file("d/new"), whiteout("d"), file("f", b"new"), whiteout("f"), whiteout("g"), file("g", b"new")
    )
    async with storage.mounted(await storage.unpack(base, top)) as root:
        assert contents(root) == {"d": "directory", "d/new": b"", "f": b"new", "g": b"new"}


async def check_directory_made_again(storage: Storage) -> None:
    """A directory that is removed and made again in one layer is empty of what was below."""
    base = archive(directory("d"), file("d/old"), directory("e"), file("e/old"))
    top = archive(whiteout("d"), directory("d"), file("d/new"), file("e"), directory("e"))
    async with storage.mounted(await storage.unpack(base, top)) as root:
        assert contents(root) == {"d": "directory", "d/new": b"", "e": "directory"}


async def check_kinds_change(storage: Storage) -> None:
    """A file replaces a directory, a directory a file or link; of two entries of one layer the last wins."""
    base = archive(directory("d"), file("d/x"), file("f"), symlink("l", "d"))
    top = archive(
        file("d", b"file now"), directory("f"), directory("l"), file("l/y"),
        directory("twice"), file("twice/x"), file("twice", b"last"), file("again", b"1"), file("again", b"2"),
    )  # fmt: skip
    async with storage.mounted(await storage.unpack(base, top)) as root:
        assert contents(root) == {
            "d": b"file now", "f": "directory", "l": "directory", "l/y": b"", "twice": b"last", "again": b"2",
        }  # fmt: skip


async def check_hard_links(storage: Storage) -> None:
    """Names of one inode stay so; a link to a file of a lower layer works."""
    base = archive(directory("a"), file("a/one", b"1", 0o640, uid=3), hardlink("two", "a/one"))
    top = archive(hardlink("three", "/a/one"), symlink("s", "nowhere"), hardlink("s2", "s"))
    snapshots = await storage.unpack(base)
    async with storage.mounted(snapshots, "base") as root:
        assert read_tree(root)["two"].links == {"a/one"}
    async with storage.mounted(await storage.unpack(base, top), "both") as root:
        tree = read_tree(root)
        assert tree["three"].data == b"1"
        assert (tree["three"].mode, tree["three"].owner) == (0o640, (3, 0))
        assert "a/one" in tree["three"].links
        assert tree["s2"].kind == "symlink"
        assert tree["a"].mtime == WHEN * 10**9


async def check_any_order_in_any_form(storage: Storage) -> None:
    """Children before their parents, a directory's metadata late, entries twice; both forms of long names."""
    long, deep = "n" * 180, "d/" + "sub/" * 60 + "file"
    members = [
        file(deep, b"deep"),
        file(f"d/{long}", b"long"),
        hardlink(f"elsewhere/{long}", f"d/{long}"),
        symlink("link", "t" * 300),
        directory("elsewhere", 0o700),
        file("d/twice", b"first", 0o600),
        file("d/twice", b"second", 0o640, uid=3_000_000),
        directory("d", 0o700, uid=1),
        file("d/after", b"a"),
        directory("d", 0o711, uid=2),
        directory("d/sub", 0o750),
    ]
    for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        below = archive(directory("d", 0o777), file("d/twice", b"below"))
        snapshots = await storage.unpack(below, archive(*members, form=form))
        async with storage.mounted(snapshots, name) as root:
            tree = read_tree(root)
            assert (tree["d"].mode, tree["d"].owner, tree["d"].mtime) == (0o711, (2, 0), WHEN * 10**9)
            assert (tree["d/sub"].mode, tree["d/sub"].mtime) == (0o750, WHEN * 10**9)
            assert (tree["elsewhere"].mode, tree["elsewhere"].mtime) == (0o700, WHEN * 10**9)
            assert (tree["d/twice"].data, tree["d/twice"].mode) == (b"second", 0o640)
            assert tree["d/twice"].owner == (3_000_000, 0)
            assert tree[deep].data == b"deep"
            assert tree[f"d/{long}"].links == {f"elsewhere/{long}"}
            assert (tree["link"].data, tree["d/after"].data) == (b"t" * 300, b"a")
            assert len(tree) == 9 + 59, sorted(tree)


async def check_links_in_paths(storage: Storage) -> None:
    """Where a parent is a link, of this layer or of a lower one, files go where it leads within the image."""
    base = archive(directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib"))
    top = archive(
        file("lib/a"), file("abs/b"), symlink("up", "../../../../usr"), file("up/c"),
        symlink("dangling", "made/here"), file("dangling/d"),
    )  # fmt: skip
    async with storage.mounted(await storage.unpack(base, top)) as root:
        tree = contents(root)
        assert {"usr/lib/a", "usr/lib/b", "usr/c", "made/here/d"} <= tree.keys()
        assert tree["lib"] == tree["abs"] == tree["up"] == "symlink"


async def check_writes_stay_in_scratch(storage: Storage) -> None:
    """What a container writes is kept for it, and neither its image nor another container sees it."""
    snapshots = await storage.unpack(archive(directory("d"), file("d/f", b"image"), file("gone")))
    before = _stored(snapshots[-1].path)
    for volatile in (False, True):
        name = f"volatile-{volatile}"
        async with storage.mounted(snapshots, name, volatile=volatile) as root:
            (root / "d/f").write_bytes(b"mine")
            (root / "gone").unlink()
            (root / "new").write_bytes(b"n")
        async with storage.mounted(snapshots, name, volatile=volatile) as root:
            assert contents(root) == {"d": "directory", "d/f": b"mine", "new": b"n"}
        async with storage.mounted(snapshots, f"other-{volatile}") as root:
            assert contents(root) == {"d": "directory", "d/f": b"image", "gone": b""}
    assert _stored(snapshots[-1].path) == before


async def check_empty_images(storage: Storage) -> None:
    """An image may have no layer, or an empty one."""
    async with storage.mounted((), "none") as root:
        assert contents(root) == {}
        (root / "f").write_bytes(b"x")
    async with storage.mounted(await storage.unpack(archive()), "empty") as root:
        assert contents(root) == {}


async def check_root_directory_metadata(storage: Storage) -> None:
    """The root's own mode comes from the layer that says something about it."""
    snapshots = await storage.unpack(archive(directory("./", 0o750, uid=4), file("f")), archive(file("g")))
    async with storage.mounted(snapshots) as root:
        status = root.stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (0o750, 4)


def _stored(snapshot: Path) -> object:
    """What a snapshot holds, whether it is a directory or a file."""
    return contents(snapshot) if snapshot.is_dir() else snapshot.read_bytes()
