"""Extended attributes of an inode as EROFS stores them behind it. Pure.

What ext4 wouldn't take is left out, or refused, as when a layer is unpacked into a directory: one result for all.
Source: fs/erofs/xattr.h; setxattr(2), xattr(7), acl(5).
"""

from __future__ import annotations

import stat
import struct
from functools import lru_cache
from typing import Final

from scow.errors import Corrupt

#: A name's prefix and its index. The two ACLs are names of their own.
_PREFIXES: Final = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACLS: Final = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_HEADER: Final = bytes(12)
_ENTRY: Final = struct.Struct("<BBH")
_NAME_MAX: Final = 255
#: What the inode's counter of 4-byte units can say.
_TOTAL_MAX: Final = 0xFFFF * 4
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_TAGS: Final = frozenset({0x01, 0x02, 0x04, 0x08, 0x10, 0x20})
_ACL_ONCE: Final = frozenset({0x01, 0x04, 0x20})
#: VFS_CAP_REVISION_2 and _3 with the lengths that they must have (linux/capability.h).
_CAPABILITIES: Final = {0x02: 20, 0x03: 24}

OPAQUE: Final = ((b"trusted.overlay.opaque", b"y"),)


def encoded(mode: int, xattrs: dict[str, bytes] | None, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The bytes behind an inode of this mode; b"" for none. Raises Corrupt for what can't be stored."""
    if not xattrs and not more:
        return b""
    named = {name.encode("utf-8", "surrogateescape"): value for name, value in (xattrs or {}).items()}
    named.update(more)
    return _encoded(stat.S_IFMT(mode), tuple(sorted(named.items())))


@lru_cache(maxsize=64)
def _encoded(kind: int, named: tuple[tuple[bytes, bytes], ...]) -> bytes:
    entries = [_entry(index, suffix, value) for name, value in named for index, suffix in _stored(kind, name, value)]
    if not entries:
        return b""
    data = _HEADER + b"".join(entries)
    if len(data) > _TOTAL_MAX:
        raise Corrupt(f"layer has {len(data)} bytes of extended attributes on one file")
    return data


def _entry(index: int, suffix: bytes, value: bytes) -> bytes:
    if len(suffix) > _NAME_MAX or len(value) > 0xFFFF:
        raise Corrupt(f"layer has an extended attribute that is too long: {suffix[:40]!r}, {len(value)} bytes")
    data = _ENTRY.pack(len(suffix), index, len(value)) + suffix + value
    return data + bytes(-len(data) % 4)


def _stored(kind: int, name: bytes, value: bytes) -> tuple[tuple[int, bytes], ...]:
    """The index and the rest of the name; empty for what no file system would take."""
    if len(name) > _NAME_MAX:
        raise Corrupt(f"layer has an extended attribute with a name of {len(name)} bytes")
    if (index := _ACLS.get(name)) is not None:
        return ((index, b""),) if _acl_fits(kind, index, value) else ()
    if name == b"security.capability" and not _is_capability(value):
        raise Corrupt("layer has a file capability that is none")
    if name.startswith(b"user.") and kind not in (stat.S_IFREG, stat.S_IFDIR):
        return ()
    for prefix, index in _PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return ((index, name[len(prefix) :]),)
    return ()


def _is_capability(value: bytes) -> bool:
    return len(value) >= 4 and _CAPABILITIES.get(value[3]) == len(value)


def _acl_fits(kind: int, index: int, value: bytes) -> bool:
    """Whether the kernel would take it: version 2, whole entries, each tag as often as it may stand."""
    if kind == stat.S_IFLNK or (index == 3 and kind != stat.S_IFDIR):
        return False
    if len(value) <= 4 or (len(value) - 4) % _ACL_ENTRY.size or value[:4] != b"\x02\0\0\0":
        return False
    tags = [tag for tag, permissions, _ in _ACL_ENTRY.iter_unpack(value[4:]) if permissions <= 7]
    named = any(tag in (0x02, 0x08) for tag in tags)
    return (
        len(tags) == (len(value) - 4) // _ACL_ENTRY.size
        and tags == sorted(tags)
        and _ACL_TAGS.issuperset(tags)
        and all(tags.count(tag) == 1 for tag in _ACL_ONCE)
        and tags.count(0x10) <= 1
        and (not named or 0x10 in tags)
    )
