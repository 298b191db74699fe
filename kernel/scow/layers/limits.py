"""How much one layer may make, so that a small archive can't fill a machine."""

from __future__ import annotations

from dataclasses import dataclass

from scow.errors import Exhausted


@dataclass(frozen=True, slots=True)
class Limits:
    """`entries` of an archive and bytes `written` for it; both are far above any real layer."""

    entries: int = 4_000_000
    written: int = 256 << 30

    def check_entries(self, count: int) -> None:
        """Raises Exhausted."""
        if count > self.entries:
            raise Exhausted(
                f"layer has more than {self.entries} entries", hint="raise max_entries of the storage plugin"
            )

    def check_bytes(self, count: int) -> None:
        """Raises Exhausted."""
        if count > self.written:
            raise Exhausted(
                f"layer unpacks to more than {self.written} bytes", hint="raise max_layer_bytes of the storage plugin"
            )
