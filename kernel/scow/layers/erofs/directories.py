"""A directory's entries as blocks. Pure.

Entries are sorted by their bytes over the whole directory, `.` and `..` among them: the kernel looks a name up
by binary search over blocks, and then within one. A block holds its entries (12 bytes each), then their names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from scow.layers.erofs.format import BLOCK

#: Node number, offset of the name, kind.
_ENTRY: Final = struct.Struct("<QHBx")


def split(names: Sequence[bytes]) -> tuple[list[int], int]:
    """How many of the sorted names go into each block, and the bytes used of the last one."""
    counts = []
    used = count = 0
    for name in names:
        need = 12 + len(name)
        if used + need > BLOCK:
            counts.append(count)
            used = count = 0
        used += need
        count += 1
    counts.append(count)
    return counts, used


def blocks(names: Sequence[bytes], nodes: Sequence[tuple[int, int]], counts: Sequence[int]) -> Iterator[bytes]:
    """Each block's bytes, all but the last padded; `nodes` are the node number and the kind of each name."""
    at = 0
    for count in counts:
        there = names[at : at + count]
        offset = 12 * count
        parts = []
        for name, (nid, kind) in zip(there, nodes[at : at + count], strict=True):
            parts.append(_ENTRY.pack(nid, offset, kind))
            offset += len(name)
        parts.extend(there)
        at += count
        block = b"".join(parts)
        yield block if at == len(names) else block + bytes(BLOCK - len(block))
