"""Where a driver keeps snapshots that are directories: made under a lock in `staging`, committed by rename to `layers`.

    layers/sha256-…/fs      a committed snapshot's tree; it is whole from the moment it has this name
    layers/sha256-…/usage   its size on disk, in bytes
    staging/…               being made or being removed, by the process that holds the flock on it

A directory in `staging` that nobody holds a lock on belonged to a process that died, and is swept. The lock is on the
directory itself, so it moves with it and can't be left behind.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scow.errors import NotFound
from scow.layers.removal import empty_directory, remove_tree
from scow.model.digest import Digest
from scow.model.storage import Snapshot
from scow.sys.libc import call

#: How often a process that waits for another one's unpacking looks again, in seconds.
_GLANCE: Final = 0.02
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SnapshotDirectory:
    """The snapshots of `driver` beneath `base`. Methods block; errors of the file system are OSError."""

    def __init__(self, base: Path, driver: str) -> None:
        self._driver = driver
        self._layers = base / "layers"
        self._staging = base / "staging"

    def find(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of this chain ID, or None."""
        path = self._layers / snapshot_name(chain_id) / "fs"
        return Snapshot(self._driver, chain_id, path) if path.is_dir() else None

    def snapshots(self) -> list[Digest]:
        """The chain IDs of all committed snapshots."""
        try:
            return [Digest(*name.split("-", 1)) for name in os.listdir(self._layers)]
        except FileNotFoundError:
            return []

    def usage(self, chain_id: Digest) -> int:
        """Bytes on disk, as counted when it was made. Raises NotFound."""
        try:
            return int((self._layers / snapshot_name(chain_id) / "usage").read_text())
        except FileNotFoundError:
            raise NotFound(f"there is no snapshot {chain_id} of the driver {self._driver}") from None

    def remove(self, chain_id: Digest) -> None:
        """Remove a snapshot; its name is gone at once, the files after a while."""
        name = snapshot_name(chain_id)
        try:
            fd = os.open(self._layers / name, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            gone = self._staging / f"{name}.{os.getpid()}.{time.monotonic_ns()}"
            try:
                os.rename(self._layers / name, gone)
            except FileNotFoundError:
                return
            self._erase(fd, gone)
        finally:
            _unlock(fd)

    def sweep(self) -> None:
        """Remove what processes that died have left in `staging`."""
        try:
            names = os.listdir(self._staging)
        except FileNotFoundError:
            return
        for name in names:
            path = self._staging / name
            fd = _locked(path, wait=None)
            if fd is not None:
                try:
                    self._erase(fd, path)
                finally:
                    _unlock(fd)

    def make(
        self, chain_id: Digest, build: Callable[[int], int], *, check: Callable[[], None], durable: bool
    ) -> Snapshot:
        """The snapshot of this chain ID, made now if it isn't there.

        `build` fills an empty directory, given as a descriptor, and gives the bytes used. Another process that makes
        the same one is waited for; `check` is called meanwhile and raises to stop. When anything is raised, nothing is
        left. `durable`: it is on the disk before it has its name.
        """
        while (found := self.find(chain_id)) is None:
            with self._place(chain_id, check) as place:
                if place is not None:
                    self._fill(place, chain_id, build, durable=durable)
        return found

    @contextmanager
    def _place(self, chain_id: Digest, check: Callable[[], None]) -> Iterator[int | None]:
        """A locked, empty directory in staging; None when another process has just finished with it."""
        path = self._staging / snapshot_name(chain_id)
        for directory in (self._layers, self._staging):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        fd = _locked(path, wait=check)
        if fd is None:
            yield None
            return
        try:
            yield fd
        except BaseException:
            self._erase(fd, path)
            raise
        finally:
            _unlock(fd)

    def _fill(self, place: int, chain_id: Digest, build: Callable[[int], int], *, durable: bool) -> None:
        # Whoever died here before us may have left something.
        empty_directory(place)
        os.mkdir("fs", 0o755, dir_fd=place)
        fs = os.open("fs", _DIRECTORY, dir_fd=place)
        try:
            os.fchmod(fs, 0o755)
            used = build(fs)
            fd = os.open("usage", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=place)
            try:
                os.write(fd, str(used).encode())
            finally:
                os.close(fd)
            if durable:
                call("syncfs", fs)
        finally:
            os.close(fs)
        os.rename(self._staging / snapshot_name(chain_id), self._layers / snapshot_name(chain_id))

    @staticmethod
    def _erase(fd: int, path: Path) -> None:
        empty_directory(fd)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass


def snapshot_name(chain_id: Digest) -> str:
    """A digest as a file name."""
    return f"{chain_id.algorithm}-{chain_id.hex}"


def _locked(path: Path, *, wait: Callable[[], None] | None) -> int | None:
    """A descriptor of the directory with its lock held; None if the directory is gone, or locked and `wait` is None."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if wait is None:
                    os.close(fd)
                    return None
            wait()
            time.sleep(_GLANCE)
        # Its last holder may have renamed or removed it; the lock would then be on nothing.
        if path.exists() and os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except BaseException:
        os.close(fd)
        raise
    _unlock(fd)
    return None


def _unlock(fd: int) -> None:
    """Explicitly: a child forked meanwhile shares the lock until it ends."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def erase_directory(path: Path) -> None:
    """Remove all that is in a directory, which stays. Not an error when it isn't there."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        for name in os.listdir(fd):
            remove_tree(fd, name)
    finally:
        os.close(fd)
