"""Decompression: what is broken is Corrupt, what is bounded stays so, the digest is of every byte."""

from __future__ import annotations

import gzip
import io
import random
import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from scow.errors import Corrupt
from scow.layers.codecs import plain, sniff
from scow.layers.stream import LayerStream
from scow.model.digest import Digest


def inflate(data: bytes) -> bytes:
    return b"".join(plain(io.BytesIO(data)))


@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4), st.sampled_from(["gzip", "zstd", "none"]))
def test_members_and_frames_add_up(parts: list[bytes], codec: str) -> None:
    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "none": bytes}[codec]
    if codec == "none" and sniff(b"".join(parts)) != "none":
        return
    assert inflate(b"".join(map(pack, parts))) == b"".join(parts)


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"x" * 9000)[:-1],
        gzip.compress(b"x" * 9000)[:12],
        gzip.compress(b"x" * 9000) + b"garbage",
        gzip.compress(b"x")[:-8] + bytes(8),
        zstandard.compress(b"x" * 9000) + b"garbage",
        zstandard.compress(b"x" * 9000)[:6] + b"\xff" * 40,
    ],
    # Names of their own: gzip writes the time, and two workers must collect the same tests.
    ids=["gzip-short", "gzip-shorter", "gzip-garbage", "gzip-sum", "zstd-garbage", "zstd-overwritten"],
)
def test_broken_streams(data: bytes) -> None:
    with pytest.raises(Corrupt):
        inflate(data)


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 9), zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_comes_in_small_chunks(pack) -> None:  # type: ignore[no-untyped-def]
    chunks = [len(chunk) for chunk in plain(io.BytesIO(pack(bytes(50_000_000))))]
    assert sum(chunks) == 50_000_000
    assert max(chunks) <= 1 << 20


# More than may wait for the reader, so that the threads are still there when they are looked for.
@pytest.mark.parametrize("size", [10_000, 9_000_000], ids=["inline", "ahead"])
def test_the_digest_is_of_every_byte(size: int) -> None:
    data = random.Random(size).randbytes(size)
    packed = gzip.compress(data, 1)
    raw = io.BytesIO(packed)
    # By their names: threads of tests that came before may end at any moment.
    before = set(threading.enumerate())
    with LayerStream(raw, len(packed), "sha256", lambda: None) as stream:
        own = [thread.name for thread in threading.enumerate() if thread not in before]
        assert bool({"hash", "inflate"}.intersection(own)) == (size > 100_000)
        got = b""
        while chunk := stream.chunk():
            got += chunk
        assert got == data
        stream.verify(Digest.of(data))
        with pytest.raises(Corrupt, match="diff ID"):
            stream.verify(Digest.of(data[:-1]))
    assert raw.closed


@pytest.mark.parametrize("size", [10_000, 3_000_000], ids=["inline", "ahead"])
def test_a_stream_that_breaks_off(size: int) -> None:
    packed = gzip.compress(random.Random(size).randbytes(size), 1)[:-100]
    with LayerStream(io.BytesIO(packed), len(packed), "sha256", lambda: None) as stream:
        chunks = iter(stream.chunk, b"")
        with pytest.raises(Corrupt, match="cut short"):
            list(chunks)


def test_a_stream_that_cannot_be_closed() -> None:
    """Its reader is told, and doesn't wait for ever."""

    class Unclosable(io.BytesIO):
        def close(self) -> None:
            raise OSError("gone")

    packed = gzip.compress(random.Random(1).randbytes(100_000), 1)
    with LayerStream(Unclosable(packed), len(packed), "sha256", lambda: None) as stream:
        chunks = iter(stream.chunk, b"")
        with pytest.raises(OSError, match="gone"):
            list(chunks)
