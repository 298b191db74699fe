"""Requests over pooled connections, one request at a time: no redirects, no logins, no decoding here.

httpcore2 is used without httpx2 on top: redirects and Authorization are handled by hand anyway, blobs are wanted raw,
and the thinner layer takes half the processor time. One client belongs to one trio run, and is closed at its end.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import unquote, urlsplit

import httpcore2
import trio

from scow.api import Invalid

from ._endpoints import Rules
from ._net import Backend
from ._proxy import proxy_for
from ._retry import Policy
from ._settings import TlsFiles

_USER_AGENT: Final = "scow"
#: How long an idle connection is kept: layers follow one another at once, the next pull may not.
_KEEP_SECONDS: Final = 30.0
_CONNECTIONS_MAX: Final = 64
#: Requests that say how long their body is although there is none (RFC 9110, 8.6).
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PROXY_PORTS: Final = {"http": 80, "https": 443}


class NoAnswer(Exception):
    """The other side could not be asked, or stopped in the middle. `again`: the same may work a moment later."""

    def __init__(self, words: str, *, again: bool, spoken: bool) -> None:
        super().__init__(words)
        self.again = again
        #: Whether a connection with this scheme came about at all.
        self.spoken = spoken


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body of `size` bytes that comes in pieces, and may be sent once more after a login."""

    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


class Answer:
    """A response whose body hasn't been read yet. To be closed."""

    def __init__(self, response: httpcore2.Response, url: str, patience: float) -> None:
        self._response = response
        self._patience = patience
        self.url = url
        self.status: int = response.status
        self._headers = [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self._headers if key == name), None)

    def headers(self, name: str) -> list[str]:
        """All headers of that (lower-case) name."""
        return [value for key, value in self._headers if key == name]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, not decoded. To be closed (`aclosing`). Raises NoAnswer when it is cut short."""
        # httpcore2 promises an async iterable; what it makes is a generator, and wants to be closed like one.
        stream = cast("AsyncGenerator[bytes, None]", aiter(cast("AsyncIterable[bytes]", self._response.stream)))
        try:
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    yield chunk
        except _FAILURES as error:
            failure = _no_answer(error)
            failure.spoken = True
            raise failure from None

    async def read(self, limit: int) -> bytes:
        """The whole body, or its first `limit` + 1 bytes when it is longer than `limit`. Raises NoAnswer.

        For documents: it must be there in a bounded time, however steadily it trickles.
        """
        parts, size = [], 0
        with trio.move_on_after(self._patience) as scope:
            async with aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    parts.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        break
        if scope.cancelled_caught:
            raise NoAnswer("no whole answer in time", again=True, spoken=True)
        return b"".join(parts)[: limit + 1]

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body wasn't read to its end."""
        await self._response.aclose()


_FAILURES = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError)


def _no_answer(error: Exception) -> NoAnswer:
    words = str(error) or "the connection was closed"
    if isinstance(error, httpcore2.ConnectTimeout):
        return NoAnswer("no connection in time", again=False, spoken=False)
    if isinstance(error, httpcore2.ConnectError):
        return NoAnswer(words, again=False, spoken=False)
    if isinstance(error, httpcore2.TimeoutException):
        return NoAnswer("no answer in time", again=True, spoken=True)
    if isinstance(error, httpcore2.ProxyError):
        return NoAnswer(f"the proxy refuses: {words[:100]}", again=False, spoken=True)
    if isinstance(error, httpcore2.NetworkError):
        return NoAnswer(words, again=True, spoken=True)
    # h11's words for a peer that closes early or doesn't speak HTTP are about its own states: say it plainly.
    # A server with TLS may end a connection without it just like this.
    return NoAnswer("the connection was closed too early, or this is no HTTP", again=True, spoken=False)


class Client:
    """Connections by what they need: none, a checked certificate, an unchecked one; each straight or by proxy."""

    def __init__(self, rules: Rules, policy: Policy) -> None:
        self._rules = rules
        self._pools: dict[tuple[str, TlsFiles, str | None], httpcore2.AsyncConnectionPool] = {}
        self._patience = policy.connect + policy.idle
        self._timeouts = {"connect": policy.connect, "read": policy.idle, "write": policy.idle, "pool": None}

    async def send(
        self, method: str, url: str, host: str, headers: Iterable[tuple[str, str]], body: bytes | Body = b""
    ) -> Answer:
        """Ask `url`, whose host and port are `host`; the answer has any status. Raises NoAnswer."""
        lines = [("Host", host), ("User-Agent", _USER_AGENT), ("Accept-Encoding", "identity"), *headers]
        size = body.size if isinstance(body, Body) else len(body)
        if size or method in _WITH_BODY:
            lines.append(("Content-Length", str(size)))
        try:
            # The idle limit alone would wait for ever for headers that come byte by byte.
            with trio.fail_after(self._patience) as scope:
                content = self._patient(scope, body) if isinstance(body, Body) else body or None
                request = httpcore2.Request(
                    method, url, headers=lines, content=content, extensions={"timeout": self._timeouts}
                )
                response = await self._pool(url, host).handle_async_request(request)
        except trio.TooSlowError:
            raise NoAnswer("no answer in time", again=True, spoken=True) from None
        except _FAILURES as error:
            raise _no_answer(error) from None
        return Answer(response, url, self._patience)

    async def _patient(self, scope: trio.CancelScope, body: Body) -> AsyncGenerator[bytes, None]:
        """A body that may take as long as it likes, if only it moves."""
        async for piece in body.pieces():
            scope.deadline = trio.current_time() + self._patience
            yield piece
        scope.deadline = trio.current_time() + self._patience

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    def _pool(self, url: str, host: str) -> httpcore2.AsyncConnectionPool:
        kind = "plain"
        if url.startswith("https:"):
            kind = "tls" if self._rules.certificate_checked(host) else "unchecked"
        key = (kind, self._rules.tls_files(host) if kind != "plain" else TlsFiles(), proxy_for(url))
        if key not in self._pools:
            self._pools[key] = httpcore2.AsyncConnectionPool(
                ssl_context=_context(kind, key[1]),
                proxy=_proxy(key[2]),
                max_connections=_CONNECTIONS_MAX,
                keepalive_expiry=_KEEP_SECONDS,
                network_backend=Backend(),
            )
        return self._pools[key]


def _context(kind: str, files: TlsFiles) -> ssl.SSLContext:
    """A context for one kind of pool. Raises Invalid, naming the file that can't be used."""
    context = _plain_context(kind)
    try:
        if files.ca and kind == "tls":
            context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"can't read the authorities in {files.ca}: {_reason(error)}", hint="a PEM file") from None
    try:
        if files.cert:
            # A key with a password would ask for it on the terminal, wherever that is.
            context.load_cert_chain(files.cert, files.key or None, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Invalid(
            f"can't use the client certificate {files.cert}: {_reason(error)}",
            hint="cert and key are PEM files, the key without a password",
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("its key has a password")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not in PEM format").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _plain_context(kind: str) -> ssl.SSLContext:
    """A context without the user's files; the authorities are read only where they are needed (20 ms)."""
    if kind == "tls":
        # The system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.
        try:
            context = httpcore2.default_ssl_context()
        except OSError as error:
            raise Invalid(
                f"can't read the certificates of the authorities: {error.strerror or error}",
                hint="see SSL_CERT_FILE and SSL_CERT_DIR",
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # On by default since Python 3.13: it refuses private authorities that docker, and scow on 3.12, get on with.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if kind == "unchecked":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _proxy(url: str | None) -> httpcore2.Proxy | None:
    """Raises Invalid for a proxy that can't be used: going past one that was asked for would be worse."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        # Looked up first: any other scheme (SOCKS would need another package) is a KeyError, with a port or without.
        usual = _PROXY_PORTS[parts.scheme]
        host, port = parts.hostname, parts.port or usual
    except (ValueError, KeyError):
        host, port = None, 0
    if not host:
        # The URL may hold a password: it isn't repeated.
        raise Invalid("the proxy in the environment is not an http or https URL", hint="see https_proxy and no_proxy")
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore2.Proxy(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}", auth=auth)
