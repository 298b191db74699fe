"""Answers of registries and token servers, down to the last byte of HTTP: a real server that sends what it is told."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Finding, Target

from scow.api import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Digest,
    Document,
    Manifest,
    Platform,
    ScowError,
    parse_document,
    parse_named,
)
from scow_plugins.registry._challenge import parse_challenges, pick
from scow_plugins.registry._endpoints import Rules
from scow_plugins.registry._failures import words_of
from scow_plugins.registry._puller import Puller
from scow_plugins.registry._redirects import Refused, next_step
from scow_plugins.registry._retry import Policy, parse_retry_after
from scow_plugins.registry._settings import read_settings
from scow_plugins.registry._tokens import BadToken, merge_scopes, parse_token

#: Stands between two answers, and in them for the server itself.
_NEXT: Final = b"\n--8<--\n"
_HOST: Final = b"HOST"
#: How a client begins that wants TLS (RFC 8446, 5.1: a handshake record).
_TLS: Final = b"\x16"
_MOST: Final = 1 << 20
_POLICY: Final = Policy(rounds=2, first_pause=0.001, longest_pause=0.001, patience=0.001, connect=0.3, idle=0.3)

_CONFIG: Final = b'{"rootfs":{}}'
_MANIFEST: Final = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(_CONFIG)), "size": len(_CONFIG)},
        "layers": [],
    }
).encode()


def _answer(status: str, headers: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


_REFUSED: Final = _answer(
    "401 No", 'WWW-Authenticate: Bearer realm="http://HOST/token",service="s",scope="a:b:pull"\r\n'
)
_TOKEN: Final = _answer("200 OK", "Content-Type: application/json\r\n", b'{"token":"abc","expires_in":300}')
_FOUND: Final = _answer(
    "200 OK", f"Content-Type: {OCI_MANIFEST}\r\nDocker-Content-Digest: {Digest.of(_MANIFEST)}\r\n", _MANIFEST
)
_BLOB: Final = _answer("200 OK", "", _CONFIG)
_CHUNKED: Final = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(_CONFIG), _CONFIG)
)  # fmt: skip
_AWAY: Final = _answer("307 There", "Location: http://HOST/elsewhere?sig=x\r\n")
_TAGS: Final = _answer("200 OK", 'Link: </v2/a/b/tags/list?last=x>; rel="next"\r\n', b'{"name":"a/b","tags":["1","2"]}')
_LAST: Final = _answer("200 OK", "", b'{"name":"a/b","tags":null}')
_ERROR: Final = _answer("404 No", "", b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \\u001b[31m such"}]}')
_BUSY: Final = _answer("429 Slow", "Retry-After: 0\r\nRateLimit-Remaining: 0;w=21600\r\n", b"wait")
_PART: Final = _answer("206 Part", "Content-Range: bytes 5-12/13\r\n", _CONFIG[5:])

_TALKS: Final = tuple(
    _NEXT.join(answers)
    for answers in (
        (_FOUND, _BLOB, _TAGS, _LAST),
        (_REFUSED, _TOKEN, _FOUND, _AWAY, _BLOB, _TAGS, _LAST),
        (_AWAY, _FOUND, _CHUNKED, _ERROR),
        (_BUSY, _FOUND, _BUSY, _PART, _ERROR),
    )
)


_NONE: Final = _answer("404 No", "")
_HELLO: Final = _answer("200 OK", "")
_BEGUN: Final = _answer("202 Go", "Location: /v2/a/b/blobs/uploads/1?_state=x\r\nRange: 0-0\r\n")
_MADE: Final = _answer("201 Made", f"Docker-Content-Digest: {Digest.of(_MANIFEST)}\r\n")
_UPLOADS: Final = tuple(
    _NEXT.join(answers)
    for answers in (
        (_HELLO, _NONE, _BEGUN, _MADE, _MADE),
        (_REFUSED, _TOKEN, _HELLO, _NONE, _MADE, _MADE),
        (_HELLO, _BLOB, _MADE),
        (_HELLO, _NONE, _BEGUN, _BUSY, _BEGUN, _MADE, _ERROR),
    )
)


def talk(data: bytes, place: Path) -> str:
    """Resolve an image, fetch its configuration, list the tags."""
    os.environ["DOCKER_CONFIG"] = str(place)
    return str(trio.run(_talk, data.split(_NEXT), _pull))


def upload(data: bytes, place: Path) -> str:
    """Push a blob and a manifest."""
    os.environ["DOCKER_CONFIG"] = str(place)
    return str(trio.run(_talk, data.split(_NEXT), _push))


class _NoNames(trio.abc.HostnameResolver):
    """Nobody asks the machine's name servers."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *args: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def _talk(answers: list[bytes], client: Callable[[str], Awaitable[object]]) -> object:
    trio.socket.set_custom_hostname_resolver(_NoNames())
    with trio.move_on_after(8) as scope:
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            host = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            ahead = [answer.replace(_HOST, host.encode()) for answer in answers]
            nursery.start_soon(partial(trio.serve_listeners, partial(_serve, ahead), [listener]))
            try:
                said = await client(host)
            except ScowError as error:
                # The nursery would make a group of it.
                said = error
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise Finding("no end after 8 seconds")
    if isinstance(said, ScowError):
        raise said
    return said


async def _serve(ahead: list[bytes], stream: trio.SocketStream) -> None:
    """One answer for one request, then the end; the last one for all that follow."""
    try:
        request = b""
        while (
            b"\r\n\r\n" not in request and not request.startswith(_TLS) and (more := await stream.receive_some(65536))
        ):
            request += more
        # Whoever tries TLS has nothing to wait for.
        if request and not request.startswith(_TLS):
            await stream.send_all(ahead.pop(0) if len(ahead) > 1 else ahead[0])
        await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


class _Sink:
    def __init__(self) -> None:
        self.offset = 0

    async def write(self, data: bytes) -> None:
        self.offset += len(data)
        if self.offset > _MOST:
            raise Finding("more bytes than were sent")

    async def restart(self) -> None:
        self.offset = 0


async def _pull(host: str) -> object:
    puller = Puller(read_settings({"registries": {}}), _POLICY)
    name = parse_named(f"{host}/a/b:1")
    resolved = await puller.resolve(name, Platform("linux", "amd64"))
    manifest = parse_document(resolved.manifest.data, resolved.manifest.descriptor.media_type)
    if not isinstance(manifest, Manifest):
        raise Finding("what is resolved is no manifest")
    config = Descriptor(OCI_CONFIG, manifest.config.digest, manifest.config.size)
    await puller.fetch(resolved.source.location, config, _Sink())
    return len(await puller.tags(name))


async def _push(host: str) -> object:
    puller = Puller(read_settings({"registries": {}}), _POLICY)
    name = parse_named(f"{host}/a/b:1")
    blob = Descriptor(OCI_CONFIG, Digest.of(_CONFIG), len(_CONFIG))
    async with puller.publish(name) as destination:
        came = await destination.blob(blob, lambda: io.BytesIO(_CONFIG), ("other/x",), lambda count: None)
        manifest = Descriptor(OCI_MANIFEST, Digest.of(_MANIFEST), len(_MANIFEST))
        await destination.manifest(Document(manifest, _MANIFEST), name)
    return came


def flow(data: bytes, place: Path) -> str:
    """Headers and bodies without HTTP around them, which is quicker."""
    text = data.decode("latin-1")
    challenge = pick(parse_challenges([text]))
    words = words_of(data)
    if words and not words.isprintable():
        raise Finding(f"a registry's words can't be shown: {words!r}")
    said = [bool(words), challenge.scheme if challenge else "", parse_retry_after(text) is None]
    if challenge:
        merge_scopes(challenge.parameters.get("scope", ""), "repository:a/b:pull")
    try:
        said.append(parse_token(data, 0).stale_at > 0)
    except BadToken as error:
        said.append(str(error))
    try:
        step = next_step("http://127.0.0.1:5000/v2/", text, Rules(read_settings({"registries": {}})))
        said.append(step.same_origin)
    except Refused as error:
        said.append(str(error)[:24])
    return str(said)


TARGETS: Final = (
    Target(
        "talk",
        _TALKS,
        Mutator.data,
        talk,
        (
            _NEXT,
            b"HTTP/1.1 ",
            b"\r\n\r\n",
            b"Content-Length: ",
            b"Location: ",
            b"http://HOST",
            b"https://[",
            b"Link: <",
        ),
    ),
    Target(
        "upload",
        _UPLOADS,
        Mutator.data,
        upload,
        (_NEXT, b"HTTP/1.1 ", b"\r\n\r\n", b"Content-Length: ", b"Location: ", b"http://HOST", b"//[", b"Range: "),
    ),
    Target(
        "flow",
        (
            b'Bearer realm="https://example.org/token",service="s",scope="repository:a/b:pull,push"',
            b'Basic realm="x", Bearer realm=https://e/t',
            b'{"token":"abc","access_token":null,"expires_in":"60"}',
            b'{"errors":[{"code":"A","message":"b","detail":{}}]}',
            b"https://user:pw@example.org:8443/a%20b?c#d",
            b"Fri, 31 Dec 1999 23:59:59 GMT",
            b"120",
        ),
        Mutator.data,
        flow,
        (b'"', b"\\", b"=", b",", b"Bearer ", b"http://127.0.0.1", b"//[::1", b"\x1b[2J", b"[" * 2000, b"1e999"),
    ),
)
