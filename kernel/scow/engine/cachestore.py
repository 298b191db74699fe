"""Cache mounts as things with names: listed, written out, brought in, removed. Never while a build step has one.

An archive that is brought in is unpacked beside the cache by the code that unpacks layers, and takes its place when it
is whole: no link, no name, no failure in it reaches anything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import trio

from scow.content.store import disk_errors
from scow.engine.copying import pack, unpack_pieces
from scow.engine.core import Core
from scow.engine.types import CacheInfo
from scow.engine.usage import tree_bytes
from scow.errors import Conflict, Corrupt, Invalid, NotFound, Unsupported
from scow.layers.codecs import plain
from scow.layers.removal import delete
from scow.state import cachemounts
from scow.state.cachemounts import CacheMount

_LONGEST: Final = 4096
#: What a tar archive can't be read from without more: bzip2, xz.
_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def listing(core: Core) -> tuple[CacheInfo, ...]:
    """All caches, by their names. Blocks: sizes are counted now."""
    base = core.paths.caches
    return tuple(
        CacheInfo(
            each.id,
            each.name,
            each.number,
            each.origin,
            tree_bytes(base / each.name),
            each.created,
            each.used,
            each.in_use,
        )
        for each in cachemounts.listing(base)
    )


def export(core: Core, name: str, out: int) -> None:
    """Write a cache's files as a tar stream to a descriptor. Blocks. Raises NotFound, Invalid, Conflict, Exhausted."""
    mount = _one(core, name)
    with _mine(core, mount):
        fd = os.open(core.paths.caches / mount.name / "content", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pack(fd, "/", out, title=".")
        finally:
            os.close(fd)


def import_(core: Core, name: str, source: BinaryIO, *, replace: bool = False) -> CacheInfo:
    """Make a cache of a tar archive, plain or packed; `replace`: also when there is one. Blocks.

    Raises Invalid (the name, the archive), Conflict (there is one, or somebody uses it), Corrupt, Unsupported,
    Exhausted, Denied.
    """
    known = [each for each in _found(core, name) if not each.number]
    if len(known) > 1:
        raise _ambiguous(name, known)
    if known and not replace:
        raise Conflict(f"there is a cache {name} already", hint="--force replaces it; or remove it first")
    word = known[0].id if known else _checked(name)
    directory = known[0].name if known else cachemounts.name_of(word)
    place = core.paths.caches / directory
    with disk_errors(core.paths.root):
        lock = cachemounts.lock(place, alone=True)
    if lock is None:
        raise _used(name)
    try:
        _fill(place, word, source)
    except BaseException:
        if not (place / "content").exists():
            with suppress(OSError):
                delete(place)
        raise
    finally:
        cachemounts.unlock(lock)
    return next(each for each in listing(core) if each.key == directory)


def _fill(place: Path, word: str, source: BinaryIO) -> None:
    new, content, old = place / "new", place / "content", place / "old"
    try:
        with disk_errors(place):
            for path in (new, old):
                delete(path)
            new.mkdir(mode=0o755)
            fd = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                unpack_pieces(fd, _plain(source))
            finally:
                os.close(fd)
            if not (place / "id").exists():
                (place / "id").touch(0o600)
                (place / "id").write_text(word, errors="surrogateescape")
            if content.exists():
                content.rename(old)
            new.rename(content)
    finally:
        for path in (new, old):
            with suppress(OSError):
                delete(path)


def _plain(source: BinaryIO) -> Iterator[bytes]:
    first = True
    for piece in plain(source):
        trio.from_thread.check_cancelled()
        if first:
            for magic, kind in _OTHERS.items():
                if piece.startswith(magic):
                    raise Unsupported(
                        f"the archive is compressed with {kind}", hint="tar, gzip and zstd are read; unpack it first"
                    )
            first = False
        yield piece
    if first:
        raise Corrupt("the archive is empty: there is nothing to import")


def remove(core: Core, name: str) -> tuple[CacheMount, ...]:
    """Remove the caches of a name, its private copies too; gives them. Blocks. Raises NotFound, Conflict.

    One of them in use means that none is removed.
    """
    base = core.paths.caches
    found = _found(core, name)
    if not found:
        raise _missing(name)
    if any(each.in_use for each in found):
        raise _used(name)
    gone = []
    for each in found:
        with suppress(NotFound):
            if (path := cachemounts.remove(base, each)) is None:
                raise _used(name)
            gone.append(each)
            with disk_errors(base):
                delete(path)
    return tuple(gone)


@contextmanager
def _mine(core: Core, mount: CacheMount) -> Iterator[None]:
    with cachemounts.taken(core.paths.caches, mount) as mine:
        if not mine:
            raise _used(mount.id)
        yield


def _found(core: Core, name: str) -> list[CacheMount]:
    """The caches that a word means: their users' name, or the beginning of a directory's."""
    everything = cachemounts.listing(core.paths.caches)
    named = [each for each in everything if each.id == name]
    if named or len(name) < 4:
        return named
    keys = [each for each in everything if each.name == name or each.name.partition("-")[0].startswith(name)]
    if len({each.name.partition("-")[0] for each in keys}) > 1:
        raise _ambiguous(name, keys)
    return [each for each in keys if each.name == name] or keys


def _one(core: Core, name: str) -> CacheMount:
    found = _found(core, name)
    if not found:
        raise _missing(name)
    # Private copies of one that is there come after it.
    first = [each for each in found if not each.number] or found
    if len(first) > 1:
        raise _ambiguous(name, first)
    return first[0]


def _checked(name: str) -> str:
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise Invalid(f"{name!r} can't be the name of a cache: it is empty, too long, or can't be printed")
    return name


def _missing(name: str) -> NotFound:
    return NotFound(f"no such cache: {name}", hint="`scow cache ls` lists them")


def _used(name: str) -> Conflict:
    return Conflict(f"cache {name} is in use by a build", hint="wait until its step has ended")


def _ambiguous(name: str, found: list[CacheMount]) -> Invalid:
    keys = ", ".join(f"{each.name[:12]} ({each.origin or 'empty at first'})" for each in found)
    return Invalid(f"{name} means several caches: {keys}", hint="write the beginning of a CACHE ID")


__all__ = ["export", "import_", "listing", "remove"]
