"""Registries that lie and images that attack: one clear message each, nothing kept, nothing touched."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from tests.unit.layers.blocks import extended, header, long, old_sparse, padded, pair

from scow.testing.layers import archive, directory, file, hardlink, symlink
from scow.testing.registry import Registry, serve

from .conftest import Scow, require
from .images import APPLETS, BUSYBOX

#: Where the launcher makes no difference.
WARM = pytest.mark.parametrize("launcher", [True], ids=["warm"], indirect=True)
#: Storage plugins as they are picked.
ORDER = ["erofs", "overlay", "fuse", "native"]


@contextmanager
def served(registry: Registry) -> Iterator[None]:
    """Serve in a thread of its own: the commands are processes, and the test waits for them."""
    ready, token = threading.Event(), []

    async def main() -> None:
        with trio.CancelScope() as scope:
            token.append((trio.lowlevel.current_trio_token(), scope))
            async with serve(registry):
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        where, scope = token[0]
        where.run_sync_soon(scope.cancel)
        thread.join(10)


def busybox() -> list[bytes]:
    """Members of a layer with one static program and its names, as a tar."""
    program = Path(BUSYBOX).read_bytes()
    return [
        archive(
            directory("bin"),
            file("bin/busybox", program, 0o755),
            *(symlink(f"bin/{name}", "busybox") for name in APPLETS.split()),
        )
    ]


@pytest.fixture
def evil(scow: Scow) -> Iterator[tuple[Scow, Registry]]:
    """A scow and a registry that serves what the test puts into it, as `evil/image`."""
    registry = Registry()
    with served(registry):
        scow.config.write_text(f'[registries."docker.io"]\nmirrors = ["{registry.url}"]\n')
        yield scow, registry


def claim(registry: Registry, diff_ids: Callable[[list[str]], list[str]]) -> None:
    """Let the image's configuration say other diff IDs than the right ones."""
    document = json.loads(registry.manifests["evil/image", "latest"][1])
    config = json.loads(registry.blobs[document["config"]["digest"]])
    config["rootfs"]["diff_ids"] = diff_ids(config["rootfs"]["diff_ids"])
    data = json.dumps(config).encode()
    document["config"] |= {"digest": registry.add_blob(data), "size": len(data)}
    registry.add_manifest("evil/image", "latest", document["mediaType"], document)


def nothing_kept(scow: Scow) -> None:
    """No image, no layer, nothing under construction."""
    assert scow("images", "-q") == ""
    assert not list((scow.root / "storage").glob("*/layers/*"))
    assert not list((scow.root / "storage").glob("*/staging/*"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda registry: setattr(registry.faults, "corrupt_blobs", True), "digest"),
        (lambda registry: setattr(registry.faults, "truncate", 0), "127.0.0.1"),
        (lambda registry: setattr(registry.faults, "claimed_digest", "sha256:" + "0" * 64), "digest"),
    ],
    ids=["lies about a blob", "cuts a layer short", "lies about the manifest"],
)
def test_registry(evil: tuple[Scow, Registry], fault: Callable[[Registry], None], says: str) -> None:
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[{"a": os.urandom(5000)}])
    fault(registry)
    scow.fails("pull", "evil/image", code=1, says=says)
    nothing_kept(scow)


@WARM
@pytest.mark.parametrize(
    ("diff_ids", "says"),
    [
        (lambda right: [], "0 diff IDs for 2 layers"),
        (lambda right: right[:1], "1 diff IDs for 2 layers"),
        (lambda right: [*right, right[0]], "3 diff IDs for 2 layers"),
        (lambda right: right[::-1], "has the diff ID"),
        (lambda right: [right[0], "sha256:" + "0" * 64], "has the diff ID"),
        (lambda right: [right[0], "sha256:short"], "must be 64"),
    ],
    ids=["none", "too few", "too many", "in another order", "another one", "no digest"],
)
def test_diff_ids(evil: tuple[Scow, Registry], diff_ids: Callable[[list[str]], list[str]], says: str) -> None:
    """What a layer unpacks to is what the configuration says, or there is no image."""
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[{"a": b"1"}, {"b": b"2"}])
    claim(registry, diff_ids)
    scow.fails("pull", "evil/image", code=1, says=says)
    nothing_kept(scow)
    assert not list((scow.root / "content").glob("blobs/*/*"))


@WARM
def test_more_layers_than_can_be_mounted(evil: tuple[Scow, Registry], tmp_path: Path) -> None:
    """One small layer may be listed as often as its sender likes; it is refused before anything is unpacked."""
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[{"a": b"1"}] * 501)
    scow.fails("pull", "evil/image", code=1, says="has 501 layers, more than the 500")
    nothing_kept(scow)
    assert not list((scow.root / "content").glob("blobs/*/*"))
    registry.add_image("evil/image", "latest", layers=[{"a": b"1"}] * 499)
    (tmp_path / "Dockerfile").write_text("FROM evil/image\n" + 'RUN ["/a"]\n' * 2)
    scow.fails("build", str(tmp_path), code=1, says="has 501 layers")


@WARM
@pytest.mark.parametrize(
    "odd",
    [
        header(b"d/file", size=b"000000001000") + header(b"evil") + padded(b"x"),
        header(b"l", b"2", 512, b"t") + header(b"evil"),
        extended(("path", "everywhere"), kind=b"g") + header(),
        long(b"long") + extended(("path", "pax")) + header(),
        header(b"d/", b"0", 3) + padded(b"abc"),
        header(mode=b"\x00\x00000644"),
        old_sparse(pair(0, 1), b"x").replace(b"ustar  \0", b"ustar\x0000"),
    ],
    ids=["no terminator", "a link's length", "global path", "two names", "file or directory", "NULs", "sparse"],
)
def test_archives_that_others_read_otherwise(evil: tuple[Scow, Registry], odd: bytes) -> None:
    """What scanners in Go don't see isn't there: either scow sees the same, or it refuses the layer."""
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[odd + bytes(1024)])
    scow.fails("pull", "evil/image", code=1, says="tar archive, header at byte")
    nothing_kept(scow)


@WARM
def test_a_wrong_layer_while_another_one_comes(evil: tuple[Scow, Registry]) -> None:
    """Nothing more need come: it is the image that is wrong."""
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[{"a": b"1"}, {"b": os.urandom(1 << 20)}], compression="none")
    claim(registry, lambda right: ["sha256:" + "0" * 64, right[1]])
    registry.faults.stop_at = 1 << 19
    scow.fails("pull", "evil/image", code=1, says="has the diff ID")
    nothing_kept(scow)
    assert not list((scow.root / "content").glob("blobs/*/*"))


_BOMBS = {
    "entries": (archive(*(directory(f"d{number}") for number in range(60))), "more than 50 entries"),
    "layer_bytes": (archive(file("zeros", bytes(9 << 20))), "more than 8388608 bytes"),
}


@WARM
@pytest.mark.parametrize("storage", ["erofs", "overlay", "native"])
@pytest.mark.parametrize("bomb", _BOMBS)
def test_bombs(evil: tuple[Scow, Registry], bomb: str, storage: str) -> None:
    """What a layer may make of a machine is limited, however small it comes."""
    scow, registry = evil
    layer, says = _BOMBS[bomb]
    registry.add_image("evil/image", "latest", layers=[layer])
    limits = "max_entries = 50\nmax_layer_bytes = 8388608\n"
    blocked = [name for name in ORDER if name != storage]
    scow.config.write_text(
        f"plugin_block = {json.dumps(blocked)}\n" + scow.config.read_text() + f"[plugins.{storage}]\n{limits}"
    )
    errors = scow.fails("pull", "evil/image", code=1, says=says)
    assert f"hint: raise max_{bomb} of the storage plugin" in errors
    nothing_kept(scow)


@pytest.mark.parametrize(
    "layer",
    [
        b"this is no tar at all " * 100,
        archive(file("../../../../../../tmp/scow-climbed", b"x")),
        archive(symlink("out", "/tmp"), file("out/../../../tmp/scow-climbed", b"x")),
        archive(hardlink("shadow", "../../../../../../etc/shadow")),
    ],
    ids=["no tar", "climbs", "climbs through a link", "links to the host"],
)
def test_layers(evil: tuple[Scow, Registry], layer: bytes) -> None:
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[layer])
    errors = scow.fails("pull", "evil/image", code=1, says="layer")
    assert "Traceback" not in errors
    assert not Path("/tmp/scow-climbed").exists()
    nothing_kept(scow)
    assert not list((scow.root / "content").glob("blobs/*/*")), "what can't be used is kept"


def test_image_whose_places_are_links_to_the_host(evil: tuple[Scow, Registry], tmp_path: Path) -> None:
    """/dev, /tmp, /etc/hosts, the working directory and /etc/passwd lead out: they end inside the container."""
    scow, registry = evil
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    links = archive(
        symlink("dev", str(victim)),
        directory("etc"),
        symlink("etc/hosts", str(victim / "hosts")),
        symlink("etc/resolv.conf", "../../../../../../" + str(victim / "resolv")),
        symlink("etc/passwd", str(victim / "passwd")),
        symlink("work", str(victim)),
    )
    registry.add_image("evil/image", "latest", layers=[*busybox(), links], config={"Env": ["PATH=/bin"]})
    before = {path: path.read_bytes() for path in victim.iterdir()}
    done = scow.try_(
        "run", "--rm", "-w", "/work/sub", "evil/image", "sh", "-c", "echo in; touch /work/sub/x; cat /etc/hosts"
    )
    assert done.returncode in (0, 125, 126), done.stderr.decode()
    assert {path: path.read_bytes() for path in victim.iterdir()} == before
    scow.fails("run", "--rm", "-u", "evil", "evil/image", "true", code=125, says="evil")


def test_image_that_claims_the_hosts_root(evil: tuple[Scow, Registry]) -> None:
    """The media type of `host:` layers means nothing when it comes from a registry."""
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=[{"a": b"x"}])
    document = json.loads(registry.manifests["evil/image", "latest"][1])
    document["layers"][0]["mediaType"] = "application/vnd.scow.host.rootfs.v1"
    registry.add_manifest("evil/image", "latest", document["mediaType"], document)
    scow.fails("pull", "evil/image", code=1, says="root directory")
    nothing_kept(scow)


def test_host_image_is_a_throw_away_copy(scow: Scow, tmp_path: Path) -> None:
    marker = Path("/etc/scow-test-marker")
    out = scow(
        "run",
        "--rm",
        "host:",
        "sh",
        "-c",
        f"touch {marker} && ls {marker} && cat /etc/hostname && ls {scow.root} | wc -l",
    )
    assert str(marker) in out
    assert not marker.exists()
    assert out.splitlines()[-1] == "0"  # the engine's own directories are hidden


@WARM
def test_plugins_in_their_order(evil: tuple[Scow, Registry], tmp_path: Path) -> None:
    """erofs, overlay, fuse, native: each is picked where those before it can't work, and runs a container."""
    require("fuse-overlayfs")
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=busybox(), config={"Env": ["PATH=/bin"]})
    text = scow.config.read_text()
    for number, name in enumerate(ORDER):
        scow.config.write_text(f"plugin_block = {json.dumps(ORDER[:number])}\n{text}")
        assert picked(scow) == name
        assert scow("run", "--rm", "--network", "none", "evil/image", "echo", name) == f"{name}\n"
        assert list((scow.root / "storage" / name / "layers").iterdir())
    scow.config.write_text(f"plugin_block = {json.dumps(ORDER)}\n{text}")
    scow.fails("run", "--rm", "evil/image", "true", code=125, says="storage")


@WARM
def test_a_disk_on_which_overlayfs_can_not_write(evil: tuple[Scow, Registry], tmp_path: Path) -> None:
    """The state lies on an overlay, as in a container of docker's: the first two say why not, the next ones work."""
    require("fuse-overlayfs")
    scow, registry = evil
    registry.add_image("evil/image", "latest", layers=busybox(), config={"Env": ["PATH=/bin"]})
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / "disk" / name).mkdir(parents=True)
    disk = tmp_path / "disk"
    options = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", disk / "merged"], check=True)
    old = scow.root
    try:
        scow.root = disk / "merged" / "root"
        assert picked(scow) == "fuse"
        listed = scow("plugins", "--format", "{{.Name}} {{.WhyNot}}")
        for name in ("erofs", "overlay"):
            (line,) = [each for each in listed.splitlines() if each.split()[0] == name]
            assert "not supported as upperdir" in line
        assert scow("run", "--rm", "--network", "none", "evil/image", "echo", "fuse") == "fuse\n"
        scow.fails("run", "--rm", "--storage", "overlay", "evil/image", "true", code=125, says="overlay")
        # Without the program there is always the last one.
        scow.stop_launcher()
        scow.env["PATH"] = str(tmp_path / "nothing")
        assert picked(scow) == "native"
        assert scow("run", "--rm", "--network", "none", "evil/image", "echo", "native") == "native\n"
    finally:
        scow.stop_launcher()
        scow.root = old
        subprocess.run(["umount", "-l", disk / "merged"], check=True)


def picked(scow: Scow) -> str:
    """The storage plugin that is used when nothing is said."""
    lines = scow("plugins", "--format", "{{.Name}} {{.Picked}}").splitlines()
    (name,) = [line.split()[0] for line in lines if line.endswith("unpack,mount")]
    return name


def test_machine_without_overlayfs(evil: tuple[Scow, Registry]) -> None:
    """The next driver is picked by itself; asking for the missing one says why."""
    scow, registry = evil
    scow.config.write_text('plugin_block = ["overlay", "erofs"]\n' + scow.config.read_text())
    registry.add_image("evil/image", "latest", layers=busybox(), config={"Env": ["PATH=/bin"]})
    assert scow("run", "--rm", "evil/image", "echo", "native") == "native\n"
    scow.fails("run", "--rm", "--storage", "overlay", "evil/image", "true", code=125, says="overlay")
    scow.fails("run", "--rm", "host:", "true", code=125, says="host:")
