"""Images made of archives, read back by a reader of the tests' own, and passed by fsck.erofs."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from scow.errors import Corrupt, Exhausted
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.testing.layers import WHEN, archive, directory, fifo, file, hardlink, opaque, symlink, whiteout

from .conftest import Make
from .reader import Reader


@pytest.mark.parametrize("size", [0, 1, 3583, 3584, 3585, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 100_000])
def test_sizes_around_the_borders(make: Make, size: int) -> None:
    data = os.urandom(size)
    reader = Reader(make(archive(file("f", data), file("g", data[::-1]))))
    assert reader.content(reader.root.children[b"f"]) == data
    assert reader.content(reader.root.children[b"g"]) == data[::-1]


def test_one_layer_is_one_image(make: Make) -> None:
    data = archive(
        *(file(f"d{n % 7}/f{n}", b"%d" % n * n) for n in range(200)), symlink("l", "d1"), hardlink("h", "d0/f0")
    )
    first, second = make(data, name="1").read_bytes(), make(data, name="2").read_bytes()
    assert first == second
    assert make(archive(file("other")), name="3").read_bytes()[1072:1088] != first[1072:1088]


def test_metadata(make: Make) -> None:
    xattrs = {"SCHILY.xattr.user.note": "yes", "SCHILY.xattr.trusted.overlay.opaque": "y"}
    reader = Reader(
        make(
            archive(
                directory("d", 0o1750, uid=70_000, gid=80_000),
                file("d/f", b"x", 0o4755, pax_headers={**xattrs, "mtime": "1234567890.123456789"}),
                fifo("p", 0o622),
            )
        )
    )
    d, f = reader.root.children[b"d"], reader.paths()[b"d/f"]
    assert (d.mode, d.uid, d.gid, d.mtime) == (0o41750, 70_000, 80_000, WHEN * 10**9)
    assert (f.mode, f.mtime, f.xattrs) == (0o104755, 1234567890_123456789, {"user.note": b"yes"})
    assert reader.root.children[b"p"].mode == 0o010622
    assert (reader.root.mode, reader.root.mtime, reader.root.nlink) == (0o40755, 0, 3)


def test_a_directory_of_many(make: Make) -> None:
    names = [f"d/{n:0255d}" for n in range(3000)]
    reader = Reader(make(archive(*map(file, names))))
    assert reader.root.children[b"d"].children.keys() == {name[2:].encode() for name in names}
    assert reader.inodes == 3002


def test_names_sort_as_bytes_around_the_dots(make: Make) -> None:
    names = ["!", "-", "..a", ".a", "...", "/a", "0", "ü", "\x01", "~"]
    reader = Reader(make(archive(*(file(f"d/{name}") for name in names))))
    assert len(reader.root.children[b"d"].children) == len(names)


def test_hard_links_and_what_replaces_them(make: Make) -> None:
    reader = Reader(
        make(
            archive(
                file("a", b"1"), hardlink("b", "a"), hardlink("d/c", "b"), hardlink("b", "a"),
                file("x", b"2"), hardlink("y", "x"), file("x", b"3"),
                file("e/1", b"4"), hardlink("e/2", "e/1"), hardlink("z", "e/1"), file("e"),
            )
        )
    )  # fmt: skip
    paths = reader.paths()
    assert {paths[name].nid for name in (b"a", b"b", b"d/c")} == {paths[b"a"].nid}
    assert (paths[b"a"].nlink, paths[b"y"].nlink, paths[b"x"].nlink, paths[b"z"].nlink) == (3, 1, 1, 1)
    assert reader.content(paths[b"y"]) == b"2"
    assert reader.content(paths[b"z"]) == b"4"
    assert reader.inodes == len(reader.seen)


def test_links_in_paths_stay_within_the_image(make: Make) -> None:
    long = "x/" * 2000 + ".."
    reader = Reader(
        make(
            archive(
                symlink("out", "/../../etc"), file("out/passwd", b"!"), symlink("a", "b/../c"), directory("b"),
                file("a/f", b"1"), symlink("long", long),
            )
        )
    )  # fmt: skip
    paths = reader.paths()
    assert reader.content(paths[b"etc/passwd"]) == b"!"
    assert reader.content(paths[b"c/f"]) == b"1"
    assert reader.content(paths[b"long"]) == long.encode()


def _sparse(name: str, size: int, pieces: list[tuple[int, bytes]]) -> bytes:
    """GNU's format 1.0 by hand: the map stands before the data."""
    text = f"{len(pieces)}\n" + "".join(f"{offset}\n{len(data)}\n" for offset, data in pieces)
    head = text.encode().ljust(-(-len(text) // 512) * 512, b"\0")
    stored = head + b"".join(data for _, data in pieces)
    info = tarfile.TarInfo(name)
    info.size = len(stored)
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size),
    }  # fmt: skip
    return info.tobuf(tarfile.PAX_FORMAT) + stored + bytes(-len(stored) % 512) + bytes(1024)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (10_000, [(0, b"a" * 100), (5000, b"b" * 5000)]),
        (1 << 20, [(4000, b"c" * 200), (900_000, b"d" * 10_000)]),
        (100_000, []),
        (12_288, [(0, b"e" * 12_288)]),
        (300 << 20, [(0, b"f" * 10), (299 << 20, b"g" * 9000)]),
    ],
)
def test_sparse_files(make: Make, size: int, pieces: list[tuple[int, bytes]]) -> None:
    path = make(_sparse("f", size, pieces))
    expected = bytearray(size)
    for offset, data in pieces:
        expected[offset : offset + len(data)] = data
    reader = Reader(path)
    assert reader.content(reader.root.children[b"f"]) == bytes(expected)
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_sparse_file_of_terabytes_takes_little(make: Make) -> None:
    path = make(archive(file("x")))
    data = _sparse("f", 300 << 30, [(0, b"start"), (299 << 30, b"end")])
    # fsck would read all of it.
    fd = os.open(path, os.O_RDWR | os.O_TRUNC | os.O_CLOEXEC)
    from scow.layers.erofs.image import Image
    from scow.layers.erofs.layer import LayerWriter
    from scow.layers.erofs.output import FileOutput
    from scow.layers.tar import TarReader

    chunks = iter([data])
    reader = TarReader(lambda: next(chunks, b""))
    writer = LayerWriter(Image(FileOutput(fd, eager=False)), None, Limits())
    for entry in reader:
        writer.add(entry, reader.data)
    writer.finish(bytes(16))
    status = os.fstat(fd)
    os.close(fd)
    assert status.st_blocks * 512 < 1 << 20
    assert status.st_size < 64 << 20


def test_what_is_below_is_hidden_used_and_copied(make: Make, tmp_path: Path) -> None:
    below = tmp_path / "below"
    (below / "d").mkdir(parents=True)
    (below / "d/old").write_bytes(b"old")
    (below / "o").mkdir(0o700)
    os.utime(below / "o", ns=(5, 5))
    (below / "big").write_bytes(b"z" * 10_000)
    reader = Reader(
        make(
            archive(whiteout("d/old"), whiteout("d/never"), opaque("o"), hardlink("copy", "big"), file("o/new")),
            lower=below,
        )
    )
    paths = reader.paths()
    assert paths.keys() == {b"d", b"d/old", b"o", b"o/new", b"big", b"copy"}
    assert (paths[b"d/old"].mode, paths[b"d/old"].place) == (0o020000, 0)
    assert paths[b"o"].xattrs == {"trusted.overlay.opaque": b"y"}
    assert (paths[b"o"].mode, paths[b"o"].mtime) == (0o40700, 5)
    assert paths[b"copy"].nid == paths[b"big"].nid
    assert reader.content(paths[b"copy"]) == b"z" * 10_000


def test_large_attributes(make: Make) -> None:
    value = "v" * 5000
    reader = Reader(
        make(
            archive(
                file("f", b"content", pax_headers={"SCHILY.xattr.user.big": value}),
                directory("d", pax_headers={"SCHILY.xattr.user.big": value}),
                file("d/x"),
            )
        )
    )
    f = reader.root.children[b"f"]
    assert reader.content(f) == b"content"
    assert f.xattrs == reader.root.children[b"d"].xattrs == {"user.big": value.encode()}


def test_a_directory_that_becomes_something_else(make: Make) -> None:
    """Also where the entry before was in it."""
    members = [directory("b"), file("a/d/x"), symlink("a", "b"), file("b/d/y"), file("a/d/z")]
    assert Reader(make(archive(*members))).paths().keys() == {b"a", b"b", b"b/d", b"b/d/y", b"b/d/z"}
    members = [directory("b"), file("a/d/x"), symlink("a", "b"), file("a/d/z")]
    assert Reader(make(archive(*members))).paths().keys() == {b"a", b"b", b"b/d", b"b/d/z"}


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ([file("n" * 256)], Corrupt),
        ([file("/".join(["d" * 250] * 17) + "/x")], Corrupt),
        ([symlink("l", "t" * 4096)], Corrupt),
        ([symlink("l", "")], Corrupt),
        ([file("f", uid=1 << 33)], Corrupt),
        ([directory(".", pax_headers={"SCHILY.xattr.user.big": "v" * 3000})], Corrupt),
        ([file(f"{n}") for n in range(20)], Exhausted),
        ([file("big", bytes(100_001))], Exhausted),
    ],
)
def test_refused(make: Make, members: list, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make(archive(*members), limits=Limits(entries=19, written=100_000))


def test_directories_that_nobody_mentions_are_limited(make: Make) -> None:
    data = archive(*(file(f"{number}/" + "a/" * 1900 + "f") for number in range(3)))
    one = sum(range(2, 2 * 1900 + 3, 2))
    make(data, limits=Limits(paths=3 * one + 100))
    with pytest.raises(Exhausted, match="directories whose paths take more than"):
        make(data, limits=Limits(paths=3 * one - 100))


def test_a_path_over_links_ends(make: Make) -> None:
    links = [directory("a"), symlink("l0", "a/../" * 800 + "a")]
    links += [symlink(f"l{number}", f"l{number - 1}/../" * 3 + f"l{number - 1}") for number in range(1, 10)]
    with pytest.raises(Corrupt, match="goes over more than"):
        make(archive(*links, file("l9/x")))


def test_what_only_this_layer_has_is_not_looked_for_below(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = tmp_path / "lower"
    (lower / "old").mkdir(parents=True)
    (lower / "old").chmod(0o750)
    looked = []

    def look(tree: LowerTree, path: bytes) -> object:
        looked.append(path)
        return real(tree, path)

    real = LowerTree.look
    monkeypatch.setattr(LowerTree, "look", look)
    reader = Reader(make(archive(file("new/a/b/c"), file("old/a/b/c"), file("new/d/e")), lower=lower))
    assert looked == [b"new", b"old", b"old/a"]
    assert [reader.paths()[name].mode for name in (b"new", b"old")] == [0o40755, 0o40750]


def test_hard_links_that_aufs_kept(make: Make) -> None:
    layer = archive(
        file(".wh..wh.aufs"), directory(".wh..wh.orph"), directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/8.650", b"linked"),
        file(".wh..wh.plnk/8.651", b"of nobody"), hardlink("one", ".wh..wh.plnk/8.650"), directory("d"),
        hardlink("d/two", ".wh..wh.plnk/8.650"),
    )  # fmt: skip
    reader = Reader(make(layer))
    assert sorted(reader.paths()) == [b"d", b"d/two", b"one"]
    one = reader.root.children[b"one"]
    assert (reader.content(one), one.nlink, reader.root.nlink) == (b"linked", 2, 3)
