"""A layer's uncompressed bytes, inflated and hashed ahead of their reader by a thread each.

Inflating, hashing and writing files take about the same time, and the first two release the interpreter lock. Where
files are large the reader waits for bytes and the hash would add to that wait; where they are small the threads wait
for the reader. A small layer isn't worth the threads, and images may have a hundred of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import BinaryIO, Final

from scow.errors import Corrupt
from scow.layers.codecs import plain
from scow.model.digest import Digest

#: Chunks (of at most 1 MiB) that may wait for the reader, and for the hash. More wouldn't help: what takes longest
#: does so for many chunks in a row.
_AHEAD: Final = 4
#: Blobs of no more bytes are inflated and hashed by their reader.
_SMALL: Final = 64 * 1024
#: How often a waiting reader looks whether it was cancelled, in seconds.
_GLANCE: Final = 0.1
#: How long closing waits for the thread, which may hang in a read that nobody answers.
_FAREWELL: Final = 2.0


class LayerStream:
    """Use in a `with` block, in a worker thread. `chunk` is what `TarReader` takes.

    `check` is called while waiting and for each chunk; what it raises (cancellation) passes through.
    """

    def __init__(self, raw: BinaryIO, size: int, algorithm: str, check: Callable[[], None]) -> None:
        """`raw` gives the blob's `size` bytes; it is closed in the end."""
        self._raw = raw
        self._inline = plain(raw) if size <= _SMALL else None
        self._hash = hashlib.new(algorithm)
        self._algorithm = algorithm
        self._check = check
        self._chunks: deque[bytes] = deque()
        self._unhashed: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._inflater = threading.Thread(target=self._produce, name="inflate", daemon=True)
        self._hasher = threading.Thread(target=self._digest, name="hash", daemon=True)

    def __enter__(self) -> LayerStream:
        if self._inline is None:
            self._inflater.start()
            self._hasher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inline is not None:
            self._raw.close()
            return
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._inflater.join(_FAREWELL)
        self._hasher.join(_FAREWELL)

    def chunk(self) -> bytes:
        """The next bytes, b"" at the end. Raises the blob's own error, or Corrupt."""
        self._check()
        if self._inline is not None:
            chunk = next(self._inline, b"")
            self._hash.update(chunk)
            return chunk
        with self._changed:
            while not self._chunks and not self._ended:
                if not self._changed.wait(_GLANCE):
                    self._check()
            if self._chunks:
                chunk = self._chunks.popleft()
                self._changed.notify_all()
                return chunk
        if self._error is not None:
            raise self._error
        return b""

    def verify(self, expected: Digest) -> None:
        """Compare the digest of all bytes; only after `chunk` gave b"". Raises Corrupt."""
        if self._inline is None:
            self._hasher.join()
        actual = Digest(self._algorithm, self._hash.hexdigest())
        if actual != expected:
            raise Corrupt(
                f"layer has the diff ID {actual}, but the image's configuration says {expected}",
                hint="the image is damaged or was tampered with; pull it again or tell who built it",
            )

    def _produce(self) -> None:
        try:
            # Closing may fail, too, and the reader must not wait for ever.
            with closing(self._raw):
                for chunk in plain(self._raw):
                    if not self._give(chunk):
                        break
        except BaseException as error:  # noqa: BLE001 - handed to the reader, whatever it is
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _give(self, chunk: bytes) -> bool:
        with self._changed:
            while max(len(self._chunks), len(self._unhashed)) >= _AHEAD and not self._stopped:
                self._changed.wait()
            self._chunks.append(chunk)
            self._unhashed.append(chunk)
            self._changed.notify_all()
            return not self._stopped

    def _digest(self) -> None:
        while (chunk := self._taken()) is not None:
            self._hash.update(chunk)

    def _taken(self) -> bytes | None:
        """The next chunk to be hashed; None at the end."""
        with self._changed:
            while not self._unhashed and not self._ended and not self._stopped:
                self._changed.wait()
            if self._stopped or not self._unhashed:
                return None
            self._changed.notify_all()
            return self._unhashed.popleft()
