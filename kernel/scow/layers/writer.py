"""Tar archives made here: same files, same bytes. ustar, with PAX records where a header can't hold it (pax(1)).

Entries come sorted from the caller. Owners are numbers only; a hard link follows the first name of its inode.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from scow.errors import Unsupported
from scow.layers.changes import xattrs_of
from scow.layers.names import WHITEOUT, show
from scow.model.storage import Change, ChangeKind
from scow.sys.paths import Resolve, open_beneath

_BLOCK: Final = 512
_PIECE: Final = 1 << 20
_OCTAL7, _OCTAL11 = 0o7777777, 0o77777777777
_STRICT: Final = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW
_KINDS: Final = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}

Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry's header. `mtime` in nanoseconds; `kind` is the type flag."""

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] | None = None


class TarWriter:
    """Writes an archive through `write`; `across`: what is mounted in the tree, too. File system errors are OSError."""

    def __init__(self, write: Write, *, across: bool = False) -> None:
        self._write = write
        self.resolve = _STRICT & ~Resolve.NO_XDEV if across else _STRICT
        self._links: dict[tuple[int, int], bytes] = {}

    def member(self, member: Member, data: Iterable[bytes] = ()) -> None:
        """Write an entry; `data` must give exactly `size` bytes."""
        records = _records(member)
        if records:
            body = b"".join(_record(key, value) for key, value in sorted(records.items()))
            title = (b"PaxHeaders/" + member.name.rstrip(b"/").rpartition(b"/")[2])[:100]
            self._write(_header(Member(title, b"x", 0o644, size=len(body))) + _padded(body))
        self._write(_header(member))
        for piece in data:
            self._write(piece)
        if padding := -member.size % _BLOCK:
            self._write(bytes(padding))

    def file(self, name: bytes, content: bytes, mode: int = 0o644) -> None:
        """Write a small file that is nowhere on disk: a whiteout, for one."""
        self.member(Member(name, b"0", mode, size=len(content)), [content])

    def inode(self, root: int, path: bytes, name: bytes | None = None) -> None:
        """Write what is at `path` beneath the descriptor `root`, under `name`. Sockets are left out."""
        name = path if name is None else name
        try:
            fd = open_beneath(root, path, _LOOK, resolve=self.resolve)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._mount_point(root, path, name)
            return
        try:
            status = os.fstat(fd)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                return
            first = self._first(status, name, kind)
            if first is not None:
                self.member(_member(name, b"1", status, link=first))
            elif kind == b"0":
                self._regular(fd, name)
            else:
                link = os.readlink(b"", dir_fd=fd) if kind == b"2" else b""
                shown = (name.rstrip(b"/") or b".") + b"/" if kind == b"5" else name
                self.member(_member(shown, kind, status, link=link, xattrs=xattrs_of(fd)))
        finally:
            os.close(fd)

    def _mount_point(self, root: int, path: bytes, name: bytes) -> None:
        """What another file system is mounted on: an empty directory or file, as its own metadata can't be seen."""
        fd = open_beneath(root, path, _LOOK, resolve=_STRICT & ~Resolve.NO_XDEV)
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
        self.member(Member(name + b"/", b"5", 0o755) if is_directory else Member(name, b"0", 0o644))

    def end(self) -> None:
        """Two blocks of zeros."""
        self._write(bytes(2 * _BLOCK))

    def _first(self, status: os.stat_result, name: bytes, kind: bytes) -> bytes | None:
        """The name under which this inode was written before."""
        if kind == b"5" or status.st_nlink < 2:
            return None
        first = self._links.setdefault((status.st_dev, status.st_ino), name)
        return first if first != name else None

    def _regular(self, path_fd: int, name: bytes) -> None:
        fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            self.member(_member(name, b"0", status, xattrs=xattrs_of(fd)), _content(fd, status.st_size))
        finally:
            os.close(fd)


def write_changes(writer: TarWriter, root: int, changes: Iterable[Change]) -> None:
    """A layer: `changes` sorted, what was added or modified read beneath `root`. Raises Unsupported, OSError."""
    for change in changes:
        directory, slash, name = change.path.rpartition(b"/")
        if change.kind is ChangeKind.DELETED:
            writer.file(directory + slash + WHITEOUT + name, b"")
            continue
        if name.startswith(WHITEOUT):
            raise Unsupported(
                f"a layer can't hold {show(change.path)}: names that begin with .wh. hide what lies below",
                hint="remove or rename it first",
            )
        try:
            writer.inode(root, change.path)
        except FileNotFoundError:
            continue  # the container runs, and has removed it meanwhile


def write_tree(writer: TarWriter, root: int, path: bytes = b"", title: bytes | None = None) -> None:
    """All that is at `path`, sorted, under the name `title` (default: its path). Other file systems are left out."""
    title = path if title is None else title
    ahead = [(path, title)]
    while ahead:
        here, name = ahead.pop()
        if here or name:
            with suppress(FileNotFoundError):  # a container that runs may remove it at any moment
                writer.inode(root, here, name)
        try:
            fd = open_beneath(root, here, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=writer.resolve)
        except OSError:
            continue  # not a directory, or one of another file system
        try:
            names = sorted((os.fsencode(each) for each in os.listdir(fd)), reverse=True)
        finally:
            os.close(fd)
        ahead += [(_joined(here, each), _joined(name, each)) for each in names]


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name if directory else name


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes: a file that shrinks meanwhile is filled up with zeros."""
    left = size
    while left:
        piece = os.read(fd, min(left, _PIECE)) or bytes(min(left, _PIECE))
        left -= len(piece)
        yield piece


def _member(
    name: bytes, kind: bytes, status: os.stat_result, *, link: bytes = b"", xattrs: dict[str, bytes] | None = None
) -> Member:
    is_device = kind in b"34"
    return Member(
        name,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_size if kind == b"0" else 0,
        status.st_mtime_ns,
        link,
        (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        xattrs,
    )


def _records(member: Member) -> dict[bytes, bytes]:
    """What the header can't hold."""
    records: dict[bytes, bytes] = {}
    for key, text in ((b"path", member.name), (b"linkpath", member.link)):
        if len(text) > 100 or not text.isascii():
            records[key] = text
    for key, number, most in (
        (b"uid", member.uid, _OCTAL7),
        (b"gid", member.gid, _OCTAL7),
        (b"size", member.size, _OCTAL11),
    ):
        if number > most:
            records[key] = str(number).encode()
    seconds, rest = divmod(member.mtime, 1_000_000_000)
    if rest or not 0 <= seconds <= _OCTAL11:
        records[b"mtime"] = _time(member.mtime)
    for name, value in (member.xattrs or {}).items():
        records[b"SCHILY.xattr." + os.fsencode(name)] = value
    return records


def _time(nanoseconds: int) -> bytes:
    """Decimal seconds; the sign counts for all digits."""
    sign = b"-" if nanoseconds < 0 else b""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return sign + str(seconds).encode() + (b".%09d" % rest).rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _header(member: Member) -> bytes:
    seconds = member.mtime // 1_000_000_000
    block = bytearray(_BLOCK)
    block[0:100] = member.name[:100].ljust(100, b"\0")
    for at, number, most in ((100, member.mode, _OCTAL7), (108, member.uid, _OCTAL7), (116, member.gid, _OCTAL7)):
        block[at : at + 8] = b"%07o\0" % (number if number <= most else 0)
    block[124:136] = b"%011o\0" % (member.size if member.size <= _OCTAL11 else 0)
    block[136:148] = b"%011o\0" % (seconds if 0 <= seconds <= _OCTAL11 else 0)
    block[156:157] = member.kind
    block[157:257] = member.link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\x0000"
    block[329:337] = b"%07o\0" % member.device[0]
    block[337:345] = b"%07o\0" % member.device[1]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)
