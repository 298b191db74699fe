"""EROFS images in the kernel's hands: the same trees as directories give, at any size, on both ways of mounting."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from tests.conformance.trees import LAYERS, everything

from scow.api import Corrupt, NotFound, Snapshot
from scow.api.layers import detached
from scow.testing.layers import (
    Member,
    archive,
    device,
    directory,
    file,
    hardlink,
)
from scow.testing.storage import Storage
from scow_plugins.erofs._layer import mount_image

pytestmark = pytest.mark.root

_FSCK = shutil.which("fsck.erofs")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage("scow_plugins.erofs:Plugin", "erofs", tmp_path / "erofs")
    unavailable = made.plugin.probe()
    if unavailable is not None:
        pytest.skip(unavailable.reason)
    yield made
    if _FSCK:
        for image in (tmp_path / "erofs/state/layers").glob("*.erofs"):
            _fsck(image)


def _fsck(image: Path) -> None:
    assert _FSCK is not None
    done = subprocess.run([_FSCK, str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<E>" not in done.stdout + done.stderr


async def _same(layers: list[bytes], base: Path) -> None:
    """Both drivers give the same tree for the same layers, or refuse them both."""
    trees: list[object] = []
    for name in ("overlay", "erofs"):
        driver = Storage(f"scow_plugins.{name}:Plugin", name, base / name)
        try:
            snapshots = await driver.unpack(*layers)
        except Corrupt as error:
            trees.append(str(error))
            continue
        async with driver.mounted(snapshots) as root:
            trees.append(everything(root))
    assert trees[0] == trees[1]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LAYERS)
def test_directories_and_images_are_the_same(storage: Storage, layers: list[list[Member]]) -> None:
    base = Path(tempfile.mkdtemp(dir=storage.base))
    try:
        trio.run(_same, [archive(*members) for members in layers], base)
    finally:
        shutil.rmtree(base)


async def test_attributes_of_all_kinds(storage: Storage) -> None:
    acl = b"\2\0\0\0" + b"".join(
        struct.pack("<HHI", *entry)
        for entry in [
            (1, 6, 0xFFFFFFFF),
            (2, 4, 1000),
            (4, 4, 0xFFFFFFFF),
            (0x10, 4, 0xFFFFFFFF),
            (0x20, 4, 0xFFFFFFFF),
        ]
    )
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    headers = {
        "SCHILY.xattr.system.posix_acl_access": acl.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.trusted.t": "t",
        "SCHILY.xattr.user.empty": "",
        "SCHILY.xattr.security.selinux": "dropped",
        "SCHILY.xattr.nonsense": "dropped",
    }
    layers = [
        archive(
            file("f", b"x", 0o644, pax_headers=headers),
            directory("d", pax_headers={"SCHILY.xattr.user.d": "1"}),
            Member(_info("l", tarfile.SYMTYPE, linkname="f", pax_headers={"SCHILY.xattr.user.dropped": "1"})),
            device("zero", 0, 0),
            directory(".", 0o711, pax_headers={"SCHILY.xattr.user.root": "1"}),
        )
    ]
    await _same(layers, storage.base)
    async with storage.mounted(await storage.unpack(*layers)) as root:
        assert os.getxattr(root / "f", "system.posix_acl_access") == acl
        assert os.getxattr(root / "f", "security.capability") == capability
        assert os.getxattr(root / "f", "user.empty") == b""


def _info(name: str, kind: bytes, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


async def test_a_hundred_thousand_names(storage: Storage) -> None:
    count = 100_000
    async with storage.mounted(await storage.unpack(_many(count))) as root:
        assert len(os.listdir(root / "d")) == count
        for number in (0, 1, 99, 50_000, count - 1):
            assert (root / f"d/{number:07d}-name-of-a-file").read_bytes() == b"%d" % number
        assert not (root / "d/nothing").exists()


def _many(count: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(count):
            data = b"%d" % number
            info = tarfile.TarInfo(f"d/{number:07d}-name-of-a-file")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def test_memory_stays_flat(storage: Storage) -> None:
    """A layer of 80,000 entries and 120 MB, unpacked by a process of its own, takes under 150 MB."""
    path = storage.base / "layer.tar"
    with tarfile.open(path, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(80_000):
            data = os.urandom(16) * 70
            info = tarfile.TarInfo(f"usr/share/some/where/{number % 997}/{number:07d}-name-of-a-file")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    code = (
        "import sys, os, hashlib\n"
        "from scow.api.layers import Limits, write_image\n"
        "from scow.api import OCI_LAYER, Descriptor, Digest\n"
        "class Blob:\n"
        "    def open(self): return open(sys.argv[1], 'rb')\n"
        "    descriptor = property(lambda self: Descriptor(OCI_LAYER, digest, os.path.getsize(sys.argv[1])))\n"
        "digest = Digest('sha256', hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())\n"
        "fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)\n"
        "write_image(Blob(), digest, digest, fd, lower=None, check=lambda: None, limits=Limits(), eager=False)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    image = storage.base / "image"
    done = await trio.run_process([sys.executable, "-c", code, str(path), str(image)], capture_stdout=True)
    assert int(done.stdout) < 150 << 10
    if _FSCK:
        _fsck(image)


async def test_holes_stay_holes(storage: Storage) -> None:
    """In the image, in the mount, and when a container's writing copies the file up."""
    name, size = "lastlog", 4 << 30
    info = tarfile.TarInfo(name)
    text = f"2\n0\n4096\n{size - 4096}\n4096\n".encode().ljust(512, b"\0")
    info.size = 512 + 8192
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size),
    }  # fmt: skip
    layer = info.tobuf(tarfile.PAX_FORMAT) + text + b"a" * 4096 + b"b" * 4096 + bytes(1024)
    copied = archive(hardlink("copy", name))
    snapshots = await storage.unpack(layer, copied)
    assert all(snapshot.path.stat().st_blocks * 512 < 2 << 20 for snapshot in snapshots)
    async with storage.mounted(snapshots) as root:
        for path in (root / name, root / "copy"):
            with path.open("rb") as opened:
                assert os.fstat(opened.fileno()).st_size == size
                assert os.pread(opened.fileno(), 4096, size - 4096) == b"b" * 4096
                assert os.pread(opened.fileno(), 10, 1 << 30) == bytes(10)
                assert os.lseek(opened.fileno(), 0, os.SEEK_HOLE) < 1 << 20
        with (root / name).open("r+b") as opened:
            opened.write(b"c")
        assert (storage.base / "scratch/one/upper" / name).stat().st_blocks * 512 < 2 << 20


async def test_one_device_number(storage: Storage) -> None:
    """`du -x`, `tar --one-file-system` and inode comparisons work over the stack."""
    snapshots = await storage.unpack(archive(directory("d"), file("d/a")), archive(file("d/b")))
    async with storage.mounted(snapshots) as root:
        (root / "d/c").write_bytes(b"")
        assert len({os.lstat(root / path).st_dev for path in ("d", "d/a", "d/b", "d/c")}) == 1
        before = os.lstat(root / "d/a").st_ino
        (root / "d/a").write_bytes(b"more")
        assert os.lstat(root / "d/a").st_ino == before


async def test_loop_devices(storage: Storage) -> None:
    """The way of kernels before 6.12: the mount holds the device, and nothing is left when it goes."""
    (snapshot,) = await storage.unpack(archive(file("f", b"content")))
    image = os.open(snapshot.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        root = mount_image(image, loop=True)
    finally:
        os.close(image)
    assert _text(Path(f"/proc/self/fd/{root}/f")) == "content"
    assert str(snapshot.path) in _loops()
    os.close(root)
    for _ in range(100):
        if str(snapshot.path) not in _loops():
            break
        await trio.sleep(0.02)
    assert str(snapshot.path) not in _loops()


def _loops() -> str:
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return "\n".join(_text(path) for path in files)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


async def test_layers_in_the_mount_table(storage: Storage) -> None:
    """The way of kernels before 6.15, which don't stack detached mounts."""
    (snapshot,) = await storage.unpack(archive(file("f", b"content")))
    image = os.open(snapshot.path, os.O_RDONLY | os.O_CLOEXEC)
    root = mount_image(image)
    os.close(image)
    with detached(root, attach=True) as fd:
        assert "erofs" in _text(Path("/proc/self/mountinfo"))
        assert os.listdir(f"/proc/self/fd/{fd}") == ["f"]
    assert " - erofs " not in _text(Path("/proc/self/mountinfo"))


async def test_damaged_and_missing_images_are_named(storage: Storage) -> None:
    (snapshot,) = await storage.unpack(archive(file("f", b"content")))
    with snapshot.path.open("r+b") as image:
        image.seek(1024 + 16)
        image.write(b"\xff")
    with pytest.raises(Corrupt, match=r"can't be mounted"):
        async with storage.mounted((snapshot,)):
            pass
    snapshot.path.unlink()
    with pytest.raises(NotFound, match="isn't where it was"):
        async with storage.mounted((snapshot,)):
            pass


async def test_a_layer_of_the_host_below(storage: Storage, tmp_path: Path) -> None:
    """Layers that are directories, `/` among them, stack with images."""
    from scow.api import Digest

    host = Snapshot("host", Digest.of(b"host"), Path("/"))
    request = storage.request(archive(directory("opt/made"), file("opt/made/f", b"new")), (host,))
    top = await storage.run(request)
    async with storage.mounted((host, top)) as root:
        assert (root / "opt/made/f").read_bytes() == b"new"
        assert stat.S_ISDIR((root / "usr").stat().st_mode)
        assert not (root / str(tmp_path).lstrip("/") / "erofs/state/layers").exists()


async def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    from scow.api import Exhausted
    from scow.api.linux import mount, umount

    small = tmp_path / "small"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", data="size=2m")
    try:
        storage = Storage("scow_plugins.erofs:Plugin", "erofs", small)
        with pytest.raises(Exhausted):
            await storage.unpack(archive(file("f", os.urandom(4 << 20))))
        storage.check_empty()
        assert os.statvfs(small).f_bfree > 400
    finally:
        umount(str(small))
