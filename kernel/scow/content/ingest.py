"""A blob while it comes in: written by fetch, hashed, and read by unpack at the same time."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import BinaryIO, Final

import trio

from scow.content.verify import Verified
from scow.errors import Corrupt, ScowError, Unavailable
from scow.model.descriptor import Descriptor

#: What readers are told when whoever fetched was cancelled; it hides no other error.
GIVEN_UP: Final = "the fetch was given up"
#: Bytes are hashed and written in pieces of this size, in a worker thread.
_PIECE: Final = 1 << 20


class Ingest:
    """A blob on its way in. A `Sink` to the fetch stage and a `Blob` to the unpack stage.

    `present` says that the blob was there already and nothing need be fetched.
    """

    def __init__(self, descriptor: Descriptor, fd: int, partial: Path, target: Path) -> None:
        self.descriptor = descriptor
        self.present = False
        self._fd = fd
        self._partial = partial
        self._target = target
        self._check = Verified(descriptor)
        #: What was written and isn't on its way to the disk yet, and its size.
        self._gathered: list[bytes] = []
        self._size = 0
        self._arrived = 0
        self._published = False
        self._error: BaseException | None = None
        self._news = threading.Condition()

    @property
    def offset(self) -> int:
        """Bytes that are there already; the next write goes here."""
        return self._arrived + self._size

    async def resume(self) -> None:
        """Hash what an earlier try has left, and go on behind it."""
        size = os.fstat(self._fd).st_size
        if 0 < size <= self.descriptor.size:
            await trio.to_thread.run_sync(self._rehash)
        elif size:
            self._forget()
        if self._arrived == self.descriptor.size and not self._check.matches():
            self._forget()  # after a power cut a file may have its size without its bytes

    def _rehash(self) -> None:
        while piece := os.pread(self._fd, _PIECE, self._check.size):
            self._check.feed(piece)
        self._advance(self._check.size)

    async def write(self, data: bytes) -> None:
        """Append. Raises Corrupt when there are more bytes than announced, Exhausted on a full disk."""
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _PIECE:
            await self._flush()
        else:
            await trio.lowlevel.checkpoint()

    async def restart(self) -> None:
        """Forget what is there. A reader that was further on waits: the bytes to come have the same digest."""
        self._gathered, self._size = [], 0
        self._forget()
        await trio.lowlevel.checkpoint()

    def _forget(self) -> None:
        """Begin anew. The count goes first: a reader that finds no bytes looks at it again."""
        self._check = Verified(self.descriptor)
        self._advance(0)
        os.ftruncate(self._fd, 0)

    async def _flush(self) -> None:
        pieces, self._gathered, self._size = self._gathered, [], 0
        if pieces:
            await trio.to_thread.run_sync(self._append, pieces)

    def _append(self, pieces: list[bytes]) -> None:
        from scow.content.store import disk_errors

        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._check.feed(piece)
        with disk_errors(self._target.parent.parent.parent):
            view, at = memoryview(piece), self._arrived
            while view:
                written = os.pwrite(self._fd, view, at)
                view, at = view[written:], at + written
        self._advance(at)

    def _advance(self, arrived: int) -> None:
        with self._news:
            self._arrived = arrived
            self._news.notify_all()

    async def commit(self) -> None:
        """Check the whole and give it its name. Raises Corrupt (and forgets the bytes), Exhausted."""
        await self._flush()
        try:
            self._check.finish()
        except ScowError:
            self._forget()
            raise
        await trio.to_thread.run_sync(self._publish)

    def _publish(self) -> None:
        from scow.content.store import disk_errors

        with disk_errors(self._target.parent.parent.parent):
            self._target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The name must not come to disk before the bytes.
            os.fdatasync(self._fd)
            os.fchmod(self._fd, 0o600)
            os.rename(self._partial, self._target)
        self._published = True

    def discard(self) -> None:
        """The blob is in the store already: there is nothing to take in."""
        self.present = True
        self._partial.unlink(missing_ok=True)
        self._arrived = self.descriptor.size

    def fail(self, error: BaseException) -> None:
        """No more bytes will come; readers are told why."""
        if isinstance(error, Corrupt) and not self._published:
            self._forget()
        with self._news:
            self._error = error
            self._news.notify_all()

    def open(self) -> BinaryIO:
        """A reader from the first byte, which waits for bytes that are still to come. For worker threads."""
        with self._news:
            if self._fd < 0 and self._error is not None and not self.present:
                raise self._reason()
            if self.present or self._fd < 0:
                return self._target.open("rb")
            return io.BufferedReader(_Growing(self, os.dup(self._fd)), 1 << 18)

    def close(self) -> None:
        """Let go of the file, and so of its lock; readers have descriptors of their own."""
        with self._news:
            os.close(self._fd)
            self._fd = -1

    def wait_for(self, position: int) -> int:
        """Block until there are bytes behind `position`; gives how many are there in all."""
        with self._news:
            while self._arrived <= position and position < self.descriptor.size:
                if self._error is not None:
                    raise self._reason()
                self._news.wait()
            return self._arrived

    def _reason(self) -> ScowError:
        """Why no more bytes will come."""
        return self._error if isinstance(self._error, ScowError) else Unavailable(GIVEN_UP)


class _Growing(io.RawIOBase):
    """Reads a file that is still growing."""

    def __init__(self, ingest: Ingest, fd: int) -> None:
        self._ingest = ingest
        self._fd = fd
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count, wanted = 0, 1
        while count == 0 and wanted > 0:
            arrived = self._ingest.wait_for(self._position)
            wanted = min(len(buffer), arrived - self._position)
            # Nothing to read where bytes have arrived: the writer begins anew, and we wait with it.
            count = os.preadv(self._fd, [memoryview(buffer)[:wanted]], self._position) if wanted > 0 else 0
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
