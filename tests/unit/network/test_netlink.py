"""Netlink's wire format: what is packed is read back, and garbage doesn't break the reader."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.bridge import _netlink

ATTRIBUTES = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=12)


@given(ATTRIBUTES)
def test_attributes_come_back(given_: list[tuple[int, bytes]]) -> None:
    packed = b"".join(_netlink.attr(kind, value) for kind, value in given_)
    assert len(packed) % 4 == 0
    assert list(_netlink.attribute_list(packed)) == given_


@given(st.binary(max_size=200))
def test_garbage_ends_the_list(data: bytes) -> None:
    for _, value in _netlink.attribute_list(data):
        assert len(value) <= len(data)


def test_nesting_sets_the_flag_and_is_read_without() -> None:
    packed = _netlink.nest(7, _netlink.u32(1, 5), _netlink.text(2, "x"))
    assert struct.unpack_from("=HH", packed)[1] == 0x8007
    inner = _netlink.attributes(_netlink.attributes(packed)[7])
    assert inner == {1: struct.pack("=I", 5), 2: b"x\0"}


def test_negative_numbers_in_network_order() -> None:
    assert _netlink.be32(1, -300)[4:] == b"\xff\xff\xfe\xd4"
