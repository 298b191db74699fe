"""One image, one container, four drivers: the same tree, the same metadata, and the same layer when it is committed.

Left out is what the kernel's overlayfs itself does otherwise than a plain copy: it parts the names of a hard-linked
file of the image when one of them is written, and doesn't rename an image's directories (EXDEV).
fuse-overlayfs 1.10 isn't asked to rename a name of more than 251 bytes (it ends), to change a device or pipe of the
image (they become files), or something in a directory with a set-group-ID bit (which goes): docs/design/layers.md.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import struct
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conformance import trees

from scow.api import Corrupt
from scow.api.layers import TarWriter, write_changes
from scow.engine.rootfs import told
from scow.model.storage import Change, Snapshot
from scow.testing.layers import (
    WHEN,
    archive,
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

pytestmark = pytest.mark.root

DRIVERS = ("native", "overlay", "erofs", "fuse")
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)

Step: TypeAlias = Callable[[Path], object]


def _storages(base: Path, drivers: tuple[str, ...]) -> list[Storage]:
    made = [Storage(f"scow_plugins.{name}:Plugin", name, base / name) for name in drivers]
    for storage in made:
        unavailable = storage.plugin.probe()
        if unavailable is not None:
            pytest.skip(f"{storage.driver}: {unavailable.reason}")
    return made


@dataclass(frozen=True, slots=True)
class Seen:
    """All that can be known of a container's files from outside."""

    image: object
    after: object
    failures: tuple[object, ...]
    changes: tuple[Change, ...]
    layer: str


async def _seen(storage: Storage, layers: list[bytes], steps: list[Step]) -> tuple[Seen, bytes]:
    snapshots = await storage.unpack(*layers)
    async with storage.mounted(snapshots) as root:
        read_tree(root)  # fuse-overlayfs counts those names of an inode that it has come across
        image, began = trees.everything(root), root.stat().st_mtime_ns
        failures = tuple(_attempt(step, root) for step in steps)
        # Times of what was changed are those of the moment; make them all one.
        with storage.plugin.changes(snapshots, _scratch(storage)) as written:
            changed = {change.path for change in told(written.changes, (), ())}
            touched = {change.path for change in written.changes if change.time_only} - changed
        for path in sorted(changed, reverse=True):
            _stamp(root / os.fsdecode(path))
        # That of a directory in which nothing has changed in the end, and the root's, isn't in a layer.
        for path in touched - {b""}:
            node, _ = image[os.fsdecode(path)]  # type: ignore[misc]
            os.utime(root / os.fsdecode(path), ns=(node.mtime, node.mtime))
        os.utime(root, ns=(began, began))
        after = trees.everything(root)
        beside = _layer(storage, snapshots)
    layer = _layer(storage, snapshots)
    assert layer == beside, "a running container's layer is another one than that of the same one stopped"
    with storage.plugin.changes(snapshots, _scratch(storage)) as written:
        changes = tuple(told(written.changes, (), ()))
    return Seen(image, after, failures, changes, hashlib.sha256(layer).hexdigest()), layer


def _scratch(storage: Storage) -> Path:
    return storage.base / "scratch" / "one"


def _attempt(step: Step, root: Path) -> object:
    try:
        step(root)
    except OSError as error:
        return error.errno
    return None


def _stamp(path: Path) -> None:
    try:
        os.utime(path, ns=(WHEN * 10**9, WHEN * 10**9 + 7), follow_symlinks=False)
    except FileNotFoundError:
        pass


def _layer(storage: Storage, snapshots: tuple[Snapshot, ...]) -> bytes:
    """What `commit` would write."""
    data: list[bytes] = []
    with storage.plugin.changes(snapshots, _scratch(storage)) as written:
        writer = TarWriter(data.append)
        write_changes(writer, written.root, told(written.changes, (), ()))
        writer.end()
    return b"".join(data)


async def _all_the_same(
    base: Path, layers: list[bytes], steps: list[Step], drivers: tuple[str, ...] = DRIVERS
) -> bytes:
    """Compare the drivers, then the image that `commit` makes of it; gives the layer."""
    first: Seen | None = None
    refusals = set()
    layer = b""
    for storage in _storages(base, drivers):
        try:
            seen, layer = await _seen(storage, layers, steps)
        except Corrupt as error:
            refusals.add(str(error))
            continue
        first = first or seen
        assert _difference(seen, first) == [], storage.driver
        again = await storage.unpack(*layers, layer)
        async with storage.mounted(again, "committed") as root:
            read_tree(root)
            assert trees.everything(root) == seen.after, f"{storage.driver}: the image isn't what the container was"
    assert not refusals or (len(refusals) == 1 and first is None), refusals
    return layer


def _difference(one: Seen, other: Seen) -> list[object]:
    """Nothing, or what isn't the same."""
    found: list[object] = []
    for field in fields(Seen):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, dict):
            paths = [path for path in {**mine, **theirs} if mine.get(path) != theirs.get(path)]
            found += [(field.name, path, mine.get(path), theirs.get(path)) for path in paths]
        elif mine != theirs:
            found.append((field.name, mine, theirs))
    return found


async def test_everything_that_a_container_can_do(tmp_path: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": _CAPABILITY.decode("latin-1"), "SCHILY.xattr.user.n": "1"}
    base = archive(
        directory("d", 0o1777, uid=7, gid=8), file("d/a", b"a" * 9000, 0o4755, uid=1), file("d/b", b"b"),
        file("d/cap", b"c", 0o755, pax_headers=capability), symlink("d/link", "a"), fifo("d/pipe"),
        device("d/null", 1, 3, 0o666), directory("gone"), file("gone/x"), directory("gone/deep"), file("gone/deep/y"),
        directory("again"), file("again/old", b"old"), file("kind", b"file"), directory("kinds"), file("kinds/in"),
        hardlink("one", "d/b"), file("n" * 255, b"long"), file("r" * 251, b"renamed"),
        file("exact", pax_headers={"mtime": "1234567890.123456789"}),
    )  # fmt: skip
    top = archive(whiteout("d/link"), opaque("again"), file("again/new", b"new"), file("d/top", b"top", 0o600, gid=3))
    layer = await _all_the_same(tmp_path, [base, top], [
        lambda root: (root / "made").mkdir(0o700),
        lambda root: (root / "made/file").write_bytes(b"m" * 100_000),
        lambda root: os.link(root / "made/file", root / "made/same"),
        lambda root: (root / "made/soft").symlink_to("../d/a"),
        lambda root: os.mkfifo(root / "made/fifo", 0o640),
        lambda root: os.mknod(root / "made/zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5)),
        lambda root: os.chown(root / "made/soft", 5, 6, follow_symlinks=False),
        lambda root: os.setxattr(root / "made", "user.mine", b"yes"),
        lambda root: os.setxattr(root / "made/file", "security.capability", _CAPABILITY),
        lambda root: (root / "d/a").write_bytes(b"other"),
        lambda root: (root / "d/a").chmod(0o6711),
        lambda root: os.truncate(root / "d/cap", 0),
        lambda root: os.chown(root / "d", 9, 9),
        lambda root: (root / "d/top").unlink(),
        lambda root: shutil.rmtree(root / "gone"),
        lambda root: shutil.rmtree(root / "again"),
        lambda root: (root / "again").mkdir(0o711),
        lambda root: (root / "again/newer").write_bytes(b"n"),
        lambda root: (root / "kind").unlink(),
        lambda root: (root / "kind").mkdir(),
        lambda root: shutil.rmtree(root / "kinds"),
        lambda root: (root / "kinds").write_bytes(b"file now"),
        lambda root: os.rename(root / ("r" * 251), root / "short"),
        lambda root: os.rename(root / "made/file", root / "d/pipe"),
        lambda root: (root / "made/zero").chmod(0o600),
        lambda root: os.removexattr(root / "d/cap", "user.n"),
        lambda root: os.setxattr(root / "exact", "trusted.t", b"t"),
        lambda root: os.utime(root / "made/zero", ns=(1, -1_500_000_000)),
    ])  # fmt: skip
    assert len(layer) > 100_000


async def test_nodes_and_long_names_of_the_image(tmp_path: Path) -> None:
    layers = [
        archive(
            fifo("pipe"),
            device("null", 1, 3, 0o666),
            file("n" * 255),
            directory("d"),
            file("d/f"),
            directory("group", 0o2775),
        )
    ]
    steps: list[Step] = [
        lambda root: (root / "null").chmod(0o600),
        lambda root: os.utime(root / "pipe", ns=(1, -1_500_000_000)),
        lambda root: os.chown(root / "pipe", 3, 3),
        lambda root: shutil.rmtree(root / "d"),
        lambda root: (root / "group/in").mkdir(),
        lambda root: os.rename(root / ("n" * 255), root / "short"),
    ]
    await _all_the_same(tmp_path, layers, steps, ("native", "overlay", "erofs"))


_STEP: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda path, data: lambda root: (root / path).write_bytes(data), trees.PATH, trees.DATA),
    st.builds(lambda path, mode: lambda root: (root / path).mkdir(mode), trees.PATH, trees.MODE),
    st.builds(lambda path: lambda root: (root / path).unlink(), trees.PATH),
    st.builds(lambda path: lambda root: shutil.rmtree(root / path), trees.PATH),
    st.builds(lambda path, to: lambda root: (root / path).symlink_to(to), trees.PATH, trees.PATH),
    st.builds(lambda path, uid: lambda root: os.lchown(root / path, uid, 4), trees.PATH, st.integers(0, 3)),
    st.builds(lambda path, to: lambda root: os.link(root / path, root / to, follow_symlinks=False), *[trees.PATH] * 2),
    st.builds(lambda path: lambda root: os.setxattr(root / path, "user.s", b"s"), trees.PATH),
)


def _tame(member: trees.Member) -> bool:
    """See above; and nothing that opening would wait for."""
    special = member.info.type == trees.DIRECTORY and member.info.mode & 0o6000
    return not special and member.info.type not in trees.LINKS_AND_NODES


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(trees.MEMBER.filter(_tame), max_size=8), min_size=1, max_size=3), st.lists(_STEP, max_size=8))
def test_whatever_a_container_does(tmp_path: Path, layers: list[list[trees.Member]], steps: list[Step]) -> None:
    base = Path(tempfile.mkdtemp(dir=tmp_path))
    try:
        trio.run(_all_the_same, base, [archive(*members) for members in layers], steps)
    finally:
        shutil.rmtree(base)


async def test_a_new_name_of_an_image_s_file(tmp_path: Path) -> None:
    """The old one is in the layer, too, though nothing of it changed: else they would be two files in the image."""
    layers = [archive(directory("d"), file("d/one", b"1", 0o640), fifo("pipe"), file("other", b"2"))]
    steps: list[Step] = [
        lambda root: os.link(root / "d/one", root / "two"),
        lambda root: os.link(root / "other", root / "d/again"),
        lambda root: (root / "other").unlink(),
    ]
    layer = await _all_the_same(tmp_path, layers, steps)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        kinds = {info.name: info.type for info in tar if not info.isdir()}
    assert kinds == {
        "d/again": tarfile.REGTYPE,
        "d/one": tarfile.REGTYPE,
        "two": tarfile.LNKTYPE,
        ".wh.other": tarfile.REGTYPE,
    }


async def test_a_layer_holds_no_whiteout_that_is_a_file(tmp_path: Path) -> None:
    """A container's own file of such a name would hide another one in the image that is made of it."""
    from scow.api import Unsupported

    storage = Storage("scow_plugins.overlay:Plugin", "overlay", tmp_path)
    if (unavailable := storage.plugin.probe()) is not None:
        pytest.skip(unavailable.reason)
    snapshots = await storage.unpack(archive(file("hidden")))
    async with storage.mounted(snapshots) as root:
        (root / ".wh.hidden").write_bytes(b"")
    with pytest.raises(Unsupported, match=r"can't hold '?\.wh\.hidden"):
        _layer(storage, snapshots)
