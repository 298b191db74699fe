"""The pure parts: checksums, entries, attributes."""

from __future__ import annotations

import os
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.errors import Corrupt
from scow.layers.erofs import directories, xattrs
from scow.layers.erofs import format as disk

_NAMES = st.sets(st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & set(name)), max_size=60)


def test_checksum_has_the_known_value() -> None:
    assert disk.crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_superblock_and_inode_sizes() -> None:
    assert len(disk.superblock(root=36, inodes=1, blocks=1, uuid=bytes(16), chunked=False)) == disk.SUPER_SIZE
    assert len(disk.inode(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)) == disk.INODE


def test_times_before_the_epoch() -> None:
    seconds, nanoseconds = struct.unpack_from("<qI", disk.inode(1, 0, 0, 0, 0, 0, 0, 0, -1, 0), 32)
    assert (seconds, nanoseconds) == (-1, 999_999_999)


@given(st.integers(0, (1 << 12) - 1), st.integers(0, (1 << 20) - 1))
def test_device_numbers_are_linux_own(major: int, minor: int) -> None:
    assert disk.device_number(major, minor) == os.makedev(major, minor) & 0xFFFFFFFF


@given(_NAMES)
def test_entries_fill_blocks_in_order(names: set[bytes]) -> None:
    ordered = sorted(names | {b".", b".."})
    counts, used = directories.split(ordered)
    blocks = list(directories.blocks(ordered, [(number, 1) for number in range(len(ordered))], counts))
    assert [len(block) for block in blocks] == [4096] * (len(blocks) - 1) + [used]
    found = []
    for block in blocks:
        count = struct.unpack_from("<QH", block)[1] // 12
        heads = [struct.unpack_from("<QHB", block, 12 * number) for number in range(count)]
        ends = [offset for _, offset, _ in heads[1:]] + [len(block)]
        found += [(block[offset:end].rstrip(b"\0"), nid) for (nid, offset, _), end in zip(heads, ends, strict=True)]
    assert found == [(name, number) for number, name in enumerate(ordered)]


def _stored(kind: int, **attributes: bytes) -> bytes:
    return xattrs.encoded(kind, {name.replace("__", "."): value for name, value in attributes.items()})


def test_attributes_that_no_file_system_takes_are_left_out() -> None:
    assert _stored(stat.S_IFREG, unknown__x=b"1") == b""
    assert _stored(stat.S_IFREG, user__=b"1") == b""
    assert _stored(stat.S_IFLNK, user__x=b"1") == b""
    assert _stored(stat.S_IFREG, system__posix_acl_default=b"\2\0\0\0") == b""
    assert _stored(stat.S_IFREG, system__posix_acl_access=b"nonsense") == b""


def test_attributes_are_in_one_order() -> None:
    one = xattrs.encoded(stat.S_IFREG, {"user.a": b"1", "trusted.b": b"22"})
    assert one == xattrs.encoded(stat.S_IFREG, {"trusted.b": b"22", "user.a": b"1"})
    assert len(one) % 4 == 0


def test_acls_are_kept() -> None:
    entries = [(1, 7, 0xFFFFFFFF), (2, 5, 1000), (4, 5, 0xFFFFFFFF), (0x10, 5, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
    value = b"\2\0\0\0" + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    assert value in _stored(stat.S_IFREG, system__posix_acl_access=value)
    assert value in _stored(stat.S_IFDIR, system__posix_acl_default=value)
    without_mask = b"\2\0\0\0" + b"".join(struct.pack("<HHI", *entry) for entry in entries if entry[0] != 0x10)
    assert _stored(stat.S_IFREG, system__posix_acl_access=without_mask) == b""


@pytest.mark.parametrize(
    "attributes",
    [
        {"security.capability": b"short"},
        {"user." + "n" * 251: b""},
        {"user.x": bytes(65536)},
        {f"user.{number}": bytes(60000) for number in range(5)},
    ],
)
def test_attributes_beyond_any_limit_are_refused(attributes: dict[str, bytes]) -> None:
    with pytest.raises(Corrupt):
        xattrs.encoded(stat.S_IFREG, attributes)
