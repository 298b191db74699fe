"""What is wrong with images and their names: one message that names it, the right exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scow.model.platform import Platform

from . import images
from .conftest import Scow

NOTHING = "0" * 64
FOREIGN = "arm64" if os.uname().machine == "x86_64" else "amd64"


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The launcher makes no difference here."""
    return bool(request.param)


#: Words, exit code, what the message has. HERE is a directory with `tree`, `layer.tar`, and `saved.tar` of busybox.
WRONG = [
    ("pull", 1, "needs exactly 1 argument"),
    ("pull a b", 1, "at most 1 argument"),
    ("pull UPPER", 2, "must be lower case"),
    ("pull a@sha256:zz", 2, "must be 64 lower-case hex digits"),
    ("pull a@", 2, "digest '' has no algorithm"),
    ("pull --platform nonsense a", 2, "platform 'nonsense'"),
    ("pull -a a:1", 1, "--all-tags"),
    ("pull oci:", 2, "names no path"),
    ("pull oci:/nowhere", 1, "/nowhere doesn't exist"),
    ("pull oci:HERE/tree", 1, "no index.json"),
    ("pull oci-archive:HERE/tree", 1, "is not a regular file"),
    ("pull oci-archive:HERE/layer.tar", 1, "no index.json"),
    ("pull docker-archive:HERE/layer.tar", 1, "no manifest.json"),
    ("pull docker-archive:HERE/saved.tar:other", 1, "hint: it holds busybox:latest"),
    ("pull 127.0.0.1:1/x", 1, "127.0.0.1:1: connection refused"),
    ("push", 1, "needs at least 1 argument"),
    ("push nosuch", 1, "no such image: nosuch"),
    ("push busybox host:", 1, "no plugin takes images in at host:"),
    ("push busybox oci:", 2, "names no path"),
    ("push busybox oci:HERE/tree:x", 2, "is not empty, and no OCI image layout"),
    ("push busybox docker-archive:/nowhere/x.tar", 1, "/nowhere/x.tar can't be written"),
    ("push busybox 127.0.0.1:1/x:1", 1, "127.0.0.1:1: http: connection refused"),
    ("push -a busybox:latest", 1, "--all-tags"),
    ("save", 1, "needs at least 1 argument"),
    ("save nosuch", 1, "no such image: nosuch"),
    ("save --format zip -o HERE/x busybox", 1, "there are docker-archive and oci-archive"),
    ("save -o /nowhere/x busybox", 1, "/nowhere/x can't be written"),
    ("save -o HERE/tree busybox", 2, "is a directory"),
    ("load extra", 1, "takes no arguments"),
    ("load -i HERE/nosuch", 1, "can't open"),
    ("load -i HERE/tree", 1, "is a directory"),
    ("load -i /dev/null", 2, "no archive of images"),
    ("load -i HERE/layer.tar", 2, "goes to `scow import`"),
    ("import HERE/nosuch", 1, "can't open"),
    ("import /dev/null x:1", 2, "there is nothing to import"),
    ("import HERE/tree/file x:1", 1, "layer"),
    ("import HERE/saved.tar UPPER", 2, "must be lower case"),
    ("import -c RUN HERE/layer.tar x:1", 2, "RUN is not possible here"),
    ("images a b", 1, "at most 1 argument"),
    ("images --filter nope=1", 1, "unknown filter 'nope'"),
    ("images --filter dangling=perhaps", 1, "invalid filter value 'perhaps'"),
    ("images --filter until=x", 1, "filter until"),
    ("images --filter before=nosuch", 1, "there is no image nosuch"),
    ("images --format {{.Nope}}", 1, "there is no field 'Nope'"),
    ("rmi", 1, "needs at least 1 argument"),
    ("rmi nosuch", 1, "hint: `scow images` lists what is here"),
    ("rmi busybox", 1, "in use by the container user"),
    (f"rmi {NOTHING}", 1, "no such image"),
    ("tag busybox", 1, "needs exactly 2 arguments"),
    ("tag nosuch x:1", 1, "no such image: nosuch"),
    ("tag busybox UPPER", 2, "must be lower case"),
    (f"tag busybox x@sha256:{NOTHING}", 2, "has a digest"),
    ("tag busybox oci:x", 2, "names a place, not a repository"),
    ("history nosuch", 1, "no such image: nosuch"),
    ("history --format {{. busybox", 1, "never closed"),
    ("image inspect nosuch", 1, "no such image: nosuch"),
    ("inspect --type image user", 1, "no such image: user"),
    ("inspect --type nonsense busybox", 1, "container or image"),
    ("commit", 1, "needs at least 1 argument"),
    ("commit nosuch x:1", 1, "no such container: nosuch"),
    ("commit user UPPER", 2, "must be lower case"),
    ("commit -c RUN user x:1", 2, "RUN is not possible here"),
    ("diff nosuch", 1, "no such container: nosuch"),
    ("cp a b", 1, "one of the two paths must be in a container"),
    ("cp user:/nosuch HERE", 1, "there is no /nosuch in container user"),
    ("cp HERE/nosuch user:/", 1, "there is no HERE/nosuch"),
    ("export nosuch", 1, "no such container: nosuch"),
    ("export -o /nowhere/x user", 1, "can't write /nowhere/x: no such file or directory"),
    ("image prune -f --filter until=x", 1, "filter until"),
    ("system prune -f --filter nope=1", 1, "unknown filter 'nope'"),
    ("system df --format {{.Nope}}", 1, "there is no field 'Nope'"),
    ("gc", 1, "needs --keep SIZE"),
    ("gc --keep x", 125, "not a size"),
    ("fsck extra", 1, "takes no arguments"),
    ("login", 1, "non TTY"),
    ("login -u a -p b 127.0.0.1:1", 1, "hint: check the network"),
    ("logout no/host", 2, "not a registry's host name"),
    ("search --limit 0 x", 1, "outside the range"),
    ("search --filter nope=1 x", 1, "unknown filter 'nope'"),
    ("search --filter stars=many x", 1, "stars=many"),
    ("search 127.0.0.1:1/x", 1, "connection refused"),
]


def test_what_is_wrong(pulled: Scow, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "tree").mkdir(parents=True)
    (here / "tree" / "file").write_text("mine\n")
    (here / "layer.tar").write_bytes(images.layer_of(here / "tree"))
    pulled("save", "-o", str(here / "saved.tar"), "busybox")
    pulled("create", "--name", "user", "busybox", "true")
    before = state(pulled), sorted(here.rglob("*"))
    for words, code, says in WRONG:
        pulled.fails(*words.replace("HERE", str(here)).split(), code=code, says=says.replace("HERE", str(here)))
        assert state(pulled) == before[0], words
    for empty in (["pull", ""], ["tag", "busybox", ""], ["save", ""], ["history", ""]):
        assert "empty" in pulled.fails(*empty, code=2, says=""), empty
    assert "empty" in pulled.fails("search", " ", code=1, says="")
    assert (state(pulled), sorted(here.rglob("*"))) == before
    assert "all well" in pulled("fsck")


@pytest.fixture
def small(pulled: Scow, tmp_path: Path) -> Iterator[Path]:
    """A disk of 80 MB that holds the engine's state, busybox and a container `wrote` with 4 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", disk], check=True)
    old = pulled.root
    try:
        pulled.stop_launcher()
        pulled.root = disk / "root"
        pulled("pull", "-q", "busybox")
        command = "head -c 4000000 /dev/urandom >/noise"
        pulled("run", "--name", "wrote", "--network", "none", "busybox", "sh", "-c", command)
        yield disk
    finally:
        pulled.try_("rm", "-f", "wrote")
        pulled.stop_launcher()
        pulled.root = old
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_full(pulled: Scow, small: Path, tmp_path: Path) -> None:
    """Nothing is lost, nothing half there; an image can be removed; and with room again the same command succeeds."""
    scow = pulled
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "noise").write_bytes(os.urandom(4_000_000))
    (tmp_path / "layer.tar").write_bytes(images.layer_of(tmp_path / "tree"))
    layout = images.write_layout(tmp_path / "layout", [images.layer_of(tmp_path / "tree")], {})
    scow("tag", "busybox", "two:1")
    scow("import", str(tmp_path / "layer.tar"), "spare:1")
    scow("save", "-o", str(tmp_path / "saved.tar"), "spare:1")
    scow("rmi", "spare:1")
    commands = [
        ["import", str(tmp_path / "layer.tar"), "new:1"],
        ["load", "-q", "-i", str(tmp_path / "saved.tar")],
        ["pull", "-q", f"oci:{layout}:latest"],
        ["commit", "wrote", "made:1"],
        ["save", "-o", f"{small}/out.tar", "busybox"],
        ["push", "-q", "busybox", f"oci:{small}/out:x"],
        ["export", "-o", f"{small}/wrote.tar", "wrote"],
    ]
    fill(small, 0)
    assert "Untagged: two:1" in scow("rmi", "two:1")
    (small / "filler").unlink()
    fill(small, 600_000)
    before = scow("images", "-a", "--no-trunc")
    for command in commands:
        errors = scow.fails(*command, code=1, says="")
        assert "full" in errors or "no space left" in errors.lower(), errors
        assert "hint:" in errors, errors
        assert scow("images", "-a", "--no-trunc") == before
        assert "all well" in scow("fsck", "--layers=false"), command
        shutil.rmtree(small / "out", ignore_errors=True)
        assert sorted(path.name for path in small.iterdir()) == ["filler", "root"], command
    (small / "filler").unlink()
    assert scow("run", "--rm", "--network", "none", "busybox", "echo", "works") == "works\n"
    for command in commands:
        scow(*command)
    assert "all well" in scow("fsck")
    assert {"new:1", "spare:1", "made:1"} <= set(scow("images", "--format", "{{.Repository}}:{{.Tag}}").split())


def fill(disk: Path, left: int) -> None:
    """Leave so many bytes free."""
    with (disk / "filler").open("ab") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        while free > left and file.write(bytes(min(1 << 20, free - left))):
            file.flush()
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize


def state(scow: Scow) -> object:
    """Names, blobs, layers, and what is under way."""
    kept = ("content/blobs/*/*", "content/ingest/*", "storage/*/layers/*", "storage/*/staging/*", "containers/*")
    return scow("images", "-a", "--no-trunc"), [sorted(scow.root.glob(each)) for each in kept]


def test_another_platform_than_was_asked_for(scow: Scow, tmp_path: Path) -> None:
    """A manifest alone is all that its name has: it comes, with a warning. An index without the platform is refused."""
    (tmp_path / "tree").mkdir()
    layout = images.write_layout(tmp_path / "layout", [images.layer_of(tmp_path / "tree")], {})
    done = scow.try_("pull", "-q", "--platform", f"linux/{FOREIGN}", f"oci:{layout}:latest")
    assert done.returncode == 0
    assert f"not for linux/{FOREIGN}" in done.stderr.decode()
    assert scow.try_("pull", "-q", f"oci:{layout}:latest").stderr == b""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    platform = {"os": "linux", "architecture": "s390x"}
    index["manifests"] = [
        {**entry, "platform": platform},
        {**entry, "platform": {**platform, "architecture": "riscv64"}},
    ]
    (layout / "index.json").write_text(json.dumps(index))
    scow.fails("pull", f"oci:{layout}:latest", code=1, says="it is there for linux/riscv64, linux/s390x")


def test_a_container_of_another_platform(scow: Scow, tmp_path: Path) -> None:
    """As docker: it is made, with a warning unless that platform was asked for; the kernel says what it can't run."""
    program = bytearray(Path("/bin/true").resolve().read_bytes())
    program[18:20] = (22).to_bytes(2, "little")  # e_machine: EM_S390 (elf(5))
    (tmp_path / "tree" / "bin").mkdir(parents=True)
    (tmp_path / "tree" / "bin" / "program").write_bytes(program)
    (tmp_path / "tree" / "bin" / "program").chmod(0o755)
    layer = tmp_path / "layer.tar"
    layer.write_bytes(images.layer_of(tmp_path / "tree"))
    command = ["-c", 'CMD ["/bin/program"]']
    related = {"arm64": "386", "amd64": "arm"}[FOREIGN]
    for architecture in (FOREIGN, related):
        scow("import", "--platform", f"linux/{architecture}", *command, str(layer), f"of/{architecture}:1")
    host = str(Platform.host())
    warning = (
        f"WARNING: The requested image's platform (linux/{FOREIGN}) does not match the detected host platform ({host}) "
        "and no specific platform was requested\n"
    )

    def warned(*words: str) -> str:
        done = scow.try_("create", "--network", "none", *words)
        assert done.returncode == 0, done.stderr.decode()
        scow("rm", done.stdout.decode().strip())
        return done.stderr.decode()

    name = f"of/{FOREIGN}:1"
    assert warned(name) == warning
    assert warned("--platform", f"linux/{FOREIGN}", name) == ""
    assert warned(f"of/{related}:1") == ""
    said = scow.fails("run", "--rm", "--network", "none", name, code=126, says=warning)
    assert "exec format error" in said.lower()
    scow("save", "-o", str(tmp_path / "saved.tar"), name)
    scow("rmi", name)
    loaded = scow.try_("load", "-q", "-i", str(tmp_path / "saved.tar"))
    assert (loaded.returncode, loaded.stderr) == (0, b"")
    assert warned(name) == warning
