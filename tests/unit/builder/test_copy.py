"""Which files a COPY means, and the layer that they make: on trees of a temporary directory."""

from __future__ import annotations

import io
import json
import os
import socket
import sqlite3
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scow.api import Invalid, NotFound, ScowError
from scow.api.layers import TarWriter
from scow.engine.building import BuildCache, Place, Record
from scow.state.buildcache import kept
from scow_plugins.builder import _archive
from scow_plugins.builder._cache import Key, differences, explain, packed
from scow_plugins.builder._ignore import Ignore
from scow_plugins.builder._layout import Layout, owner_of
from scow_plugins.builder._modes import Mode
from scow_plugins.builder._remote import name_of
from scow_plugins.builder._select import choose, digest_of
from scow_plugins.builder._tree import Index, Tree

Make = Callable[..., Tree]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Make]:
    """Trees of files: names that end with a slash are directories, values that begin with @ links."""
    made: list[tuple[Tree, int]] = []

    def make(files: dict[str, str], ignore: tuple[str, ...] = (), index: Index | None = None) -> Tree:
        root = tmp_path / f"tree{len(made)}"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            elif content.startswith("@"):
                path.symlink_to(content[1:])
            else:
                path.write_text(content)
        root.mkdir(exist_ok=True)
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        found = Tree(fd, "the tree", ignore=Ignore(ignore) if ignore else None, index=index)
        made.append((found, fd))
        return found

    yield make
    for each, fd in made:
        each.close()
        os.close(fd)


def names(tree: Tree, pattern: str, *, parents: bool = False, exclude: tuple[str, ...] = ()) -> list[str]:
    return [each.name for source in choose(tree, pattern, parents=parents, exclude=exclude) for each in source.files]


FILES = {"a": "1", "b.go": "2", "d/c.go": "3", "d/e/f.go": "4", "link": "@d", "out": "@/etc/passwd", "up": "@../../x"}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a", ["a"]),
        ("./a", ["a"]),
        ("/a", ["a"]),
        ("d", ["", "c.go", "e", "e/f.go"]),
        ("link", ["", "c.go", "e", "e/f.go"]),
        ("link/c.go", ["c.go"]),
        ("*.go", ["b.go"]),
        ("**/*.go", ["c.go"]),
        ("d/**", ["c.go", "", "f.go"]),
        ("[*][*]*", []),
        ("../a", ["a"]),
        ("d/../../d/c.go", ["c.go"]),
        ("d/[a-d].go", ["c.go"]),
        ("d/*", ["c.go", "", "f.go"]),
        ("none*", []),
        ("\\a", ["a"]),
    ],
)
def test_patterns(tree: Make, pattern: str, found: list[str]) -> None:
    assert names(tree(FILES), pattern) == found


def test_parents_and_exclusions(tree: Make) -> None:
    source = tree(FILES)
    assert names(source, "d/e/f.go", parents=True) == ["d", "d/e", "d/e/f.go"]
    assert names(source, "d/./e/f.go", parents=True) == ["e", "e/f.go"]
    assert names(source, "*/./e/f.go", parents=True) == ["e", "e/f.go"]
    assert names(source, "**/e/./*.go", parents=True) == ["f.go"]
    assert names(source, "d", exclude=("**/f.go",)) == ["", "c.go", "e"]
    assert names(source, "d", exclude=("e",)) == ["", "c.go"]
    assert names(source, "d", exclude=("e", "!e/f.go")) == ["", "c.go", "e/f.go"]


@pytest.mark.parametrize("pattern", ["out", "up", "none", "a/b", "link/none"])
def test_what_is_not_there(tree: Make, pattern: str) -> None:
    with pytest.raises(NotFound):
        names(tree(FILES), pattern)


def test_ignored_files(tree: Make) -> None:
    source = tree(FILES, ignore=("d", "!d/e", "a"))
    assert names(source, ".") == ["", "b.go", "d", "d/e", "d/e/f.go", "link", "out", "up"]
    with pytest.raises(NotFound, match=r"left out by \.dockerignore"):
        names(source, "a")


def test_digests_count_what_counts(tree: Make, tmp_path: Path) -> None:
    source = tree({"x/a": "1", "x/b": "2"})

    def digest(mode: str = "") -> str:
        return digest_of(
            choose(source, "x", parents=False, exclude=()), Mode.parse(mode) if mode else None, owners=False
        )

    first = digest()
    path = tmp_path / "tree0" / "x" / "a"
    os.utime(path, (1, 1))
    assert digest() == first
    path.chmod(0o600)
    assert digest() != first
    assert digest("644") == digest("644")
    path.write_text("3")
    assert digest() != first


def test_the_index_remembers_what_is_not_fresh(tree: Make, tmp_path: Path) -> None:
    store = tmp_path / "index"
    source = tree({"a": "1"}, index=Index(store))
    names(source, "a")
    source.close()
    assert not store.exists()  # it was written just now: its times may not tell the next change
    index = Index(store)
    index._began += 10_000_000_000
    source = tree({}, index=index)
    (tmp_path / "tree1" / "a").write_text("x")
    node = source.find("a")
    digest = source.known(node)
    source.close()
    assert Index(store).find(node) == (digest[0], False)
    (tmp_path / "tree1" / "a").write_text("y")
    assert Index(store).find(source.find("a")) is None
    store.write_bytes(b"nonsense")
    assert Index(store).find(node) is None


def laid(source: Tree, below: Tree, pattern: str, target: str, **options: object) -> dict[str, tarfile.TarInfo]:
    out = bytearray()
    writer = TarWriter(out.extend)
    parents = bool(options.pop("parents", False))
    settings = {"owner": (0, 0), "mode": None, "mtime": 7, **options}
    layout = Layout(writer, below, **settings)  # type: ignore[arg-type]
    for each in choose(source, pattern, parents=parents, exclude=()):
        layout.copy(source, each, target, parents=parents)
    writer.end()
    with tarfile.open(fileobj=io.BytesIO(bytes(out))) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_where_files_go(tree: Make) -> None:
    source = tree(FILES)
    below = tree({"there/x": "", "to": "@there", "deep/": "", "dangling": "@new/place", "loop": "@loop"})
    assert list(laid(source, below, "a", "/x")) == ["x"]
    assert list(laid(source, below, "a", "/x/")) == ["x", "x/a"]
    assert list(laid(source, below, "a", "/there")) == ["there", "there/a"]
    assert list(laid(source, below, "a", "/to/")) == ["there", "there/a"]
    assert list(laid(source, below, "a", "/to/../y")) == ["y"]
    assert list(laid(source, below, "a", "/../../y")) == ["y"]
    assert list(laid(source, below, "a", "/dangling")) == ["new", "new/place"]
    assert list(laid(source, below, "d", "/deep")) == ["deep", "deep/c.go", "deep/e", "deep/e/f.go"]
    assert list(laid(source, below, "d/e/f.go", "/z", parents=True)) == ["z", "z/d", "z/d/e", "z/d/e/f.go"]
    with pytest.raises(Invalid, match="more than 40 links"):
        laid(source, below, "a", "/loop/x")


def test_owners_modes_and_times(tree: Make, tmp_path: Path) -> None:
    source, below = tree(FILES), tree({"there/": ""})
    (tmp_path / "tree1" / "there").chmod(0o1777)
    os.utime(tmp_path / "tree0" / "d" / "c.go", (1000, 1000.5))
    found = laid(source, below, "d", "/there/n", owner=(5, 6), mode=Mode.parse("u=rwX,go="))
    assert (found["there"].mode, found["there"].uid) == (0o1777, os.getuid())
    assert (found["there/n"].mode, found["there/n"].uid, found["there/n"].gid) == (0o755, 5, 6)
    assert (found["there/n/c.go"].mode, found["there/n/c.go"].mtime) == (0o600, 1000)
    assert laid(source, below, "a", "/new/x")["new"].mtime == 7


@pytest.mark.parametrize(("pattern", "target"), [("d", "/file"), ("a", "/file/x"), ("a", "/dir/sub"), ("d", "/file/")])
def test_things_in_the_way(tree: Make, pattern: str, target: str) -> None:
    below = tree({"file": "", "dir/sub/a/": ""})
    with pytest.raises(Invalid, match="cannot"):
        laid(tree(FILES), below, pattern, target)


def test_hard_links_stay_links_within_a_source(tree: Make, tmp_path: Path) -> None:
    source, below = tree({"d/one": "x", "d/sub/": "", "e/": "", "d/single": "y"}), tree({})
    root = tmp_path / "tree0"
    os.link(root / "d/one", root / "d/sub/two")
    os.link(root / "d/one", root / "e/three")
    laid_out = laid(source, below, "d", "/to/")
    assert laid_out["to/one"].isreg()
    assert (laid_out["to/sub/two"].type, laid_out["to/sub/two"].linkname) == (tarfile.LNKTYPE, "to/one")
    assert laid_out["to/single"].isreg()
    # Sources are each for itself, as BuildKit copies them.
    both = laid(source, below, "[de]", "/to/")
    assert both["to/three"].isreg()
    assert both["to/sub/two"].islnk()


def test_several_matches_need_a_directory(tree: Make) -> None:
    """One that is there will do; what would be lost is refused."""
    source = tree({"a1": "1", "a2": "2", "d/x": "3", "e1": "4"})
    assert set(laid(source, tree({"to/": ""}), "a*", "/to")) == {"to", "to/a1", "to/a2"}
    assert {"to", "to/x", "to/e1"} <= set(laid(source, tree({}), "[de]*", "/to"))
    for below in (tree({}), tree({"to": "a file"})):
        with pytest.raises(Invalid, match="the destination must be a directory and end with a /"):
            laid(source, below, "a*", "/to")


def test_names_that_would_remove_something(tree: Make) -> None:
    with pytest.raises(Invalid, match="mean that something is removed"):
        names(tree({"x/.wh.passwd": ""}), "x")


def test_owners_by_name(tree: Make) -> None:
    below = tree({"etc/passwd": "www:x:33:34::/:\n", "etc/group": "extra:x:44:\n"})
    assert owner_of("www", below) == (33, 34)
    assert owner_of("www:extra", below) == (33, 44)
    assert owner_of("7", below) == (7, 7)
    assert owner_of("7:8", below) == (7, 8)
    for wrong in ("none", "www:none", "99999999999"):
        with pytest.raises(Invalid):
            owner_of(wrong, below)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("755", 0o600, 0o755),
        ("0644", 0o777, 0o644),
        ("u+x", 0o644, 0o744),
        ("go-rwx", 0o755, 0o700),
        ("a=rX", 0o755, 0o555),
        ("a=rX", 0o644, 0o444),
        ("u=rwX,go=rX", 0o600, 0o644),
        ("+x", 0o644, 0o755),
        ("g=u", 0o640, 0o660),
        ("u+s", 0o755, 0o4755),
    ],
)
def test_modes(text: str, before: int, after: int) -> None:
    assert Mode.parse(text).of(stat.S_IFREG | before) == after


@pytest.mark.parametrize("text", ["9", "u", "u+y", "77777", "", "x=r"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        Mode.parse(text)


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_archives(tree: Make, kind: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as tar:
        member = tarfile.TarInfo("./d/f")
        member.size, member.uid, member.mode = 3, 9, 0o604
        tar.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("hard")
        link.type, link.linkname = tarfile.LNKTYPE, "d/f"
        tar.addfile(link)
    data = buffer.getvalue()
    assert _archive.is_archive(iter([data[:100], data[100:]]))
    out = bytearray()
    writer = TarWriter(out.extend)
    _archive.unpack(iter([data]), Layout(writer, tree({}), owner=None, mode=None, mtime=0), "/to")
    writer.end()
    with tarfile.open(fileobj=io.BytesIO(bytes(out))) as tar:
        assert tar.getnames() == ["to", "to/d", "to/d/f", "to/hard"]
        assert (tar.getmember("to/d/f").uid, tar.getmember("to/d/f").mode) == (9, 0o604)
        assert tar.getmember("to/hard").linkname == "to/d/f"
        taken = tar.extractfile("to/d/f")
        assert taken is not None
        assert taken.read() == b"abc"


@pytest.mark.parametrize("data", [b"", b"text", bytes(1024), b"\x1f\x8b broken", b"BZh9", b"\xfd7zXZ\0x", b"a" * 2000])
def test_what_is_no_archive(data: bytes) -> None:
    assert not _archive.is_archive(iter([data]))


@pytest.mark.parametrize(("name", "link"), [("../x", ""), ("a/../../x", ""), ("x", "../../y")])
def test_archives_that_lead_out(tree: Make, name: str, link: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        if link:
            member.type, member.linkname = tarfile.LNKTYPE, link
        tar.addfile(member)
    with pytest.raises(ScowError, match="leads out"):
        _archive.unpack(
            iter([buffer.getvalue()]),
            Layout(TarWriter(lambda _: None), tree({}), owner=None, mode=None, mtime=0),
            "/to",
        )


def test_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "build" / "cache.db"
    cache = BuildCache(path)
    key = Key("run", args=("a",), parent="p")
    record = Record("sha256:1", "sha256:1", 5, "tar", time.time())

    def add(key: Key, slot: str, files: dict[str, str] | None = None) -> None:
        parts = json.dumps(key.kept()).encode()
        cache.add(key.value, record, Place("sha256:2", "", "RUN a", slot), parts, packed(files or {}))

    assert cache.find(key.value) is None
    assert explain(cache, key, "slot") == "it was never built"
    add(key, "slot")
    assert cache.find(Key("run", parent="p", args=("a",)).value) == record
    assert explain(cache, Key("run", args=("b",), parent="p"), "slot") == "changed: the command"
    add(Key("copy", files="1"), "copy", {"a": "1", "b": "2"})
    why = explain(cache, Key("copy", files="2"), "copy", {"a": "1", "b": "3", "c": "4"})
    assert why == "changed: the copied files (b, c)"
    cache.remember("memo", "v")
    assert cache.memo("memo") == "v"
    assert kept(path) == [("sha256:1", "sha256:2")]
    assert cache.bytes() == 5
    # What was used since it was listed stays.
    listed = cache.entries()
    assert cache.touch({key.value: Place("sha256:3", "")}) == []
    assert [each.key for each in cache.forget(listed)] == [Key("copy", files="1").value]
    assert kept(path) == [("sha256:1", "sha256:3")]
    other = Key("copy", files="1").value
    assert cache.touch({key.value: Place("sha256:3", ""), other: Place("", "")}) == [other]
    cache.close()
    path.write_bytes(b"no database at all" * 1000)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert kept(path) == []
    again = BuildCache(path)
    assert again.find(key.value) is None
    again.close()


def test_an_older_cache_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE layers (key TEXT)")
    old.commit()
    old.close()
    assert kept(path) == []
    cache = BuildCache(path)
    assert cache.entries() == []
    cache.close()


def test_differences() -> None:
    assert differences({"a": "1", "env": "2"}, {"a": "1", "env": "3", "files": "x"}) == (
        "changed: the environment, the copied files"
    )
    assert differences({"a": "1"}, {"a": "1"}) == "its layer is gone"


def _tar(*members: tuple[str, bytes, str]) -> bytes:
    """An archive of (name, type, link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.uid, member.gid = kind, link, 7, 8
            tar.addfile(member)
    return buffer.getvalue()


def _unpacked(data: bytes, below: Tree, owner: tuple[int, int] | None = None) -> dict[str, tarfile.TarInfo]:
    out = bytearray()
    writer = TarWriter(out.extend)
    _archive.unpack(iter([data]), Layout(writer, below, owner=(0, 0), mode=None, mtime=0), "/", owner)
    writer.end()
    with tarfile.open(fileobj=io.BytesIO(bytes(out))) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_an_archive_goes_over_links_beneath_the_root(tree: Make) -> None:
    """A merged /usr: /lib is a link, and what the archive calls lib/x belongs beneath /usr/lib."""
    below = tree({"usr/lib/old": "", "lib": "@usr/lib", "out": "@../../../elsewhere"})
    found = _unpacked(_tar(("lib/x", b"0", ""), ("lib/y", b"1", "lib/x"), ("out/z", b"0", "")), below)
    assert set(found) == {"usr", "usr/lib", "usr/lib/x", "usr/lib/y", "elsewhere", "elsewhere/z"}
    assert found["usr/lib/y"].linkname == "usr/lib/x"
    # What it links itself counts for what comes later, and a directory replaces a link, as with BuildKit.
    found = _unpacked(_tar(("to", b"2", "usr"), ("to/x", b"0", "")), below)
    assert set(found) == {"to", "usr", "usr/x"}
    assert set(_unpacked(_tar(("lib", b"5", ""), ("lib/x", b"0", "")), below)) == {"lib", "lib/x"}


def test_an_archives_owners(tree: Make) -> None:
    data = _tar(("d", b"5", ""), ("d/x", b"0", ""), ("l", b"2", "x"))
    assert {(each.uid, each.gid) for each in _unpacked(data, tree({})).values()} == {(7, 8)}
    assert {(each.uid, each.gid) for each in _unpacked(data, tree({}), (1, 2)).values()} == {(1, 2)}


def test_parents_that_are_kept_keep_their_modes(tree: Make, tmp_path: Path) -> None:
    source, below = tree({"p/q/f": "1", "p/d/g": "2"}), tree({})
    (tmp_path / "tree0/p").chmod(0o711)
    (tmp_path / "tree0/p/q").chmod(0o2750)
    modes = {name: each.mode for name, each in laid(source, below, "p/q/f", "/to/", parents=True).items()}
    assert modes | {"to/p/q/f": 0} == {"to": 0o755, "to/p": 0o711, "to/p/q": 0o2750, "to/p/q/f": 0}
    assert laid(source, below, "p/d", "/to/", parents=True)["to/p"].mode == 0o711
    assert laid(source, below, "p/./q/f", "/to/", parents=True)["to/q"].mode == 0o2750
    before = digest_of(choose(source, "p/q/f", parents=True, exclude=()), None, owners=False)
    (tmp_path / "tree0/p").chmod(0o755)
    assert digest_of(choose(source, "p/q/f", parents=True, exclude=()), None, owners=False) != before


def test_an_octal_mode_counts_for_directories_on_the_way(tree: Make) -> None:
    """BuildKit's testCopyChmod; a symbolic mode leaves them as they are."""
    source, below = tree({"a": "1"}), tree({"there/": ""})
    assert laid(source, below, "a", "/n/m/a", mode=Mode.parse("770"))["n"].mode == 0o770
    assert laid(source, below, "a", "/n/a", mode=Mode.parse("u=rwx,go="))["n"].mode == 0o755
    assert laid(source, below, "a", "/there/a", mode=Mode.parse("770"))["there"].mode == 0o755


def test_a_socket_of_a_context_is_an_empty_file(tree: Make, tmp_path: Path) -> None:
    source = tree({"d/f": "x"}, ignore=("nothing",))
    place = tmp_path / "tree0" / "d" / "s"
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(place))
        found = laid(source, tree({}), "d", "/to/")
        assert found["to/s"].isreg()
        assert found["to/s"].size == 0
        # A layer holds none, so that none comes out of a stage.
        assert "to/s" not in laid(tree({"e": ""}), tree({}), "*", "/to/")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://host/a/b.tar?x=/y", "b.tar"),
        ("http://host/a/", "a"),
        ("http://host/", "__unnamed__"),
        ("http://host", "__unnamed__"),
        ("http://host/..", "__unnamed__"),
        ("http://host/a%20b", "a b"),
    ],
)
def test_names_of_urls(url: str, name: str) -> None:
    assert name_of(url) == name
