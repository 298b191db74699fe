"""A small registry in this process, for tests: an image store in dicts, served over HTTP/1.1, that can misbehave.

    registry = Registry()
    registry.add_image("library/nginx", "latest", layers=[{"etc/motd": b"hello"}])
    async with serve(registry):
        ...  # registry.url is http://127.0.0.1:PORT, registry.requests grows
        registry.faults.truncate = 100

Faults are switches that may be turned while it serves; every request is recorded before it is answered. Free of pytest.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import secrets
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import trio

from scow.model.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from scow.model.digest import Digest
from scow.model.platform import Platform

Compression: TypeAlias = Literal["none", "gzip", "zstd"]
#: A layer: path -> content (a tar is made of it), or the bytes of an uncompressed tar (or of what claims to be one).
Layer: TypeAlias = Mapping[str, bytes] | bytes
Headers: TypeAlias = list[tuple[str, str]]
JSON: TypeAlias = dict[str, Any]

_SUFFIX: Final = {
    "oci": {"none": OCI_LAYER, "gzip": f"{OCI_LAYER}+gzip", "zstd": f"{OCI_LAYER}+zstd"},
    "docker": {"none": DOCKER_LAYER, "gzip": f"{DOCKER_LAYER}.gzip", "zstd": f"{DOCKER_LAYER}.zstd"},
}
_MANIFEST_PATH: Final = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_UPLOAD_PATH: Final = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<number>[^/]*)")
_TAGS_PATH: Final = re.compile(r"/v2/(?P<name>.+)/tags/list")
_BLOB_PATH: Final = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)")
_REASONS: Final = {200: "OK", 206: "Partial Content", 307: "Temporary Redirect", 404: "Not Found"}
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in; headers' names are in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Faults:
    """Switches. Numbers that say "n times" count down as they strike; -1 is for ever."""

    #: Ask for a login. `users` are the names and passwords that are accepted; empty with bearer: anonymous tokens do.
    auth: Literal["none", "basic", "bearer"] = "none"
    users: dict[str, str] = field(default_factory=dict)
    #: A refresh token that is accepted at the token server (POST).
    identity_token: str = ""
    #: `expires_in` of tokens in seconds (None: not said); after `token_uses` requests a token is refused.
    expires_in: float | None = 300
    token_uses: int = -1
    #: The token server's URL, where it isn't this server's own.
    realm: str = ""
    #: Answer n requests under /v2/ with 429 or with 500.
    too_many: int = 0
    retry_after: str | None = "0"
    errors: int = 0
    #: Send only so many bytes of n blob answers, then close the connection.
    truncate: int | None = None
    truncations: int = -1
    #: Send other bytes than the digest says.
    corrupt_blobs: bool = False
    corrupt_manifests: bool = False
    #: What Docker-Content-Digest says instead of the truth; empty: it isn't sent.
    claimed_digest: str | None = None
    #: The Content-Type of manifests, instead of their own.
    content_type: str | None = None
    #: The status of a HEAD of any blob.
    blob_head: int = 0
    ignore_range: bool = False
    refuse_range: bool = False
    #: What happens to ranges with an end: a status instead; a Content-Range, a length or an ETag that is another one.
    parts_status: int = 0
    parts: Literal["", "elsewhere", "short", "changed"] = ""
    #: How many parts go well before that.
    good_parts: int = 0
    #: Blobs lie at another server (its `url`), which serves them to everybody under /storage/.
    redirect: str | None = None
    #: Answer every request with a redirect to this.
    redirect_all: str | None = None
    #: Seconds between pieces of a blob of `trickle_bytes`.
    trickle: float = 0.0
    trickle_bytes: int = 1024
    #: Send no byte of a blob from this one on, for as long as this is set.
    stop_at: int | None = None
    #: Never answer.
    silent: bool = False
    #: Refuse PATCH with this status; 0: take pieces. Hang up in the middle of n of them, having kept a half.
    patch_status: int = 0
    broken_patches: int = 0
    #: Read no further once so many bytes of bodies have come to the registry, for as long as this is set.
    hold_at: int | None = None
    #: Refuse to mount blobs of other repositories.
    no_mounts: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """What `add_image` made: the manifest, the configuration and the layers as descriptors of JSON."""

    manifest: JSON
    config: JSON
    layers: tuple[JSON, ...]
    diff_ids: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return str(self.manifest["digest"])


class Registry:
    """The store. `url` and `host` are known while it is served."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.blobs: dict[str, bytes] = {}
        #: (repository, tag or digest) -> media type and bytes.
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.requests: list[Request] = []
        #: Tokens given out, with what is left of their uses.
        self.tokens: dict[str, int] = {}
        #: Bytes of uploads that go on, by their path.
        self.uploads: dict[str, bytearray] = {}
        self.url = ""
        self.host = ""
        self.connections = 0
        #: Bytes of requests' bodies that have come, also of those that are not whole.
        self.received = 0

    def add_blob(self, data: bytes) -> str:
        """Keep a blob. Returns its digest."""
        digest = str(Digest.of(data))
        self.blobs[digest] = data
        return digest

    def add_manifest(self, repository: str, tag: str | None, media_type: str, document: JSON | bytes) -> JSON:
        """Keep any manifest under its digest, and under `tag` if given. Returns its descriptor."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = str(Digest.of(data))
        for reference in (digest, tag):
            if reference is not None:
                self.manifests[repository, reference] = (media_type, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_image(
        self,
        repository: str,
        tag: str | None = "latest",
        *,
        layers: Sequence[Layer] = ({"etc/hostname": b"scow\n"},),
        flavour: Literal["oci", "docker"] = "oci",
        compression: Compression = "gzip",
        config: Mapping[str, Any] | None = None,
        platform: Platform | None = None,
    ) -> Pushed:
        """Keep an image; `config` is what stands under the configuration's `config` (Cmd, Env, …)."""
        described, diff_ids = [], []
        for layer in layers:
            tar = layer if isinstance(layer, bytes) else tar_of(layer)
            diff_ids.append(str(Digest.of(tar)))
            blob = compress(tar, compression)
            media_type = _SUFFIX[flavour][compression]
            described.append({"mediaType": media_type, "digest": self.add_blob(blob), "size": len(blob)})
        data = image_config(diff_ids, config or {}, platform or Platform.host())
        config_type, kind = (OCI_CONFIG, OCI_MANIFEST) if flavour == "oci" else (DOCKER_CONFIG, DOCKER_MANIFEST)
        about = {"mediaType": config_type, "digest": self.add_blob(data), "size": len(data)}
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": about, "layers": described}
        descriptor = self.add_manifest(repository, tag, kind, manifest)
        return Pushed(descriptor, about, tuple(described), tuple(diff_ids))

    def add_index(
        self,
        repository: str,
        tag: str | None,
        entries: Sequence[tuple[Platform | None, JSON]],
        *,
        flavour: Literal["oci", "docker"] = "oci",
        attestations: bool = False,
    ) -> JSON:
        """Keep an index over manifests' descriptors. Returns its descriptor, which may go into another index."""
        lines = [dict(entry, **_platform(platform)) for platform, entry in entries]
        if attestations:
            lines = [_attestation(line) for line in lines] + lines
        kind = OCI_INDEX if flavour == "oci" else DOCKER_LIST
        return self.add_manifest(repository, tag, kind, {"schemaVersion": 2, "mediaType": kind, "manifests": lines})

    def add_schema1(self, repository: str, tag: str) -> JSON:
        """Keep a manifest of Docker's schema 1, which nobody should be able to pull."""
        kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        return self.add_manifest(repository, tag, kind, {"schemaVersion": 1, "name": repository, "fsLayers": []})

    def asked(self, part: str) -> list[Request]:
        """The requests whose path holds `part`, in order."""
        return [request for request in self.requests if part in request.path]


@asynccontextmanager
async def serve(registry: Registry | None = None, *, port: int = 0) -> AsyncIterator[Registry]:
    """Serve a registry on loopback until the block ends; every connection is closed then."""
    registry = registry or Registry()
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    registry.host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    registry.url = f"http://{registry.host}"

    async def handle(stream: trio.SocketStream) -> None:
        registry.connections += 1
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await _Conversation(registry, stream).run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, listeners))
        try:
            yield registry
        finally:
            nursery.cancel_scope.cancel()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed tar; a path that ends in `/` is a directory. Always the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.mode = 0o755
            info.size = len(content)
            if path.endswith("/"):
                info.type = tarfile.DIRTYPE
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def compress(data: bytes, compression: Compression) -> bytes:
    """A layer's blob."""
    if compression == "gzip":
        return gzip.compress(data, compresslevel=1, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(data)
    return data


def image_config(diff_ids: Sequence[str], config: Mapping[str, Any], platform: Platform) -> bytes:
    """An image configuration's bytes."""
    document = {
        "created": "2026-01-01T00:00:00Z",
        "os": platform.os,
        "architecture": platform.architecture,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    return json.dumps(document).encode()


def _platform(platform: Platform | None) -> JSON:
    if platform is None:
        return {}
    parts = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {"platform": {key: value for key, value in parts.items() if value}}


def _attestation(entry: JSON) -> JSON:
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": entry["digest"]}
    return dict(entry, platform={"os": "unknown", "architecture": "unknown"}, annotations=about)


class _Hangup(Exception):
    """The conversation is over."""


class _Conversation:
    """One connection: read a request, answer it, until somebody has had enough."""

    def __init__(self, registry: Registry, stream: trio.SocketStream) -> None:
        self._registry = registry
        self._faults = registry.faults
        self._stream = stream
        self._buffer = bytearray()
        self._method = ""

    async def run(self) -> None:
        with suppress(_Hangup):
            while True:
                request = await self._read()
                self._registry.requests.append(request)
                self._faults = self._registry.faults
                if self._faults.silent:
                    await trio.sleep_forever()
                await self._answer(request)
        await self._stream.aclose()

    async def _read(self) -> Request:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(headers.get("content-length", "0"))
        self._registry.received += min(len(self._buffer), length)
        while await self._held() and len(self._buffer) < length:
            before = len(self._buffer)
            await self._more()
            self._registry.received += min(len(self._buffer), length) - before
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        parts = urlsplit(target)
        return Request(method, parts.path, tuple(parse_qsl(parts.query, keep_blank_values=True)), headers, body)

    async def _held(self) -> bool:
        """Wait for as long as `hold_at` says; true, so that it can stand in a condition."""
        faults = self._registry.faults
        while faults.hold_at is not None and self._registry.received >= faults.hold_at:  # noqa: ASYNC110 - a switch
            await trio.sleep(0.01)
        return True

    async def _more(self) -> None:
        data = await self._stream.receive_some(_CHUNK)
        if not data:
            raise _Hangup
        self._buffer += data

    async def _answer(self, request: Request) -> None:
        self._method = request.method
        if request.path == "/token":
            await self._token(request)
        elif request.path.startswith("/storage/"):
            await self._blob(request, request.path.removeprefix("/storage/"))
        elif await self._struck() or not await self._let_in(request):
            return
        elif match := _UPLOAD_PATH.fullmatch(request.path):
            await self._upload(request, match["name"])
        elif match := _TAGS_PATH.fullmatch(request.path):
            await self._tags(match["name"])
        elif match := _MANIFEST_PATH.fullmatch(request.path):
            if request.method == "PUT":
                await self._put_manifest(request, match["name"], match["reference"])
            else:
                await self._manifest(match["name"], match["reference"])
        elif match := _BLOB_PATH.fullmatch(request.path):
            if self._faults.redirect is not None:
                await self._send(307, [("Location", f"{self._faults.redirect}/storage/{match['digest']}")])
            else:
                await self._blob(request, match["digest"])
        else:
            await self._send(200 if request.path == "/v2/" else 404)

    async def _struck(self) -> bool:
        """The faults that hit any request."""
        faults = self._faults
        if faults.redirect_all is not None:
            await self._send(307, [("Location", faults.redirect_all)])
        elif faults.errors:
            faults.errors -= 1
            await self._error(500, "UNKNOWN", "something broke")
        elif faults.too_many:
            faults.too_many -= 1
            wait = [("Retry-After", faults.retry_after)] if faults.retry_after is not None else []
            limit = [("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "0;w=21600")]
            await self._error(429, "TOOMANYREQUESTS", "you have reached your limit", wait + limit)
        else:
            return False
        return True

    async def _let_in(self, request: Request) -> bool:
        faults = self._faults
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        challenge = 'Basic realm="scow"'
        if faults.auth == "none":
            return True
        if faults.auth == "basic" and scheme == "Basic" and self._known(value):
            return True
        if faults.auth == "bearer":
            if scheme == "Bearer" and self.use(value):
                return True
            name = request.path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
            realm = faults.realm or f"{self._registry.url}/token"
            challenge = f'Bearer realm="{realm}",service="scow test"'
            challenge += f',scope="repository:{name}:pull"' if name else ""
            challenge += ',error="invalid_token"' if scheme else ""
        await self._error(401, "UNAUTHORIZED", "authentication required", [("WWW-Authenticate", challenge)])
        return False

    def use(self, token: str) -> bool:
        """Take one use of a token."""
        left = self._registry.tokens.get(token, 0)
        self._registry.tokens[token] = left - 1 if left > 0 else left
        return left != 0

    def _known(self, value: str) -> bool:
        try:
            name, _, password = base64.b64decode(value).decode().partition(":")
        except ValueError:
            return False
        return self._faults.users.get(name) == password

    async def _token(self, request: Request) -> None:
        faults = self._faults
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if request.method == "POST":
            known = dict(parse_qsl(request.body.decode())).get("refresh_token") == faults.identity_token != ""
        else:
            known = not faults.users or (scheme == "Basic" and self._known(value))
        if not known:
            await self._error(401, "UNAUTHORIZED", "incorrect username or password")
            return
        token = secrets.token_hex(16)
        self._registry.tokens[token] = faults.token_uses
        answer: JSON = {"access_token" if request.method == "POST" else "token": token}
        if faults.expires_in is not None:
            answer["expires_in"] = faults.expires_in
        await self._send(200, [("Content-Type", "application/json")], json.dumps(answer).encode())

    async def _manifest(self, name: str, reference: str) -> None:
        found = self._registry.manifests.get((name, reference))
        if found is None:
            await self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        media_type, data = found
        digest = self._faults.claimed_digest
        if digest is None:
            digest = str(Digest.of(data))
        headers = [("Content-Type", self._faults.content_type or media_type)]
        headers += [("Docker-Content-Digest", digest)] if digest else []
        await self._send(200, headers, _spoilt(data) if self._faults.corrupt_manifests else data)

    async def _put_manifest(self, request: Request, name: str, reference: str) -> None:
        """Taken in only when all that it names is there, as the spec demands; layers with URLs needn't be."""
        document = json.loads(request.body)
        entries = [document.get("config"), *document.get("layers", ())]
        blobs = [entry["digest"] for entry in entries if entry and not entry.get("urls")]
        children = [entry["digest"] for entry in document.get("manifests", ())]
        missing = [digest for digest in blobs if digest not in self._registry.blobs]
        missing += [digest for digest in children if (name, digest) not in self._registry.manifests]
        if missing:
            await self._error(400, "MANIFEST_BLOB_UNKNOWN", f"{missing[0]} unknown to registry")
            return
        tag = None if reference.startswith("sha256:") else reference
        added = self._registry.add_manifest(name, tag, request.headers.get("content-type", ""), request.body)
        await self._send(201, [("Docker-Content-Digest", added["digest"])])

    async def _tags(self, name: str) -> None:
        tags = sorted(tag for known, tag in self._registry.manifests if known == name and ":" not in tag)
        await self._send(200, [], json.dumps({"name": name, "tags": tags}).encode())

    async def _upload(self, request: Request, name: str) -> None:
        query, uploads = dict(request.query), self._registry.uploads
        if request.method == "POST":
            if query.get("mount") in self._registry.blobs and not self._faults.no_mounts:
                await self._send(201, [("Location", f"/v2/{name}/blobs/{query['mount']}")])
                return
            path = f"/v2/{name}/blobs/uploads/{len(uploads) + 1}"
            uploads[path] = bytearray()
            await self._send(202, [("Location", f"{path}?state=0"), ("Range", "0-0")])
            return
        taken = uploads.get(request.path)
        if taken is None:
            await self._error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        elif request.method == "PATCH":
            await self._patch(request, taken)
        elif request.method == "GET":
            await self._send(204, self._progress(request, taken))
        elif str(Digest.of(bytes(taken + request.body))) != query.get("digest"):
            await self._error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        else:
            digest = self._registry.add_blob(bytes(uploads.pop(request.path) + request.body))
            await self._send(201, [("Docker-Content-Digest", digest)])

    async def _patch(self, request: Request, taken: bytearray) -> None:
        faults = self._faults
        start = int(request.headers.get("content-range", "0-").partition("-")[0])
        if faults.patch_status:
            await self._error(faults.patch_status, "UNSUPPORTED", "no pieces here")
        elif start != len(taken):
            await self._send(416, self._progress(request, taken))
        elif faults.broken_patches:
            faults.broken_patches -= 1
            taken += request.body[: len(request.body) // 2]
            raise _Hangup
        else:
            taken += request.body
            await self._send(202, self._progress(request, taken))

    def _progress(self, request: Request, taken: bytearray) -> Headers:
        return [("Location", f"{request.path}?state={len(taken)}"), ("Range", f"0-{max(len(taken) - 1, 0)}")]

    async def _blob(self, request: Request, digest: str) -> None:
        if self._method == "HEAD" and self._faults.blob_head:
            await self._error(self._faults.blob_head, "UNSUPPORTED", "no such method")
            return
        data = self._registry.blobs.get(digest)
        if data is None:
            await self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        data = _spoilt(data) if self._faults.corrupt_blobs else data
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if wanted is None or self._faults.ignore_range:
            await self._send_blob(200, [("ETag", '"first"')], data)
        elif wanted[2]:
            await self._part(data, int(wanted[1]), min(int(wanted[2]), len(data) - 1))
        elif self._faults.refuse_range or int(wanted[1]) >= len(data):
            await self._send(416, [("Content-Range", f"bytes */{len(data)}")])
        else:
            start = int(wanted[1])
            about = f"bytes {start}-{len(data) - 1}/{len(data)}"
            await self._send_blob(206, [("Content-Range", about)], data[start:], start)

    async def _part(self, data: bytes, first: int, last: int) -> None:
        faults = self._faults
        spoilt = faults.good_parts <= 0
        faults.good_parts -= 1
        if spoilt and faults.parts_status:
            await self._error(faults.parts_status, "TOOMANYREQUESTS", "one at a time")
            return
        kind = faults.parts if spoilt else ""
        shift = 1 if kind == "elsewhere" else 0
        about = [("Content-Range", f"bytes {first + shift}-{last + shift}/{len(data)}")]
        etag = [("ETag", '"second"' if kind == "changed" else '"first"')]
        await self._send_blob(206, about + etag, data[first : last + (0 if kind == "short" else 1)], first)

    async def _send_blob(self, status: int, headers: Headers, data: bytes, first: int = 0) -> None:
        """Send what begins at a blob's byte `first`."""
        faults = self._faults
        await self._head(status, [("Content-Type", "application/octet-stream"), *headers], len(data))
        if self._method == "HEAD":
            return
        cut = faults.truncate if faults.truncate is not None and faults.truncations != 0 else None
        if cut is not None and cut < len(data):
            faults.truncations -= 1
            await self._stream.send_all(data[:cut])
            raise _Hangup
        step = faults.trickle_bytes if faults.trickle else _CHUNK * 4
        for at in range(0, len(data), step):
            while faults.stop_at is not None and first + at + step > faults.stop_at:  # noqa: ASYNC110 - a switch
                await trio.sleep(0.01)
            await self._stream.send_all(data[at : at + step])
            if faults.trickle:
                await trio.sleep(faults.trickle)

    async def _error(self, status: int, code: str, message: str, headers: Headers | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        await self._send(status, [("Content-Type", "application/json"), *(headers or [])], body)

    async def _send(self, status: int, headers: Headers | None = None, body: bytes = b"") -> None:
        await self._head(status, headers or [], len(body))
        if body and self._method != "HEAD":
            await self._stream.send_all(body)

    async def _head(self, status: int, headers: Headers, length: int) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Fault')}"]
        lines += [f"Content-Length: {length}"] if status != 204 else []
        lines += [f"{name}: {value}" for name, value in headers]
        await self._stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def _spoilt(data: bytes) -> bytes:
    """As long as before, but the last byte is another one."""
    return data[:-1] + (b" " if data[-1:] != b" " else b"\n")
