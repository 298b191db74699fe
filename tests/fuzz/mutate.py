"""Spoils bytes in ways that strangers' bytes are spoilt: at random, as JSON, as tar archives, as text.

All of it comes out of one random generator: the same seed, the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

BLOCK: Final = 512
#: Longer inputs show nothing that these don't, and take their time.
LONGEST: Final = 256 * 1024
_NUMBERS: Final = [0, 1, 2, -1, 7, 8, 255, 256, 511, 513, 4095, 4096, 65535, 65536]
_NUMBERS += [1 << 20, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 33, (1 << 53) + 1, 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64]
_VALUES: Final[list[Any]] = [None, True, False, "", "\x00", "\ud800", "a" * 3000, [], {}, 0.5, -0.0, 1e300, "\x1b[2J\n"]
_NAMES: Final = [
    b"", b".", b"..", b"/", b"//", b"../victim", b"../../victim/file", b"a/../../victim/file", b"/etc/passwd",
    b"d/l/../x", b"\0", b"\xff\xfe", b"\xc3", b"\x1b[31m\n", b"a" * 255, b"a" * 256, b"b/" * 2500, b"n" * 99 + b"/",
    b"d", b"d/l", b"d/f", b".wh.d", b"d/.wh..wh..opq", b".wh..", b".wh...", b".wh.", b"d/.wh.f", b".wh..wh.plnk",
    b".wh..wh.plnk/8.650",    b".wh.x/y", b"loop", b"loop/x",
]  # fmt: skip
#: Field, where it begins, how long it is (pax(1), "ustar Interchange Format").
_FIELDS: Final = [
    ("name", 0, 100), ("mode", 100, 8), ("uid", 108, 8), ("gid", 116, 8), ("size", 124, 12), ("mtime", 136, 12),
    ("kind", 156, 1), ("link", 157, 100), ("magic", 257, 8), ("major", 329, 8), ("minor", 337, 8), ("prefix", 345, 155),
]  # fmt: skip
_KINDS: Final = b"0123456789\0LKxgXSVMDN"


class Mutator:
    """`words` are what the format itself is made of, `others` whole inputs to take pieces from."""

    def __init__(self, generator: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> None:
        self._random = generator
        self._words = words
        self._others = others

    def data(self, data: bytes) -> bytes:
        """Bytes, whatever they mean."""
        for _ in range(self._few()):
            data = self._random.choice(_SIMPLE)(self, data)
        return data[:LONGEST]

    def json(self, data: bytes) -> bytes:
        """A document that is still JSON, mostly."""
        if self._random.random() < 0.15:
            return self.data(data)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return self.data(data)
        for _ in range(self._few()):
            document = self._node(document, 0)
        text = json.dumps(document).encode()
        if self._random.random() < 0.05:
            depth = self._random.choice([500, 20_000, 100_000])
            text = text.replace(b"null", b"[" * depth + b"]" * depth, 1)
        return text[:LONGEST]

    def tar(self, data: bytes) -> bytes:
        """An archive whose headers are still headers, mostly."""
        if self._random.random() < 0.15 or len(data) < BLOCK:
            return self.data(data)
        members = _members(data)
        for _ in range(self._few()):
            members = self._archive(members)
        return b"".join(members)[:LONGEST]

    def _few(self) -> int:
        return min(8, 1 + int(self._random.expovariate(0.7)))

    def _at(self, data: bytes) -> int:
        return self._random.randrange(len(data) + 1)

    def _range(self, data: bytes) -> tuple[int, int]:
        start = self._at(data)
        return start, min(len(data), start + self._random.choice([1, 2, 4, 16, 64, 512, 4096]))

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"\0"
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1 :]

    def _byte(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + bytes([self._random.choice([0, 1, 9, 10, 32, 127, 128, 255, 65])]) + data[at + 1 :]

    def _cut(self, data: bytes) -> bytes:
        start, end = self._range(data)
        return data[:start] + data[end:]

    def _end(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _twice(self, data: bytes) -> bytes:
        start, end = self._range(data)
        return data[:end] + data[start:end] * self._random.choice([1, 1, 2, 50]) + data[end:]

    def _word(self, data: bytes) -> bytes:
        word = self._random.choice(self._words) if self._words else b"\0"
        start, end = self._range(data)
        return data[:start] + word + data[start if self._random.random() < 0.6 else end :]

    def _digits(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + str(self._random.choice(_NUMBERS)).encode() + data[at:]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._others)
        return data[: self._at(data)] + other[self._at(other) :]

    def _node(self, node: Any, depth: int) -> Any:
        """Change one thing somewhere in a document."""
        if isinstance(node, dict | list) and node and (depth < 1 or self._random.random() < 0.8):
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = self._random.choice(keys)
            chance = self._random.random()
            if chance < 0.1:
                del node[key]
            elif chance < 0.15 and isinstance(node, list):
                node.extend([node[key]] * self._random.choice([1, 300]))
            elif chance < 0.2 and isinstance(node, dict):
                node[self._text()] = node[key]
            else:
                node[key] = self._node(node[key], depth + 1)
            return node
        return self._value(node)

    def _value(self, old: Any) -> Any:
        chance = self._random.random()
        if isinstance(old, str) and chance < 0.5:
            return self.data(old.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
        if chance < 0.75:
            return self._random.choice(_NUMBERS)
        return self._text() if chance < 0.9 else self._random.choice(_VALUES)

    def _text(self) -> str:
        return self._random.choice(self._words or [b"x"]).decode("utf-8", "replace")

    def _archive(self, members: list[bytes]) -> list[bytes]:
        at = self._random.randrange(len(members))
        chance = self._random.random()
        if chance < 0.08:
            return members[:at] + members[at + 1 :] or [bytes(BLOCK)]
        if chance < 0.18:
            other = self._random.randrange(len(members))
            return [*members[:other], members[at], *members[other:]]
        if chance < 0.24:
            return members + _members(self._random.choice(self._others))
        if chance < 0.34:
            return [*members[:at], self._pax(), *members[at:]]
        return [*members[:at], self._header(members[at]), *members[at + 1 :]]

    def _header(self, member: bytes) -> bytes:
        """One field of a header is changed, or the data behind it; the checksum is made right again, mostly."""
        if len(member) > BLOCK and self._random.random() < 0.25:
            return member[:BLOCK] + self.data(member[BLOCK:])
        field, start, length = self._random.choice(_FIELDS)
        if field in ("name", "link", "prefix"):
            value = self._random.choice([*_NAMES, *self._words])
        elif field == "kind":
            value = bytes([self._random.choice(_KINDS)])
        elif field == "magic":
            value = self._random.choice([b"ustar\x0000", b"ustar  \0", bytes(8), b"ustar\0\xff\xff"])
        else:
            value = self._number(length)
        header = bytearray(member[:BLOCK].ljust(BLOCK, b"\0"))
        header[start : start + length] = value[:length].ljust(length, b"\0")
        return summed(header) + member[BLOCK:]

    def _number(self, length: int) -> bytes:
        number = self._random.choice(_NUMBERS)
        chance = self._random.random()
        if chance < 0.3:
            return (number & (1 << 8 * length) - 1 | 1 << 8 * length - 1).to_bytes(length, "big")
        if chance < 0.4:
            odd = [b"-1", b"99", b" 1 ", b"1x", b"\0\x001", b"1 7", b" " * length, b"\xff" * length, b"\x80" * length]
            return self._random.choice(odd)
        if chance < 0.5:
            return (b"%o" % abs(number)).rjust(length, b"0")  # no terminator
        return b"%o" % abs(number)

    def _pax(self) -> bytes:
        """An extended header of our own."""
        keys = [b"path", b"linkpath", b"size", b"mtime", b"uid", b"GNU.sparse.map", b"GNU.sparse.realsize"]
        keys += [b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.size", b"GNU.sparse.name", b"hdrcharset"]
        keys += [b"GNU.sparse.numblocks", b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"atime", b"uname"]
        keys += [b"SCHILY.xattr.user.a", b"SCHILY.xattr.trusted.overlay.opaque", b"SCHILY.xattr.", b"x" * 300, b""]
        records = b""
        for _ in range(self._few()):
            key = self._random.choice(keys)
            number = str(self._random.choice(_NUMBERS)).encode()
            value = self._random.choice([number, number + b"," + number, b"-1.5", b"1.", *_NAMES, *self._words])
            records += record(key, value)
        if self._random.random() < 0.2:
            records = self.data(records)
        header = bytearray(BLOCK)
        header[:3], header[156:157], header[257:265] = b"pax", self._random.choice([b"x", b"x", b"g"]), b"ustar\x0000"
        header[124:136] = b"%011o\0" % len(records)
        return summed(header) + records + bytes(-len(records) % BLOCK)


_SIMPLE: Final[list[Callable[[Mutator, bytes], bytes]]] = [
    Mutator._flip, Mutator._byte, Mutator._cut, Mutator._end, Mutator._twice, Mutator._word, Mutator._word,
    Mutator._digits, Mutator._splice,
]  # fmt: skip


def record(key: bytes, value: bytes) -> bytes:
    """A pax record: its own length comes first."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest


def summed(header: bytearray) -> bytes:
    """A header with the checksum that it should have."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _members(data: bytes) -> list[bytes]:
    """An archive cut before each header, as far as they can be told."""
    starts, at = [], 0
    while at + BLOCK <= len(data):
        starts.append(at)
        digits = data[at + 124 : at + 135].strip(b" \0")
        size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else 0
        at += BLOCK + -(-size // BLOCK) * BLOCK
    ends = [*starts[1:], len(data)]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)] if starts else [data]
