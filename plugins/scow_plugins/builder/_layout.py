"""A COPY's files as the entries of a layer: where they go in the image below, over its links, without leaving it.

Nothing is written to a tree first: the archive is made straight from where the files lie. Same files, same bytes.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from scow.api import Invalid
from scow.api.layers import Member, TarWriter
from scow_plugins.builder._modes import Mode
from scow_plugins.builder._select import WHITEOUT, Chosen, Source
from scow_plugins.builder._tree import Node, Tree

_LINKS_MAX: Final = 40
_SECOND: Final = 1_000_000_000
_KINDS: Final = {
    stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}  # fmt: skip


class Layout:
    """Writes into `writer` what lies on top of `below`. `owner` None keeps the files' own owners."""

    def __init__(
        self, writer: TarWriter, below: Tree, *, owner: tuple[int, int] | None, mode: Mode | None, mtime: int
    ) -> None:
        self._writer = writer
        self._below = below
        self._owner = owner
        self._mode = mode
        #: Of directories that are made on the way, in seconds: a fixed one, so that a layer can be made again.
        self._mtime = mtime
        #: Real paths that this layer has: true for directories.
        self._written: dict[str, bool] = {}
        #: Links that an archive has put here: its later entries go over them.
        self._links: dict[str, str] = {}
        #: Where files with several names were put: of one source.
        self._linked: dict[tuple[int, int, str], str] = {}

    def copy(self, tree: Tree, source: Source, target: str, *, parents: bool) -> None:
        """Put a source's files at an absolute target. Raises Invalid."""
        self._linked.clear()
        into = target.endswith("/") or parents
        place = self.settle(target)
        if not source.is_directory:
            for each in source.files:
                if each.node.is_directory:  # a parent that is kept
                    self._put(tree, each, self._joined(place, each.name))
                    continue
                there = self._node(place)
                inside = into or (there is not None and there.is_directory) or self._written.get(place) is True
                if not inside and place in self._written:
                    # BuildKit lets the last one win, against its own documentation: nobody can mean that.
                    raise Invalid(
                        "with more than one source file, the destination must be a directory and end with a /"
                    )
                self._put(tree, each, self._joined(place, each.name) if inside else place)
            return
        # What is meant is the directory's content: a target that isn't there is made, and has nothing of its mode.
        self.directory(place)
        for each in source.files:
            self._put(tree, each, self._joined(place, each.name))

    def file(self, name: str, content: bytes, target: str, mode: int, mtime: int) -> None:
        """Put a file that is only in memory."""
        self.stream(name, [content], len(content), target, mode, mtime)

    def stream(self, name: str, data: Iterable[bytes], size: int, target: str, mode: int, mtime: int) -> None:
        """Put a file of `size` bytes that come from somewhere else."""
        place = self.settle(target)
        there = self._node(place)
        if target.endswith("/") or (there is not None and there.is_directory):
            place = self._joined(place, name)
        self._parents(place)
        self._check_file(place, name)
        owner = self._owner or (0, 0)
        bits = self._mode.of(stat.S_IFREG | mode) if self._mode is not None else mode
        self._written[place] = False
        self._emit(Member(_bytes(place), b"0", bits, *owner, size, mtime * _SECOND), data)

    def entry(self, member: Member, data: Iterable[bytes], target: str, owner: tuple[int, int] | None) -> None:
        """Put an archive's entry beneath a target directory; `member.name` is relative and clean.

        Links on the way are followed beneath the root, the archive's own, too. `owner` None: each keeps its own;
        --chown covers all that comes out (BuildKit since 0.23).
        """
        place = self._beneath(target, member.name)
        self._parents(place)
        self._written[place] = member.kind == b"5"
        self._links.pop(place, None)
        link = member.link
        if member.kind == b"1":
            link = _bytes(self._beneath(target, link))
        elif member.kind == b"2":
            self._links[place] = os.fsdecode(link)
        uid, gid = owner or (member.uid, member.gid)
        name = _bytes(place) + (b"/" if member.kind == b"5" else b"")
        self._emit(replace(member, name=name, uid=uid, gid=gid, link=link), data)

    def _beneath(self, target: str, name: bytes) -> str:
        """The real path of an archive's name: over links, but for its last part, which is what the entry is about."""
        above, _, last = os.fsdecode(name).rpartition("/")
        return self._joined(self.settle(f"{target}/{above}"), last)

    def directory(self, place: str) -> None:
        """A directory at a real path, made with its parents if it isn't there. Raises Invalid."""
        if not place or place in self._written:
            return
        self._parents(place)
        there = self._below.lstat(place)
        if there is not None:
            if not there.is_directory:
                raise Invalid(f"cannot copy to non-directory: /{place}")
            # As it is: a layer for itself has to say what its directories are.
            status = there.status
            member = Member(
                _bytes(place) + b"/",
                b"5",
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                0,
                status.st_mtime_ns // _SECOND * _SECOND,
                xattrs=self._below.xattrs(there),
            )
        else:
            # An octal --chmod counts for what is made on the way, too, a symbolic one doesn't: so it is with BuildKit.
            mode = self._mode.fixed if self._mode is not None and self._mode.fixed is not None else 0o755
            member = Member(_bytes(place) + b"/", b"5", mode, *(self._owner or (0, 0)), 0, self._mtime * _SECOND)
        self._written[place] = True
        self._emit(member, ())

    def settle(self, target: str) -> str:
        """The real path of a target, over the links of the image below; what isn't there yet is taken as written."""
        ahead = [part for part in target.split("/") if part][::-1]
        here = ""
        links = 0
        while ahead:
            part = ahead.pop()
            if part == ".":
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            step = self._joined(here, part)
            node = None if step in self._written else self._below.lstat(step)
            link = self._links.get(step, "") if node is None else node.link
            if not link:
                here = step
                continue
            links += 1
            if links > _LINKS_MAX:
                raise Invalid(f"{target!r} goes over more than {_LINKS_MAX} links")
            here = "" if link.startswith("/") else here
            ahead += [each for each in link.split("/") if each][::-1]
        return here

    def _put(self, tree: Tree, each: Chosen, place: str) -> None:
        status = each.node.status
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            if tree.ignore is None:
                return  # a layer can't hold a socket
            kind = b"0"  # out of a context it comes as an empty file (fsutil, by which buildx sends it)
        if not place:
            return  # the root directory itself
        if kind == b"5":
            self._put_directory(each, place)
            return
        self._parents(place)
        self._check_file(place, each.node.path)
        member = self._member(each, place, kind)
        self._written[place] = False
        first = self._first(each, place) if kind == b"0" else None
        if first is not None:
            self._emit(replace(member, kind=b"1", size=0, link=_bytes(first), xattrs=None), ())
            return
        self._emit(member, tree.content(each.node) if each.node.is_regular else ())

    def _first(self, each: Chosen, place: str) -> str | None:
        """Where this source has put the same file under another name: it stays one file."""
        status = each.node.status
        if status.st_nlink < 2:
            return None
        # With the digest: not every file system's numbers can be trusted.
        first = self._linked.setdefault((status.st_dev, status.st_ino, each.digest), place)
        return first if first != place else None

    def _put_directory(self, each: Chosen, place: str) -> None:
        there = self._node(place)
        if there is not None and not there.is_directory and self._written.get(place) is not True:
            raise Invalid(f"cannot copy to non-directory: /{place}")
        if place in self._written or (each.top and there is not None):
            self.directory(place)  # the target that was there keeps its own mode
            return
        self._parents(place)
        self._written[place] = True
        self._emit(self._member(each, place, b"5"), ())

    def _member(self, each: Chosen, place: str, kind: bytes) -> Member:
        status = each.node.status
        bits = stat.S_IMODE(status.st_mode)
        if self._mode is not None and kind != b"2":
            bits = self._mode.of(status.st_mode)
        return Member(
            _bytes(place) + (b"/" if kind == b"5" else b""),
            kind,
            0o777 if kind == b"2" else bits,
            *(self._owner or (status.st_uid, status.st_gid)),
            status.st_size if kind == b"0" else 0,
            status.st_mtime_ns // _SECOND * _SECOND,
            _bytes(each.node.link),
            (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in b"34" else (0, 0),
            each.xattrs,
        )

    def _check_file(self, place: str, name: str) -> None:
        there = self._node(place)
        if self._written.get(place) is True or (there is not None and there.is_directory):
            raise Invalid(f"cannot replace the directory /{place} with the file {name}")

    def _parents(self, place: str) -> None:
        parent = place.rpartition("/")[0]
        if parent and parent not in self._written:
            self.directory(parent)
        elif parent and self._written[parent] is False:
            raise Invalid(f"cannot copy to non-directory: /{parent}")

    def _node(self, place: str) -> Node | None:
        return self._below.lstat(place) if place else self._below.find("")

    def _emit(self, member: Member, data: Iterable[bytes]) -> None:
        if member.name.rstrip(b"/").rpartition(b"/")[2].startswith(WHITEOUT.encode()):
            raise Invalid(f"{member.name!r} can't be in a layer: names that begin with {WHITEOUT} mean a removal")
        self._writer.member(member, data)

    @staticmethod
    def _joined(directory: str, name: str) -> str:
        return posixpath.join(directory, name) if name else directory


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def owner_of(text: str, below: Tree) -> tuple[int, int]:
    """`--chown`: user[:group] as numbers, names looked up in the image. Raises Invalid."""
    user, colon, group = text.partition(":")
    uid, gid = 0, 0
    if user.isascii() and user.isdigit():
        uid = gid = int(user)
    elif user:
        line = _line_of(below, "etc/passwd", user, 4)
        if line is None:
            raise Invalid(f"unable to find user {user}: no matching entries in passwd file")
        uid, gid = int(line[2]), int(line[3])
    if colon and group:
        if group.isascii() and group.isdigit():
            gid = int(group)
        else:
            line = _line_of(below, "etc/group", group, 3)
            if line is None:
                raise Invalid(f"unable to find group {group}: no matching entries in group file")
            gid = int(line[2])
    if max(uid, gid) > 0xFFFFFFFE:
        raise Invalid(f"{text!r} is no owner: the number is too large")
    return uid, gid


def _line_of(below: Tree, path: str, name: str, fields: int) -> list[str] | None:
    for line in _lines(below, path):
        parts = line.split(":")
        if len(parts) >= fields and parts[0] == name and all(part.isdigit() for part in parts[2:fields]):
            return parts
    return None


def _lines(below: Tree, path: str) -> Iterator[str]:
    try:
        node = below.find(path)
    except Exception:  # noqa: BLE001 - an image without the file has no names
        return
    if node.is_regular and node.status.st_size < 8 << 20:
        yield from b"".join(below.content(node)).decode(errors="replace").splitlines()
