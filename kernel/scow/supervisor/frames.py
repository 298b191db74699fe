"""Frames on the sockets between a supervisor and its clients. Without I/O.

Docker's stdio framing (Engine API, "attach": stream type, three zero bytes, length as 32 bits big endian), with a
fourth type for control messages in JSON:

    client → supervisor   STDIN data (empty: end of input), CONTROL {"do": …} {"resize": [rows, columns]} {"signal": n}
    supervisor → client   STDOUT, STDERR data, CONTROL {"started": …} {"failed": …} {"exited": …} {"answer": …}
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

from scow.errors import Corrupt

_HEADER: Final = struct.Struct(">B3xI")
#: No sender of ours makes larger ones; a larger length means that the other side talks nonsense.
FRAME_MAX: Final = 16 * 1024 * 1024


class Stream(IntEnum):
    """A frame's type."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    CONTROL = 3


class Frame(NamedTuple):
    """One frame."""

    stream: Stream
    data: bytes

    def control(self) -> dict[str, Any]:
        """A control frame's message. Raises Corrupt."""
        try:
            message = msgspec.json.decode(self.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Corrupt(f"control message is not valid: {error}") from None
        if not isinstance(message, dict):
            raise Corrupt("control message is not an object")
        return message


def encode(stream: Stream, data: bytes) -> bytes:
    """A frame's bytes."""
    return _HEADER.pack(stream, len(data)) + data


def encode_control(**message: Any) -> bytes:
    """A control frame's bytes."""
    return encode(Stream.CONTROL, msgspec.json.encode(message))


class Decoder:
    """Takes bytes as they come, gives whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises Corrupt for an unknown type or a length beyond all bounds."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > FRAME_MAX or kind > Stream.CONTROL:
                raise Corrupt(f"frame of type {kind} with {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            data = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(Stream(kind), data)
