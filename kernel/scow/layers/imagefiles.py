"""Where a driver keeps snapshots that are files: made under a lock in `staging`, committed by rename to `layers`.

layers/sha256-….erofs   a committed snapshot; it is whole from the moment it has this name
staging/sha256-…/       being made, by the process that holds the flock on this directory
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scow.errors import NotFound
from scow.layers.removal import empty_directory
from scow.layers.snapshots import SnapshotDirectory, snapshot_name
from scow.model.digest import Digest
from scow.model.storage import Snapshot, SnapshotForm
from scow.sys.later import unlink_later

_NEW = "image"


class SnapshotFiles(SnapshotDirectory):
    """The snapshots of `driver` beneath `base`, each one file that ends in `suffix`. Errors are OSError.

    `make`, `sweep` as in SnapshotDirectory, but `build` gets the descriptor of an empty file (read and write), and
    what it gives back isn't kept: a file knows its size.
    """

    def __init__(self, base: Path, driver: str, suffix: str) -> None:
        super().__init__(base, driver)
        self._suffix = suffix

    def find(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of this chain ID, or None."""
        path = self._path(chain_id)
        return Snapshot(self._driver, chain_id, path, SnapshotForm.FILE) if path.is_file() else None

    def snapshots(self) -> list[Digest]:
        """The chain IDs of all committed snapshots."""
        try:
            names = os.listdir(self._layers)
        except FileNotFoundError:
            return []
        return [Digest(*name.removesuffix(self._suffix).split("-", 1)) for name in names]

    def usage(self, chain_id: Digest) -> int:
        """Bytes on disk. Raises NotFound."""
        try:
            return self._path(chain_id).stat().st_blocks * 512
        except FileNotFoundError:
            raise NotFound(f"there is no snapshot {chain_id} of the driver {self._driver}") from None

    def remove(self, chain_id: Digest) -> None:
        """Remove a snapshot; its name is gone at once, its blocks a moment later, or when nobody has it mounted."""
        with suppress(FileNotFoundError):
            unlink_later(self._path(chain_id))

    def _path(self, chain_id: Digest) -> Path:
        return self._layers / (snapshot_name(chain_id) + self._suffix)

    def _fill(self, place: int, chain_id: Digest, build: Callable[[int], int], *, durable: bool) -> None:
        # Whoever died here before us may have left something.
        empty_directory(place)
        fd = os.open(_NEW, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
        try:
            build(fd)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(_NEW, self._path(chain_id), src_dir_fd=place)
        os.rmdir(self._staging / snapshot_name(chain_id))
