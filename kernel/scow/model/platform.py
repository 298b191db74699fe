"""Platforms and the choice among an index's entries (OCI image spec, image-index.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from scow.errors import Invalid
from scow.model.architectures import ARCHITECTURES

#: What may stand alone.
_SYSTEMS: Final = frozenset(("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "illumos"))
_MACHINES: Final = frozenset(
    ("386", "arm", "ppc64", "ppc", "mips", "mipsle", "mips64", "mips64le", "riscv", "s390", "loong64", "wasm")
)
_PART: Final = re.compile(r"[a-z0-9_.-]+")
#: The variant that an empty one means.
_DEFAULT_VARIANT: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and an architecture, in Go's words; `variant` is empty where there is only one."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/arch[/variant]`, `os` or `arch`, as Docker's --platform (containerd/platforms). Raises Invalid."""
        if "," in text:
            raise Invalid(f"platform {text!r} is more than one", hint="name one of them; each is done by itself")
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
            raise Invalid(f"platform {text!r} is not os/architecture[/variant]", hint="for example linux/arm64")
        if len(parts) == 1:
            if parts[0] in _SYSTEMS:
                parts = [parts[0], os.uname().machine]
            elif parts[0] in ARCHITECTURES or parts[0] in _MACHINES:
                parts = ["linux", parts[0]]
            else:
                raise Invalid(
                    f"platform {text!r}: unknown operating system or architecture", hint="for example linux/arm64"
                )
        architecture, variant = ARCHITECTURES.get(parts[1], (parts[1], ""))
        if len(parts) == 3:
            variant = parts[2]
        return cls(parts[0], architecture, variant)

    @classmethod
    def host(cls) -> Platform:
        """This machine's platform."""
        machine = os.uname().machine
        architecture, variant = ARCHITECTURES.get(machine, (machine, ""))
        return cls("linux", architecture, variant)

    def rank(self, wanted: Platform) -> int | None:
        """How well this platform serves `wanted`: 0 is exact, higher is worse, None doesn't run there."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return None
        default = _DEFAULT_VARIANT.get(self.architecture, "")
        mine, theirs = self.variant or default, wanted.variant or default
        if mine == theirs:
            return 0
        try:
            older = int(theirs.lstrip("v")) - int(mine.lstrip("v"))
        except ValueError:
            return None
        # A processor runs code for lower variants of its own architecture, not for higher ones.
        return older if older > 0 else None


T = TypeVar("T")


def choose(entries: Iterable[tuple[Platform | None, T]], wanted: Platform) -> T | None:
    """The entry that serves `wanted` best; among equals the first; None when no entry does.

    Entries without a platform serve only when nothing else does; `unknown/unknown` ones (attestations) never.
    """
    best: tuple[int, T] | None = None
    for platform, entry in entries:
        rank = 1000 if platform is None else platform.rank(wanted)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, entry)
    return None if best is None else best[1]
