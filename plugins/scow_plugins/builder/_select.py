"""Which files a COPY means, under which names they arrive, and a digest of all that counts about them."""

from __future__ import annotations

import hashlib
import posixpath
import re
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from scow.api import Invalid, NotFound
from scow_plugins.builder._ignore import Ignore, matcher
from scow_plugins.builder._modes import Mode
from scow_plugins.builder._tree import Node, Tree

_WILD: Final = re.compile(r"[*?\[\\]")
#: What is no run of stars though it may hold some: an escaped letter, a set; or such a run.
_STARS: Final = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\*+", re.DOTALL)
WHITEOUT: Final = ".wh."
#: More sources than that are chosen in a thread of their own.
_FEW: Final = 4


class Chosen(NamedTuple):
    """A file with the name under which it arrives, relative to the target; empty: the target itself.

    `top`: it was asked for itself, so that its parent is the target.
    """

    node: Node
    name: str
    top: bool
    digest: str
    xattrs: dict[str, bytes] | None


class Source(NamedTuple):
    """One source of a COPY: what it led to. `tops` is how many files were asked for, directories' contents as one."""

    files: tuple[Chosen, ...]
    is_directory: bool


def choose(tree: Tree, pattern: str, *, parents: bool, exclude: tuple[str, ...]) -> tuple[Source, ...]:
    """What one source means. Raises NotFound, Invalid."""
    leaves_out = Ignore(exclude)
    clean = cleaned(pattern)
    pivot = ""
    if parents:
        clean, pivot = _pivot(pattern, clean)
    found = []
    for path in _matches(tree, clean, several_levels=parents):
        found.append(_source(tree, path, parents=parents, pivot=pivot, leaves_out=leaves_out))
    return tuple(found)


def at_once(tree: Tree, patterns: tuple[str, ...]) -> bool:
    """Whether choosing takes hardly more than a few system calls: files named one by one, of which nothing is read."""
    return (
        len(patterns) <= _FEW
        and not any(map(is_pattern, patterns))
        and all(map(tree.remembers, map(cleaned, patterns)))
    )


def is_pattern(source: str) -> bool:
    """Whether it may mean something else than the one file of that name."""
    return _WILD.search(source) is not None


def cleaned(pattern: str) -> str:
    """A source relative to its tree; `..` ends at its root (dockerfile reference, "COPY": `../x` means `/x`)."""
    return posixpath.normpath("/" + pattern.lstrip("/")).lstrip("/")


def _pivot(pattern: str, clean: str) -> tuple[str, str]:
    """`a/./b`: what stands before the dot isn't kept (dockerfile reference, COPY --parents)."""
    before, mark, _ = pattern.lstrip("/").partition("/./")
    return clean, (cleaned(before) if mark else "")


def _behind(path: str, pivot: str) -> str:
    """What of a path is kept; a pivot may have wildcards itself."""
    if not pivot:
        return path
    parts, matches = path.split("/"), matcher(pivot)
    ends = (end for end in range(1, len(parts) + 1) if matches("/".join(parts[:end])))
    return "/".join(parts[next(ends, 0) :])


def one_level(pattern: str) -> str:
    """A pattern whose `**` takes no more than `*` does, as Go's filepath.Match reads it, by which COPY finds files."""
    return _STARS.sub(lambda found: found[1] or "*", pattern)


def _matches(tree: Tree, clean: str, *, several_levels: bool) -> Iterator[str]:
    match = _WILD.search(clean)
    if match is None:
        node = tree.find(clean)
        if tree.ignores(clean) and not _holds_something(tree, clean, node):
            raise NotFound(f"{clean!r} is left out by .dockerignore")
        yield clean
        return
    fixed = clean[: match.start()].rpartition("/")[0]
    matches = matcher(clean if several_levels else one_level(clean))
    try:
        top = tree.find(fixed)
    except NotFound:
        return
    if not top.is_directory:
        return
    taken: list[str] = []
    for node in tree.walk(top.path):
        shown = fixed + node.path[len(top.path) :] if fixed else node.path
        if any(shown.startswith(each + "/") for each in taken[-1:]):
            continue
        if matches(shown):
            taken.append(shown)
            yield shown


def _holds_something(tree: Tree, path: str, node: Node) -> bool:
    """Whether an ignored directory has something that was taken back."""
    return node.is_directory and next(tree.walk(node.path), None) is not None


def _source(tree: Tree, path: str, *, parents: bool, pivot: str, leaves_out: Ignore) -> Source:
    node = tree.find(path)
    base = ""
    if parents:
        base = _behind(path, pivot)
    elif not node.is_directory:
        base = posixpath.basename(path)
    directories = tuple(_parents_of(tree, path, base)) if parents else ()
    if node.is_directory:
        files = [*directories, *([_chosen(tree, node, base, top=True)] if base or not parents else ())]
        cut = len(node.path) + 1 if node.path else 0
        skipped = ""
        above = base + "/" if base else ""
        for each in tree.walk(node.path):
            name = each.path[cut:]
            if skipped and name.startswith(skipped):
                continue
            if leaves_out.patterns and leaves_out.ignores(name):
                if each.is_directory and leaves_out.skips_tree(name):
                    skipped = name + "/"
                continue
            files.append(_chosen(tree, each, above + name, top=False))
        return Source(tuple(files), True)
    if leaves_out.patterns and leaves_out.ignores(posixpath.basename(path)):
        return Source((), False)
    return Source((*directories, _chosen(tree, node, base, top=True)), False)


def _parents_of(tree: Tree, path: str, kept: str) -> Iterator[Chosen]:
    """The directories above a file that `--parents` keeps: they arrive as they are, as with BuildKit."""
    before = path[: len(path) - len(kept)]
    for end in (at for at, letter in enumerate(kept) if letter == "/"):
        node = tree.find(before + kept[:end])
        if node.is_directory:
            yield _chosen(tree, node, kept[:end], top=False)


def _chosen(tree: Tree, node: Node, name: str, *, top: bool) -> Chosen:
    if WHITEOUT in name and posixpath.basename(name).startswith(WHITEOUT):
        raise Invalid(
            f"{node.path!r} can't be in a layer: names that begin with {WHITEOUT} mean that something is removed there"
        )
    if node.is_regular:
        return Chosen(node, name, top, *tree.known(node))
    return Chosen(node, name, top, "", tree.xattrs(node) if node.is_directory else None)


def digest_of(sources: tuple[Source, ...], mode: Mode | None, *, owners: bool) -> str:
    """All that counts about files: names, types, modes, owners, content; not times."""
    found = hashlib.sha256()
    for source in sources:
        found.update(b"d" if source.is_directory else b"f")
        for line in lines_of(source, mode, owners=owners):
            found.update(line.encode(errors="surrogateescape"))
            found.update(b"\n")
    return found.hexdigest()


def lines_of(source: Source, mode: Mode | None, *, owners: bool) -> Iterator[str]:
    """One line a file."""
    for each in source.files:
        status = each.node.status
        kind = stat.S_IFMT(status.st_mode)
        shown = mode.of(status.st_mode) if mode is not None else stat.S_IMODE(status.st_mode)
        line = f"{each.name!r} {kind:o} {0 if kind == stat.S_IFLNK else shown:o} {each.digest or repr(each.node.link)}"
        if owners:
            line += f" {status.st_uid}:{status.st_gid}"
        if kind in (stat.S_IFBLK, stat.S_IFCHR):
            line += f" {status.st_rdev}"
        if each.xattrs:
            line += f" {sorted(each.xattrs.items())!r}"
        yield line
