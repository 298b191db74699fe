"""umoci and scow: what one writes the other runs and unpacks, to the same tree."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scow.testing.layers import read_tree

from . import images
from .conftest import Scow, require

#: Made in a container's root for the container: mount points and files that are bound over.
_MADE = ("dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", ".dockerenv", "run")


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The launcher makes no difference here."""
    return bool(request.param)


def umoci(*words: str | Path) -> None:
    done = subprocess.run(["umoci", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def unpacked(image: str, bundle: Path) -> Path:
    """The root file system that umoci makes of an image."""
    umoci("unpack", "--image", image, bundle)
    return bundle / "rootfs"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by umoci alone: `base` by insert and config, `more` by unpacking, changing and repacking that."""
    require("umoci", "busybox")
    home = tmp_path_factory.mktemp("umoci")
    tree = images.busybox_tree(home / "tree")
    (tree / "old").mkdir()
    (tree / "old" / "below").write_text("must not be seen\n")
    (home / "extra").mkdir()
    (home / "extra" / "file").write_text("extra\n")
    layout = home / "layout"
    base = f"{layout}:base"
    umoci("init", "--layout", layout)
    umoci("new", "--image", base)
    umoci("insert", "--image", base, tree, "/")
    umoci("insert", "--image", base, home / "extra", "/etc/extra")
    umoci("insert", "--image", base, "--whiteout", "/www/index.html")
    umoci("insert", "--image", base, "--opaque", home / "extra", "/old")
    settings = ["--config.cmd=cat", "--config.cmd=extra/file", "--config.workingdir=/etc", "--config.env=PATH=/bin"]
    umoci("config", "--image", base, *settings, "--config.env=WHO=umoci", "--config.user=33:44", "--config.label=a=b")
    _change(unpacked(base, home / "bundle"))
    umoci("repack", "--image", f"{layout}:more", home / "bundle")
    return layout


def _change(root: Path) -> None:
    """All that a layer can say: also names, times and attributes that need extended headers."""
    (root / "etc" / "extra" / "file").unlink()
    (root / "etc" / "extra").rmdir()
    (root / "etc" / "extra").write_text("a file now\n")
    (root / "deep").mkdir(0o2751)
    long = root / "deep" / ("n" * 200)
    long.write_bytes(b"\0" * 100_000 + b"end")
    os.link(long, root / "other-name")
    os.symlink("../" * 30 + "etc/passwd", root / "deep" / "link")
    os.mkfifo(root / "deep" / "pipe", 0o640)
    os.mknod(root / "deep" / "null", 0o20666, os.makedev(1, 3))
    os.chown(root / "deep" / "pipe", 70_000, 3_000_000)
    os.setxattr(root / "etc" / "group", "user.note", b"kept\0whole")
    (root / "bin" / "busybox").chmod(0o4755)
    os.utime(long, ns=(5, 1_234_567_890_123_456_789))
    (root / "ümläut \n").write_text("odd\n")


def exported(scow: Scow, container: str, place: Path) -> dict[str, object]:
    """A container's tree as `export` gives it, put down by tar as it says; without what scow put into it."""
    place.mkdir()
    scow("export", "-o", str(place / "x.tar"), container)
    names = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    (place / "root").mkdir()
    subprocess.run(["tar", "-xf", place / "x.tar", "-C", place / "root", *names], check=True)
    return comparable(place / "root")


def comparable(root: Path) -> dict[str, object]:
    """A tree to compare. Directories' times are left out: making a mount point changes them."""
    found: dict[str, object] = {}
    for path, node in read_tree(root).items():
        if any(path == made or path.startswith(made + "/") for made in _MADE):
            continue
        node = replace(node, mtime=0) if node.kind == "directory" else node
        names = os.listxattr(root / path, follow_symlinks=False)
        found[path] = node, {name: os.getxattr(root / path, name, follow_symlinks=False) for name in names}
    return found


def test_scow_runs_what_umoci_made(scow: Scow, layout: Path) -> None:
    assert scow("run", "--rm", "--network", "none", f"oci:{layout}:base") == "extra\n"
    command = ["sh", "-c", "echo $WHO; id -u; pwd; ls /www /old; test ! -e /old/below; cat extra/file"]
    assert (
        scow("run", "--rm", "--network", "none", f"oci:{layout}:base", *command)
        == "umoci\n33\n/etc\n/old:\nfile\n\n/www:\nextra\n"
    )
    assert (
        scow("run", "--rm", "--network", "none", "-u", "0", f"oci:{layout}:more", "cat", "/etc/extra") == "a file now\n"
    )
    scow("pull", "-q", f"oci:{layout}:base")
    assert scow("inspect", "-f", "{{.Config.Labels.a}} {{.Config.User}}", f"oci:{layout}:base") == "b 33:44\n"


@pytest.mark.parametrize("storage", ["erofs", "overlay"])
@pytest.mark.parametrize("tag", ["base", "more"])
def test_both_unpack_to_the_same_tree(scow: Scow, layout: Path, tmp_path: Path, tag: str, storage: str) -> None:
    expected = comparable(unpacked(f"{layout}:{tag}", tmp_path / "bundle"))
    assert "bin/busybox" in expected
    container = scow("create", "--storage", storage, f"oci:{layout}:{tag}").strip()
    assert exported(scow, container, tmp_path / "export") == expected


def test_umoci_unpacks_what_scow_saved_and_committed(scow: Scow, layout: Path, tmp_path: Path) -> None:
    scow("pull", "-q", f"oci:{layout}:more")
    scow("tag", f"oci:{layout}:more", "mine:1")
    script = (
        "rm /etc/extra; mkdir /etc/extra; echo new >/etc/extra/x; rm -r /deep; mkdir /deep; touch /deep/again; "
        "ln /etc/passwd /etc/passwd2; ln -s x /etc/l; chmod 1700 /root; echo more >>/other-name; chown 5:6 /bin/busybox"
    )
    scow("run", "--name", "changed", "--network", "none", "-u", "0", "mine:1", "sh", "-c", script)
    scow("commit", "-m", "changed", "changed", "mine:2")
    scow("push", "-q", "mine:2", f"oci:{tmp_path}/pushed:two")
    scow("save", "--format", "oci-archive", "-o", str(tmp_path / "saved.tar"), "mine:1", "mine:2")
    (tmp_path / "saved").mkdir()
    subprocess.run(["tar", "-x", "-C", str(tmp_path / "saved"), "-f", str(tmp_path / "saved.tar")], check=True)
    expected = exported(scow, "changed", tmp_path / "export")
    for number, image in enumerate((f"{tmp_path}/pushed:two", f"{tmp_path}/saved:docker.io/library/mine:2")):
        assert comparable(unpacked(image, tmp_path / f"bundle{number}")) == expected
    first = comparable(unpacked(f"{tmp_path}/saved:docker.io/library/mine:1", tmp_path / "first"))
    assert first == comparable(unpacked(f"{layout}:more", tmp_path / "original"))


def test_umoci_repacks_what_scow_pushed(scow: Scow, layout: Path, tmp_path: Path) -> None:
    """There and back again: the layer that umoci adds to scow's image is a layer of scow's."""
    scow("pull", "-q", f"oci:{layout}:base")
    scow("push", "-q", f"oci:{layout}:base", f"oci:{tmp_path}/out:x")
    root = unpacked(f"{tmp_path}/out:x", tmp_path / "bundle")
    (root / "etc" / "extra" / "file").write_text("changed by umoci\n")
    umoci("repack", "--image", f"{tmp_path}/out:y", tmp_path / "bundle")
    assert scow("run", "--rm", "--network", "none", f"oci:{tmp_path}/out:y") == "changed by umoci\n"
    assert scow("run", "--rm", "--network", "none", f"oci:{tmp_path}/out:x") == "extra\n"
