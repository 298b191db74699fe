"""A blob that lies in the store, complete, offered to the unpack stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scow.model.descriptor import Descriptor


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """See `scow.model.storage.Blob`."""

    descriptor: Descriptor
    path: Path

    def open(self) -> BinaryIO:
        """A reader from the first byte."""
        return self.path.open("rb")
