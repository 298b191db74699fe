"""Frames between a supervisor and its clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.errors import Corrupt
from scow.supervisor.frames import FRAME_MAX, Decoder, Frame, Stream, encode, encode_control

_frames = st.lists(st.builds(Frame, st.sampled_from(Stream), st.binary(max_size=40)), max_size=6)


@given(_frames, st.lists(st.integers(1, 20)))
def test_any_cut_gives_the_same_frames(frames: list[Frame], sizes: list[int]) -> None:
    wire = b"".join(encode(*frame) for frame in frames)
    assert list(Decoder().feed(wire)) == frames
    by_byte, by_piece = Decoder(), Decoder()
    assert [frame for at in range(len(wire)) for frame in by_byte.feed(wire[at : at + 1])] == frames
    got, at = [], 0
    for size in [*sizes, len(wire)]:
        got += list(by_piece.feed(wire[at : at + size]))
        at += size
    assert got == frames


@given(st.binary(max_size=64))
def test_any_bytes_are_frames_or_corrupt(data: bytes) -> None:
    try:
        for frame in Decoder().feed(data):
            assert len(frame.data) <= len(data)
    except Corrupt:
        pass


@pytest.mark.parametrize("header", [b"\4\0\0\0\0\0\0\0", b"\xff" * 8, b"\1\0\0\0" + (FRAME_MAX + 1).to_bytes(4, "big")])
def test_nonsense(header: bytes) -> None:
    with pytest.raises(Corrupt):
        list(Decoder().feed(header))


def test_control() -> None:
    (frame,) = Decoder().feed(encode_control(resize=[1, 2]))
    assert frame.control() == {"resize": [1, 2]}
    for data in (b"", b"[]", b"\xff", b"{", b'"\xff"', b"3"):
        with pytest.raises(Corrupt):
            Frame(Stream.CONTROL, data).control()
