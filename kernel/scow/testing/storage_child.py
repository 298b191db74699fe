"""A process of its own that unpacks one layer, for checks that need two, or one to kill.

python -m scow.testing.storage_child FACTORY DRIVER BASE LAYER go|stall|mount

With `mount` it goes on to mount the layer, writes a file `written`, says what it holds, and waits.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import BinaryIO, cast

import trio

from scow.model.descriptor import OCI_LAYER
from scow.model.storage import Snapshot
from scow.testing.layers import BytesBlob
from scow.testing.storage import Storage


class _Half(io.RawIOBase):
    """Gives half of the data, says so, and hangs."""

    def __init__(self, data: bytes) -> None:
        self._reader = io.BytesIO(data[: len(data) // 2])

    def read(self, size: int = -1) -> bytes:
        data = self._reader.read(min(size, 1000))
        if not data:
            # What was given is on its way to the disk.
            time.sleep(0.3)
            print("half", flush=True)
            time.sleep(3600)
        return data


def main(factory: str, driver: str, base: str, layer: str, mode: str) -> None:
    """Unpack, or stop half-way for ever."""
    storage = Storage(factory, driver, Path(base))
    data = Path(layer).read_bytes()
    blob = BytesBlob(data, OCI_LAYER, (lambda _: cast(BinaryIO, _Half(data))) if mode == "stall" else None)
    snapshot = trio.run(storage.run, storage.request(data, (), blob))
    if mode == "mount":
        trio.run(_mount, storage, snapshot)
    print("done", flush=True)


async def _mount(storage: Storage, snapshot: Snapshot) -> None:
    async with storage.mounted((snapshot,)) as root:
        (root / "written").write_bytes(b"before the end")
        print(json.dumps(list(storage.journal.held.values())), flush=True)
        await trio.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
