"""Checks a blob while it flows: digest and size. Without I/O, fed by whoever reads."""

from __future__ import annotations

import hashlib

from scow.errors import Corrupt
from scow.model.descriptor import Descriptor


class Verified:
    """Hashes and counts; refuses the first byte too many."""

    def __init__(self, expected: Descriptor) -> None:
        self._expected = expected
        self._hash = hashlib.new(expected.digest.algorithm)
        self.size = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises Corrupt when there are more than expected."""
        self.size += len(chunk)
        if self.size > self._expected.size:
            raise Corrupt(
                f"{self._expected.digest}: the sender gives more than the {self._expected.size} bytes announced"
            )
        self._hash.update(chunk)

    def matches(self) -> bool:
        """Whether what came so far is the whole, and right."""
        return self.size == self._expected.size and self._hash.hexdigest() == self._expected.digest.hex

    def finish(self) -> None:
        """Check the whole. Raises Corrupt."""
        if self.size != self._expected.size:
            raise Corrupt(f"{self._expected.digest}: got {self.size} of {self._expected.size} bytes")
        if self._hash.hexdigest() != self._expected.digest.hex:
            raise Corrupt(
                f"{self._expected.digest}: the bytes that came have the digest {self._hash.hexdigest()}",
                hint="the registry or a proxy on the way gives wrong content; nothing was kept",
            )
