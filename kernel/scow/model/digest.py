"""Content digests, as the OCI image spec writes them: `algorithm:hex` (descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from scow.errors import Invalid

#: Registered algorithms that scow can compute, with the length of their hex form.
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A verified-by-construction digest; `str()` gives the `algorithm:hex` form."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = _HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise Invalid(f"digest algorithm {self.algorithm!r} is not supported", hint="scow reads sha256 and sha512")
        if len(self.hex) != length or not _HEX.fullmatch(self.hex):
            raise Invalid(f"{self.algorithm} digest {self.hex!r} must be {length} lower-case hex digits")

    def __hash__(self) -> int:
        # Digests are the keys of most tables here, and a string keeps its hash.
        return hash(self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hex digits, as `images` and `ps` show them."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`. Raises Invalid."""
        algorithm, colon, hexa = text.partition(":")
        if not colon:
            raise Invalid(f"digest {text!r} has no algorithm", hint="write it as sha256:…")
        return cls(algorithm, hexa)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `data`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """The chain ID of each layer, lowest first (OCI image spec, config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(_above(chain[-1], diff_id) if chain else diff_id)
    return tuple(chain)


@lru_cache(maxsize=4096)
def _above(chain_id: Digest, diff_id: Digest) -> Digest:
    """The chain ID one layer further up. A build asks for the same ones for each step anew."""
    return Digest.of(f"{chain_id} {diff_id}".encode())
