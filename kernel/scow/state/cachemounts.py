"""Cache mounts on disk: directories with names that stay from build to build, and who has one at a moment.

    <root>/build/caches/<name>/    lock (flock: who has it), id (what the user calls it), origin (what it began with),
                                   content/

A directory gets its content under that name when it is complete; one that is removed loses its name first. A lock goes
with its process, so a kill -9 leaves nothing but what `tidy` takes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scow.errors import NotFound

_GONE: Final = ".gone-"


@dataclass(frozen=True, slots=True)
class CacheMount:
    """One cache. `name` is its directory's, `id` the user's word; times in seconds since the epoch.

    `number`: `sharing=private` makes another one (1, 2, …) where the first is taken. `origin`: what it began with.
    """

    name: str
    id: str
    number: int
    origin: str
    created: float
    used: float
    in_use: bool


def name_of(word: str) -> str:
    """The directory of a cache: what the user calls it, and what it began with, as a digest."""
    return hashlib.sha256(word.encode(errors="surrogateescape")).hexdigest()[:32]


def lock(place: Path, *, alone: bool) -> int | None:
    """Take a cache, making its directory if needed: a descriptor to keep; None when somebody else has it."""
    while True:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            # It may have been removed between our open and our lock.
            if os.fstat(fd).st_ino == os.stat(place / "lock").st_ino:
                os.utime(fd)
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def unlock(fd: int) -> None:
    """Let go of a cache, which was used until now."""
    with suppress(OSError):
        os.utime(fd)
    os.close(fd)


def listing(base: Path) -> list[CacheMount]:
    """All caches that have content, by their users' words."""
    held = _held()
    found = []
    for name in _names(base):
        place = base / name
        with suppress(OSError):
            made = (place / "content").stat()
            used = (place / "lock").stat()
            stem, _, number = name.partition("-")
            found.append(
                CacheMount(
                    name,
                    _text(place / "id") or stem,
                    int(number or 0),
                    _text(place / "origin"),
                    (place / "id").stat().st_mtime if (place / "id").exists() else made.st_ctime,
                    used.st_mtime,
                    used.st_ino in held,
                )
            )
    return sorted(found, key=lambda each: (each.id, each.origin, each.number))


@contextmanager
def taken(base: Path, mount: CacheMount) -> Iterator[bool]:
    """Have a cache for oneself during the body; False when somebody uses it. Raises NotFound when it is gone."""
    place = base / mount.name
    if not (place / "content").exists():
        raise NotFound(f"no such cache: {mount.id}")
    before = (place / "lock").stat()
    fd = lock(place, alone=True)
    try:
        if fd is not None:
            # To look at it isn't to use it.
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def remove(base: Path, mount: CacheMount) -> Path | None:
    """Take a cache's name away; gives what is to be deleted, None when somebody uses it. Raises NotFound."""
    with taken(base, mount) as mine:
        if not mine:
            return None
        gone = base / f"{_GONE}{secrets.token_hex(8)}"
        (base / mount.name).rename(gone)
    return gone


def leftovers(base: Path) -> list[Path]:
    """What killed commands have left, to be deleted: removals that didn't end, caches that never got their content."""
    found = [base / name for name in _listed(base) if name.startswith(_GONE)]
    held = _held()
    for name in _names(base):
        place = base / name
        with suppress(OSError):
            if (place / "lock").stat().st_ino in held or not (stale := _stale(place)):
                continue
            if (fd := lock(place, alone=True)) is None:
                continue
            try:
                for path in stale if stale == _stale(place) else ():
                    gone = base / f"{_GONE}{secrets.token_hex(8)}"
                    path.rename(gone)
                    found.append(gone)
            finally:
                os.close(fd)
    return found


def _stale(place: Path) -> list[Path]:
    if not (place / "content").exists():
        return [place]
    return [path for path in (place / "new", place / "old") if path.exists()]


def _names(base: Path) -> list[str]:
    return [name for name in _listed(base) if not name.startswith(".")]


def _listed(base: Path) -> list[str]:
    try:
        return os.listdir(base)
    except FileNotFoundError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _held() -> set[int]:
    """Inodes of all files that somebody has locked: without taking a lock, which others would meet (proc(5))."""
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "FLOCK" in words and "->" not in words:
            with suppress(ValueError, IndexError):
                found.add(int(words[5].rpartition(":")[2]))
    return found
