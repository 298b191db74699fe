"""Cache mounts as things with names: listed, carried to another machine, removed; who may have one at a moment."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import machine
from .conftest import Scow, engine_at
from .test_build import build, context, launcher

__all__ = ["context", "launcher"]

FILL = "FROM busybox\nRUN --mount=type=cache,id=pip,target=/c {}\n"


@pytest.fixture
def second(launcher: bool, tmp_path: Path, registry: str, busybox: str) -> Iterator[Scow]:
    """Another machine."""
    home = tmp_path / "second"
    home.mkdir()
    for engine in engine_at(home, launcher, registry):
        engine("pull", "-q", busybox)
        yield engine


def listed(scow: Scow) -> list[dict[str, str]]:
    return [json.loads(line) for line in scow("cache", "ls", "--format", "json").splitlines()]


def files(scow: Scow, name: str) -> dict[str, tarfile.TarInfo]:
    done = scow.try_("cache", "export", name)
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {member.name: member for member in tar}


def test_a_cache_travels(pulled: Scow, second: Scow, context: Path, tmp_path: Path) -> None:
    fill = (
        "echo kept > /c/f && chmod 640 /c/f && chown 33:44 /c/f && ln -s /etc/passwd /c/link && ln /c/f /c/same && \\\n"
    )
    fill += "    mkdir -p /c/a/b && touch /c/a/.wh.f && chmod 700 /c && mknod /c/pipe p"
    build(pulled, context, FILL.format(fill))
    (found,) = listed(pulled)
    assert (found["ID"], found["InUse"], found["CacheID"]) == ("pip", "false", found["CacheID"])
    head, line = pulled("cache", "ls").splitlines()
    assert head.split() == ["ID", "CACHE", "ID", "SIZE", "LAST", "USED", "IN", "USE"]
    assert line.split()[:2] == ["pip", found["CacheID"]]
    archive = tmp_path / "pip.tar"
    assert pulled("cache", "export", "pip", "-o", str(archive)) == ""
    assert pulled.try_("cache", "export", found["CacheID"][:6]).stdout == archive.read_bytes()
    assert (files(pulled, "pip")["./f"].uid, files(pulled, "pip")["./f"].mode) == (33, 0o640)
    # Packed, over a pipe, into another machine; it is used there.
    packed = gzip.compress(archive.read_bytes())
    assert second.try_("cache", "import", "pip", stdin=packed).stdout == b"pip\n"
    assert second.try_("cache", "export", "pip").stdout == archive.read_bytes()
    text = FILL.format("cat /c/f /c/same > /seen; stat -c '%a' /c >> /seen; readlink /c/link >> /seen")
    build(second, context, text, "-t", "seen")
    assert second("run", "--rm", "seen", "cat", "/seen").split() == ["kept", "kept", "700", "/etc/passwd"]
    second.fails("cache", "import", "pip", str(archive), code=1, says="there is a cache pip already")
    build(second, context, FILL.format("rm -rf /c/*"))
    assert list(files(second, "pip")) == ["."]
    second("cache", "import", "-f", "pip", str(archive))
    assert "./same" in files(second, "pip")
    assert second("cache", "rm", "pip") == "pip\n"
    second.fails("cache", "rm", "pip", code=1, says="no such cache: pip")
    second("cache", "rm", "-f", "pip")
    assert listed(second) == []
    assert list((second.root / "build" / "caches").iterdir()) == []
    pulled.fails("cache", "export", "none", code=1, says="no such cache: none")
    pulled.fails("cache", "import", "", str(archive), code=2, says="can't be the name of a cache")
    pulled.fails("cache", "import", "x", str(tmp_path / "none"), code=1, says="can't open")


def test_hostile_archives_stay_inside(pulled: Scow, context: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    kept = tmp_path / "kept.tar"
    build(pulled, context, FILL.format("echo kept > /c/f"))
    pulled("cache", "export", "pip", "-o", str(kept))

    def archive(*members: tuple[str, bytes, str]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, kind, link in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, link
                member.size = 4 if kind == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(b"evil"))
        return buffer.getvalue()

    file, link, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    for members in (
        [("../../../../evil", file, "")],
        [("out", link, str(outside)), ("out/evil", file, "")],
        [("out", link, "../../../../../../../.." + str(outside)), ("out/evil", file, "")],
        [("in", hard, str(outside / "secret"))],
        [("in", hard, "../../../../../../.." + str(outside / "secret"))],
        [("out", link, str(outside)), ("in", hard, "out/secret")],
        [("../lock", file, "")],
        [("../id", file, "")],
        [("/etc/evil", file, "")],
    ):
        done = pulled.try_("cache", "import", "-f", "pip", stdin=archive(*members))
        assert b"Traceback" not in done.stderr
        assert os.listdir(outside) == ["secret"]
        assert not Path("/etc/evil").exists()
        for name, member in files(pulled, "pip").items() if done.returncode == 0 else ():
            assert not member.isreg() or "secret" not in name
        (place,) = (pulled.root / "build" / "caches").iterdir()
        assert {each.name for each in place.iterdir()} <= {"lock", "id", "content", "making"}
        assert (place / "id").read_text() == "pip"
        pulled("cache", "import", "-f", "pip", str(kept))
    whole = kept.read_bytes()
    bad = (
        b"",
        b"junk",
        whole[:700],
        gzip.compress(whole)[:-9],
        b"BZh91AY",
        b"\xfd7zXZ\0",
        archive(("../x", hard, "y")),
    )
    for each in bad:
        done = pulled.try_("cache", "import", "-f", "pip", stdin=each)
        assert done.returncode == 1, each
        assert done.stderr.count(b"scow: ") == 1, done.stderr
        done = pulled.try_("cache", "import", "fresh", stdin=each)
        assert done.returncode == 1, each
    # What was there still is, and nothing else.
    assert pulled.try_("cache", "export", "pip").stdout == whole
    assert [each["ID"] for each in listed(pulled)] == ["pip"]
    assert len(list((pulled.root / "build" / "caches").iterdir())) == 1


def test_who_has_it(pulled: Scow, context: Path, tmp_path: Path) -> None:
    """`locked` waits, `private` gets another one, `shared` doesn't mind; nobody takes it away meanwhile."""
    step = "RUN --mount=type=cache,id={},sharing={},target=/c touch /c/{} && until [ -e /c/go ]; do sleep 0.1; done\n"
    caches = pulled.root / "build" / "caches"

    def begin(number: int, identity: str, sharing: str) -> subprocess.Popen[bytes]:
        place = tmp_path / f"c{number}"
        place.mkdir()
        (place / "Dockerfile").write_text("FROM busybox\n" + step.format(identity, sharing, number))
        return pulled.start("build", "-q", str(place))

    def there(number: int) -> bool:
        return bool(list(caches.glob(f"*/content/{number}")))

    first = begin(1, "one", "locked")
    assert machine.eventually(lambda: there(1))
    second = begin(2, "one", "locked")
    private = begin(3, "one", "private")
    shared = [begin(number, "two", "shared") for number in (4, 5)]
    assert machine.eventually(lambda: all(there(number) for number in (3, 4, 5)))
    assert not there(2)
    found = {(each["ID"], each["InUse"]) for each in listed(pulled)}
    assert found == {("one", "true"), ("two", "true")}
    assert len(listed(pulled)) == 3
    for words in (("rm", "one"), ("rm", "two"), ("export", "one"), ("import", "-f", "two", "/dev/null")):
        pulled.fails("cache", *words, code=1, says="is in use by a build")
    # What is asked with an eye only doesn't disturb who asks for a lock.
    places = {path.parent.parent.name for path in caches.glob("*/content/[1345]")}
    assert len(places) == 3
    for place in places:
        (caches / place / "content" / "go").touch()
    for each in (first, second, private, *shared):
        assert each.wait(30) == 0
    assert there(2)
    assert [each["InUse"] for each in listed(pulled)] == ["false"] * 3
    # The private copy goes with it.
    pulled("cache", "rm", "one")
    assert [each["ID"] for each in listed(pulled)] == ["two"]


def test_names_are_kept_apart(pulled: Scow, context: Path) -> None:
    text = FILL.format("touch /c/x") + "RUN --mount=type=cache,target=/root/.npm touch /root/.npm/y\n"
    text += "RUN --mount=type=cache,id=pip,from=busybox,source=/etc,target=/c test -e /c/passwd\n"
    build(pulled, context, text)
    build(pulled, context, text, "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=team")
    assert [each["ID"] for each in listed(pulled)] == [
        "/root/.npm",
        "pip",
        "pip",
        "team/pip",
        "team/pip",
        "team/root/.npm",
    ]
    assert {each["Origin"] for each in listed(pulled)} == {"", "/etc of image busybox"}
    said = pulled.fails("cache", "export", "pip", code=2, says="pip means several caches")
    assert "/etc of image busybox" in said
    keys = [each["CacheID"] for each in listed(pulled) if each["ID"] == "pip" and each["Origin"]]
    assert "./passwd" in files(pulled, keys[0])
    pulled("cache", "rm", keys[0])
    assert "./x" in files(pulled, "pip")
