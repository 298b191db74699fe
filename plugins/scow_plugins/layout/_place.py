"""What stands behind a transport's colon: a path, and which image there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scow.api import Digest, Invalid, Located


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and a tag or a name within; None: the only one there, or `latest`.

    `@N` is the image at position N, `@sha256:…` the one with that digest.
    """

    transport: str
    path: Path
    name: str | None

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}" + (f":{self.name}" if self.name is not None else "")

    @property
    def position(self) -> int | None:
        """The number of `@N`."""
        name = self.name or ""
        digits = name[1:]
        return (
            int(digits) if name.startswith("@") and digits.isascii() and digits.isdigit() and len(digits) < 8 else None
        )

    @property
    def digest(self) -> Digest | None:
        """That of `@sha256:…`. Raises Invalid."""
        name = self.name or ""
        return Digest.parse(name[1:]) if name.startswith("@") and ":" in name else None


def parse_place(reference: Located) -> Place:
    """Split `PATH[:NAME]`. Raises Invalid."""
    path, colon, name = reference.rest.partition(":")
    if not path or "\0" in path:
        raise Invalid(f"{reference} names no path", hint=f"write {reference.transport}:PATH or PATH:NAME")
    if colon and not name:
        raise Invalid(f"{reference} ends with a colon", hint="leave it out, or name the image behind it")
    return Place(reference.transport, Path(path), name or None)
