"""How much one layer may make, so that a small archive can't fill a machine."""

from __future__ import annotations

from dataclasses import dataclass

from scow.errors import Exhausted


@dataclass(frozen=True, slots=True)
class Limits:
    """`entries` of an archive, bytes `written` for it, and bytes of its directories' paths, which are kept in memory.

    All are far above any real layer.
    """

    entries: int = 4_000_000
    written: int = 256 << 30
    paths: int = 128 << 20

    def check_entries(self, count: int) -> None:
        """Raises Exhausted."""
        if count > self.entries:
            raise Exhausted(
                f"layer has more than {self.entries} entries", hint="raise max_entries of the storage plugin"
            )

    def check_paths(self, count: int) -> None:
        """One entry may name two thousand directories that no entry is for. Raises Exhausted."""
        if count > self.paths:
            raise Exhausted(f"layer has directories whose paths take more than {self.paths} bytes")

    def check_bytes(self, count: int) -> None:
        """Raises Exhausted."""
        if count > self.written:
            raise Exhausted(
                f"layer unpacks to more than {self.written} bytes", hint="raise max_layer_bytes of the storage plugin"
            )
