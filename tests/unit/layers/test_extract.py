"""Extraction against a model: any sequence of entries, in any number of layers, gives the tree that the model says."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scow.errors import Corrupt, Exhausted
from scow.layers.apply import apply_layer
from scow.layers.copying import copy_tree
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.names import beneath
from scow.layers.removal import delete, remove_tree
from scow.layers.tree import Tree
from scow.model.digest import Digest
from scow.testing.layers import (
    BytesBlob,
    Member,
    archive,
    contents,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

Model = dict[str, bytes | str]

_PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)
_ENTRIES = st.tuples(st.sampled_from(["file", "directory", "whiteout", "opaque"]), _PATHS)
_LAYERS = st.lists(st.lists(_ENTRIES, max_size=7), min_size=1, max_size=3)


class Impossible(Exception):
    """Something beneath a file."""


def model_apply(tree: Model, entries: list[tuple[str, str]], data: bytes) -> Model:
    """One layer, entry by entry, as docker does it: whiteouts remove at once what isn't of the same layer."""
    tree, mine = dict(tree), set[str]()

    def within(top: str) -> list[str]:
        return [path for path in tree if path == top or path.startswith(top + "/")]

    def parents(path: str) -> None:
        parts = path.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            parent = "/".join(parts[:end])
            if tree.setdefault(parent, "directory") != "directory":
                raise Impossible

    def beneath_file(path: str) -> bool:
        """Whiteouts there say nothing, what they hide is hidden by the file; but directories above it are mentioned."""
        above = [str(parent) for parent in reversed(PurePosixPath(path).parents)][1:]
        first = next((number for number, each in enumerate(above) if tree.get(each, "directory") != "directory"), None)
        mine.update(above[:first] if first is not None else ())
        return first is not None

    def hide(paths: list[str]) -> None:
        kept = {path for path in paths if any(own == path or own.startswith(path + "/") for own in mine)}
        for path in set(paths) - kept:
            del tree[path]

    for kind, path in entries:
        if kind in ("opaque", "whiteout") and beneath_file(path + "/x" if kind == "opaque" else path):
            continue
        if kind == "opaque":
            parents(path + "/x")
            mine.add(path)
            hide([inner for inner in within(path) if inner != path])
            continue
        parents(path)
        mine.update(path.rsplit("/", end)[0] for end in range(1, path.count("/") + 1))
        if kind == "whiteout":
            hide(within(path))
        elif kind == "file" or tree.get(path, "directory") != "directory":
            for gone in within(path):
                del tree[gone]
                mine.discard(gone)
            tree[path] = data if kind == "file" else "directory"
            mine.add(path)
        else:
            tree[path] = "directory"
            mine.add(path)
    return tree


_MAKE = {"file": None, "directory": directory, "whiteout": whiteout, "opaque": opaque}


def members(entries: list[tuple[str, str]], data: bytes) -> list[Member]:
    return [file(path, data) if kind == "file" else _MAKE[kind](path) for kind, path in entries]  # type: ignore[misc]


def extract(layer: bytes, target: Path, below: Path | None, limits: Limits | None = None) -> None:
    """As the native driver does, without owners, so that no root is needed."""
    lower = LowerTree.of(below) if below else None

    def settle(tree: Tree) -> None:
        if tree.lower is not None:
            copy_tree(tree.lower.fd, tree.root, merge=lambda path: not tree.covers(path), owners=False)

    target.mkdir()
    root = os.open(target, os.O_RDONLY)
    try:
        apply_layer(
            BytesBlob(layer), Digest.of(layer), root,
            lower=lower, settle=settle, check=lambda: None, limits=limits or Limits(), owners=False,
        )  # fmt: skip
    finally:
        os.close(root)
        if lower:
            lower.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """hypothesis runs a test many times with one tmp_path."""
    place = Path(tempfile.mkdtemp(prefix="scow-test-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@settings(max_examples=150, deadline=None)
@example([[("file", "a/a")], [("opaque", "a/a"), ("whiteout", "a")]])
@given(_LAYERS)
def test_layers_give_the_models_tree(layers: list[list[tuple[str, str]]]) -> None:
    model: Model = {}
    with scratch() as place:
        below = None
        for number, entries in enumerate(layers):
            data = b"layer %d" % number
            target = place / str(number)
            try:
                model = model_apply(model, entries, data)
            except Impossible:
                with pytest.raises(Corrupt):
                    extract(archive(*members(entries, data)), target, below)
                return
            extract(archive(*members(entries, data)), target, below)
            below = target
            assert contents(target) == model


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(
                symlink, st.sampled_from("abc"), st.sampled_from(["../x", "/", "..", "a", "b/../..", "/outside", "."])
            ),
            st.builds(file, st.sampled_from(["a/x", "b/x", "c/a/x", "a/b/c", "a"]), st.just(b"!")),
        ),
        max_size=8,
    )
)
def test_links_never_lead_out(entries: list[Member]) -> None:
    with scratch() as place:
        (place / "outside").mkdir()
        try:
            extract(archive(*entries), place / "root", None)
        except Corrupt:
            pass
        assert sorted(os.listdir(place)) == ["outside", "root"]
        assert os.listdir(place / "outside") == []


@given(st.lists(st.sampled_from(["a", "b", ".", "..", ""]), max_size=8).map("/".join))
def test_names_stay_beneath(name: str) -> None:
    depth = 0
    climbs = False
    for part in name.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        climbs = climbs or depth < 0
    if climbs:
        with pytest.raises(Corrupt, match="climbs out"):
            beneath(name.encode())
    else:
        assert os.path.normpath("/" + name).lstrip("/").encode() == beneath(name.encode())


def test_limits(tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="more than 2 entries"):
        extract(archive(file("a"), file("b"), file("c")), tmp_path / "one", None, Limits(entries=2))
    with pytest.raises(Exhausted, match="more than 10 bytes"):
        extract(archive(file("a", b"123456"), file("b", b"123456")), tmp_path / "two", None, Limits(written=10))


_KINDS = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE}


@pytest.mark.parametrize("owner", [(-1, 0), (0, -1), ((1 << 32) - 1, 0), (0, 1 << 40)])
@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_owners_that_nobody_is(tmp_path: Path, kind: str, owner: tuple[int, int]) -> None:
    """-1 would mean "as it is" to chown(2)."""
    info = tarfile.TarInfo("x")
    info.type, info.linkname, info.uid, info.gid = _KINDS[kind], "y", *owner
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(Corrupt, match="impossible owner"):
        extract(data, tmp_path / "one", None)


@pytest.mark.parametrize("length", [0, 4096])
def test_links_to_what_has_no_name(tmp_path: Path, length: int) -> None:
    with pytest.raises(Corrupt, match=f"a target of {length} bytes"):
        extract(archive(symlink("x", "y" * length)), tmp_path / "one", None)


def test_sparse_files_stay_sparse(tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("needs the program tar")
    import subprocess

    with open(tmp_path / "sparse", "wb") as big:
        big.truncate(50_000_000)
        big.seek(30_000_000)
        big.write(b"data")
    command = ["tar", "-S", "-cf", "-", "-C", str(tmp_path), "sparse"]
    extract(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout, tmp_path / "one", None)
    extract(archive(), tmp_path / "two", tmp_path / "one")
    for place in ("one", "two"):
        path = tmp_path / place / "sparse"
        assert path.read_bytes() == (tmp_path / "sparse").read_bytes()
        assert path.stat().st_blocks * 512 < 1_000_000


def test_remove_tree_of_any_depth(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    remove_tree(top, "d")
    os.close(top)
    assert os.listdir(tmp_path) == []


def deep(number: int) -> Member:
    """An entry that names 1,900 directories for which there is no entry."""
    return file(f"{number}/" + "a/" * 1900 + "f")


def test_directories_that_nobody_mentions_are_limited(tmp_path: Path) -> None:
    one = sum(range(1, 2 * 1900 + 2, 2))
    data = archive(*map(deep, range(3)))
    extract(data, tmp_path / "one", None, Limits(paths=3 * one + 100))
    with pytest.raises(Exhausted, match="directories whose paths take more than"):
        extract(data, tmp_path / "two", None, Limits(paths=3 * one - 100))
    for tree in ("one", "two"):
        delete(tmp_path / tree)  # pytest's own way isn't deep enough, and would fail runs that come later


def test_a_path_over_links_ends(tmp_path: Path) -> None:
    """Each link leads to the one before it, the first one a long way round."""
    links = [directory("a"), symlink("l0", "a/../" * 800 + "a")]
    links += [symlink(f"l{number}", f"l{number - 1}/../" * 3 + f"l{number - 1}") for number in range(1, 10)]
    with pytest.raises(Corrupt, match="goes over more than"):
        extract(archive(*links, file("l9/x")), tmp_path / "one", None)


def test_many_directories_replaced_many_times(tmp_path: Path) -> None:
    """What is forgotten of a directory is what was in it, not what is anywhere: else this would take minutes."""
    began = time.process_time()
    many = [directory(f"d{number}") for number in range(8000)]
    again = [member for number in range(8000) for member in (directory("x"), whiteout(f"x/{number}"), file("x"))]
    extract(archive(*many, *again, directory("x"), directory("x/d"), file("x/d/f"), file("x")), tmp_path / "one", None)
    assert (tmp_path / "one" / "x").read_bytes() == b""
    assert time.process_time() - began < 20


def test_hard_links_that_aufs_kept(tmp_path: Path) -> None:
    """Layers of that time have the file among aufs's own, and hard links to it."""
    layer = archive(
        file(".wh..wh.aufs"), directory(".wh..wh.orph"), directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/8.650", b"linked"),
        file(".wh..wh.plnk/8.651", b"of nobody"), hardlink("one", ".wh..wh.plnk/8.650"), directory("d"),
        hardlink("d/two", ".wh..wh.plnk/8.650"),
    )  # fmt: skip
    extract(layer, tmp_path / "root", None)
    assert sorted(os.listdir(tmp_path / "root")) == ["d", "one"]
    one, two = tmp_path / "root" / "one", tmp_path / "root" / "d" / "two"
    assert one.read_bytes() == b"linked"
    assert one.stat().st_ino == two.stat().st_ino
    assert one.stat().st_nlink == 2
    with pytest.raises(Corrupt, match="isn't there"):
        extract(archive(hardlink("one", ".wh..wh.plnk/8.650")), tmp_path / "other", None)
