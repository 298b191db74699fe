"""Named files, in a directory or within a tar archive, read at any position. Whatever lies there is a stranger's.

Only regular files are opened. Of an archive only the headers are read, in one pass; what they announce is held against
the file's size, and extended headers against a bound. The last archives that were read are remembered, as each image
and each blob of them is looked for by itself: many images must not mean as many passes.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from scow.api import Corrupt, Denied, Internal, NotFound, Unsupported

_BLOCK: Final = 512
_EXTENDED_MAX: Final = 1024 * 1024
_MEMBERS_MAX: Final = 1_000_000
_LINKS_MAX: Final = 8
#: Archives that are remembered: few commands read more of them at once.
_REMEMBERED: Final = 2
#: Nanoseconds for which a file may change again without its time stamp (they go in ticks of up to 10 ms, with HZ=100).
_SETTLED: Final = 50_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a file's bytes are."""

    path: Path
    offset: int
    size: int


class Files(Protocol):
    """Files by name (`blobs/sha256/…`)."""

    def find(self, name: str) -> Span | None:
        """Where a file lies; None when there is none. Raises Denied."""
        ...

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave the first time under this key, for as long as the files can't have changed."""
        ...


@dataclass(frozen=True, slots=True)
class Directory:
    """The files of a directory; names never lead out, being made of digests and constants."""

    root: Path

    def find(self, name: str) -> Span | None:
        path = self.root / name
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(error, path) from None
        return Span(path, 0, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        return make()


@dataclass(slots=True)
class Tar:
    """The members of an archive, and what was made of them."""

    path: Path
    members: dict[str, Span] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    made: dict[Hashable, Any] = field(default_factory=dict)

    def find(self, name: str) -> Span | None:
        for _ in range(_LINKS_MAX):
            if name in self.members:
                return self.members[name]
            if name not in self.links:
                return None
            name = self.links[name]
        return None

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self.made:
            self.made[key] = make()
        found: T = self.made[key]
        return found


def open_files(path: Path, *, directory: bool) -> Files:
    """A directory's or an archive's files. Raises NotFound, Denied, Unsupported, Corrupt."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} doesn't exist") from None
    except OSError as error:
        raise _failure(error, path) from None
    if directory:
        if not stat.S_ISDIR(found.st_mode):
            raise Corrupt(f"{path} is not a directory", hint="for an archive write oci-archive: or docker-archive:")
        return Directory(path)
    if not stat.S_ISREG(found.st_mode):
        raise Corrupt(f"{path} is not a regular file", hint="for a directory write oci:")
    if time.time_ns() - found.st_ctime_ns < _SETTLED:
        return _scan(path, found.st_size)
    return _scanned(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read(span: Span, limit: int) -> bytes:
    """A small file's bytes. Raises Corrupt when it is larger than `limit` or ends early, Denied."""
    if span.size > limit:
        raise Corrupt(f"{span.path}: a document in it is larger than {limit} bytes")
    data = read_at(span, 0, span.size)
    if len(data) != span.size:
        raise Corrupt(f"{span.path} is cut short")
    return data


def read_at(span: Span, position: int, count: int) -> bytes:
    """At most `count` bytes from `position` of a file on. Raises Denied, NotFound."""
    try:
        # A pipe in a blob's place must not hang us.
        fd = os.open(span.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"{span.path} doesn't exist any more") from None
    except OSError as error:
        raise _failure(error, span.path) from None
    try:
        return os.pread(fd, max(0, min(count, span.size - position)), span.offset + position)
    except OSError as error:
        raise _failure(error, span.path) from None
    finally:
        os.close(fd)


def _failure(error: OSError, path: Path) -> Exception:
    if isinstance(error, PermissionError):
        return Denied(f"{path} can't be read: {(error.strerror or '').lower()}")
    return Internal(f"{path}: {error.strerror or error}")


@lru_cache(maxsize=_REMEMBERED)
def _scanned(path: Path, device: int, inode: int, size: int, changed: int, touched: int) -> Tar:
    """An archive's members. Another file under this path, or one that was written to, is read anew."""
    return _scan(path, size)


def _scan(path: Path, size: int) -> Tar:
    tar = Tar(path)
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise Unsupported(f"{path} is compressed", hint="`scow load` takes it; or gunzip it first")
        position, name, longer = 0, "", -1
        while (header := os.pread(file.fileno(), _BLOCK, position)).strip(b"\0"):
            kind, length = _checked(path, header)
            data = position + _BLOCK
            if kind in b"xLKg":
                if length > _EXTENDED_MAX:
                    raise Corrupt(f"{path}: an extended header is larger than {_EXTENDED_MAX} bytes")
                text = os.pread(file.fileno(), length, data)
                if kind == b"L":
                    name = _text(text)
                elif kind == b"x":
                    records = _records(path, text)
                    name, longer = records.get("path", name), _number(path, records.get("size", "-1"))
            else:
                length = longer if longer >= 0 else length
                _add(tar, size, header, kind, name or _name(header), Span(path, data, length))
                name, longer = "", -1
            position = data + -(-length // _BLOCK) * _BLOCK
            if position > size + _BLOCK or len(tar.members) > _MEMBERS_MAX:
                raise Corrupt(f"{path} is cut short, or no archive")
    return tar


def _checked(path: Path, header: bytes) -> tuple[bytes, int]:
    """A header's kind and length. Raises Corrupt for what is no header (POSIX.1-2017, pax, "ustar Header Block")."""
    expected = sum(header[:148]) + 8 * 32 + sum(header[156:])
    if len(header) < _BLOCK or _octal(header[148:156]) != expected:
        raise Corrupt(f"{path} is not a tar archive, or is damaged")
    field_ = header[124:136]
    length = int.from_bytes(field_[1:], "big") if field_[0] == 0x80 else _octal(field_)
    if length < 0:
        raise Corrupt(f"{path} is not a tar archive, or is damaged")
    kind = header[156:157]
    return kind, length if kind in b"\x0007xgLKS" else 0


def _add(tar: Tar, size: int, header: bytes, kind: bytes, raw: str, span: Span) -> None:
    name = posixpath.normpath(raw.lstrip("/"))
    if kind in (b"0", b"\0", b"7"):
        if span.offset + span.size > size:
            raise Corrupt(f"{tar.path} is cut short")
        tar.members[name] = span
    elif kind in (b"1", b"2"):
        # Archives of older dockers keep a shared layer once, and links to it.
        target = _text(header[157:257])
        base = posixpath.dirname(name) if kind == b"2" else ""
        tar.links[name] = posixpath.normpath(posixpath.join(base, target))


def _name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="surrogateescape")


def _octal(data: bytes) -> int:
    text = data.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return -1


def _records(path: Path, data: bytes) -> dict[str, str]:
    """The records of a pax header: `length key=value\\n`."""
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, space, _ = data.partition(b" ")
        length = _number(path, digits[:8].decode("latin-1"))
        if not space or length <= len(digits) + 1 or length > len(data):
            raise Corrupt(f"{path}: an extended header is damaged")
        key, _, value = data[len(digits) + 1 : length].rstrip(b"\n").partition(b"=")
        found[key.decode(errors="replace")] = value.decode(errors="surrogateescape")
        data = data[length:]
    return found


def _number(path: Path, text: str) -> int:
    try:
        return int(text[:20])
    except ValueError:
        raise Corrupt(f"{path}: an extended header is damaged") from None
