"""TCP and TLS below httpcore2: trio streams that read in large pieces, and errors in words.

httpcore2 reads 64 KiB at a time; with 256 KiB a blob comes in with half the processor time (docs/design/registry.md).
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - every host's name goes through it; here a launcher loads it, once for all pulls
import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpcore2
import trio

READ_SIZE: Final = 256 * 1024


class Stream(httpcore2.AsyncNetworkStream):
    """A trio stream in httpcore2's interface."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], host: str) -> None:
        self._stream = stream
        self._host = host

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes; more than `max_bytes` on purpose, which its caller's parser doesn't mind."""
        with _words(httpcore2.ReadTimeout, httpcore2.ReadError):
            with trio.fail_after(_seconds(timeout)):
                return bytes(await self._stream.receive_some(max(max_bytes, READ_SIZE)))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of `buffer`."""
        if not buffer:
            return
        with _words(httpcore2.WriteTimeout, httpcore2.WriteError):
            with trio.fail_after(_seconds(timeout)):
                await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        """Close; what the other side still wanted to say is lost."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection with TLS on it."""
        assert isinstance(self._stream, trio.SocketStream)
        wrapped = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname or self._host, https_compatible=True
        )
        try:
            with _words(httpcore2.ConnectTimeout, httpcore2.ConnectError):
                with trio.fail_after(_seconds(timeout)):
                    await wrapped.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        return Stream(wrapped, self._host)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore2 asks: the TLS object (none: HTTP/2 isn't spoken), and whether an idle socket was closed."""
        if info == "is_readable":
            stream = self._stream
            plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            return plain.socket.fileno() < 0 or plain.socket.is_readable()
        return None


class Backend(httpcore2.AsyncNetworkBackend):
    """Opens connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` that answers (RFC 8305)."""
        with _words(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            with trio.fail_after(_seconds(timeout)):
                return Stream(await trio.open_tcp_stream(host, port, local_address=local_address), host)

    async def sleep(self, seconds: float) -> None:
        """httpcore2's pause between attempts of its own."""
        await trio.sleep(seconds)


def _seconds(timeout: float | None) -> float:
    return float("inf") if timeout is None else timeout


@contextmanager
def _words(slow: type[Exception], broken: type[Exception]) -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError:
        raise slow("no answer in time") from None
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise broken(describe(error)) from error
    except UnicodeError:
        # The host's name in DNS's form: a label is empty or longer than 63 characters.
        raise broken("this can't be a host's name") from None


def describe(error: BaseException) -> str:
    """A connection's error in a few words: the innermost cause says the most."""
    while error.__cause__ is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return describe(error.exceptions[0])
    if isinstance(error, socket.gaierror):
        return f"the name can't be resolved ({str(error.strerror).lower()})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "no TLS").lower().replace("_", " ")
        return f"TLS failed ({reason})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "the connection was closed"
