"""Servers that send what no server should, byte by byte."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from scow.api import Descriptor, Digest, Unavailable, parse_named


@asynccontextmanager
async def answering(answers: Sequence[bytes]) -> AsyncIterator[str]:
    """A server on loopback that gives one answer after the other, each over a connection of its own; gives its host."""
    ahead = list(answers)

    async def serve(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request and (more := await stream.receive_some(65536)):
            request += more
        if request and ahead:
            await stream.send_all(ahead.pop(0))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


_ODD = [b"http://[::1", b"\xe9\xff", b"/v2/a/b?x=\xe9", b"//elsewhere.invalid/v2/", b"/v2/ x", b"file:///etc/passwd"]


@pytest.mark.parametrize("link", _ODD)
async def test_a_next_page_that_is_none(puller, link: bytes) -> None:
    page = b'HTTP/1.1 200 OK\r\nLink: <%s>; rel="next"\r\nContent-Length: 2\r\n\r\n{}' % link
    async with answering([page]) as host:
        with pytest.raises(Unavailable, match="next page of tags on another host"):
            await puller().tags(parse_named(f"{host}/a/b"))


@pytest.mark.parametrize("place", [each for each in _ODD if each != b"/v2/ x"])
async def test_a_place_for_an_upload_that_is_none(puller, place: bytes) -> None:
    nothing = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    begun = b"HTTP/1.1 202 Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place
    hello = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    data = b"data"
    blob = Descriptor("a/b", Digest.of(data), len(data))
    async with (
        answering([hello, nothing, *[begun] * 9]) as host,
        puller().publish(parse_named(f"{host}/a/b:1")) as target,
    ):
        with pytest.raises(Unavailable, match="names a place for the upload that is no URL, or not encrypted"):
            await target.blob(blob, lambda: io.BytesIO(data), (), lambda count: None)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", b"nonsense\r\n\r\n"])
async def test_a_greeting_that_is_cut_short(puller, answer: bytes) -> None:
    async with answering([answer] * 4) as host:
        with pytest.raises(Unavailable, match="closed too early"):
            async with puller().publish(parse_named(f"{host}/a/b:1")):
                pass
    async with answering([answer] * 4) as host:
        with pytest.raises(Unavailable, match="closed too early"):
            await puller().login(host, "me", "secret")
