"""TLS: certificates are checked unless the registry is named insecure, and nothing falls back to plain HTTP unasked."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from scow.api import Invalid, Platform, Unavailable, parse_named
from scow.testing.registry import Registry, serve

AMD64 = Platform("linux", "amd64")

if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key behind it."""
    directory = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=scow test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(directory / "key"), "-out", str(directory / "cert")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return directory


@asynccontextmanager
async def tls(registry: Registry, certificate: Path) -> AsyncIterator[str]:
    """The registry behind TLS; gives host:port. Bytes are carried through as they are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    port = int(registry.host.rpartition(":")[2])

    async def carry(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(65536):
                await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await target.aclose()

    async def handle(outside: trio.abc.Stream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as inside, trio.open_nursery() as nursery:
            nursery.start_soon(carry, outside, inside)
            await carry(inside, outside)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield f"127.0.0.1:{listeners[0].transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_ssl_cert_file_is_honoured(puller, sink_for, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert"))
    registry = Registry()
    image = registry.add_image("a", layers=[{"a": b"x" * 1_000_000}], compression="none")
    async with serve(registry), tls(registry, certificate) as host:
        pull = puller()
        found = await pull.resolve(parse_named(f"{host}/a"), AMD64)
        sink = sink_for(image.layers[0])
        await pull.fetch(found.source.location, sink.descriptor, sink)
    assert bytes(sink.data) == registry.blobs[image.layers[0]["digest"]]
    assert sink.writes < 12


async def test_authorities_that_are_not_there(puller, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
    with pytest.raises(Invalid, match="can't read the certificates of the authorities: No such file"):
        await puller().resolve(parse_named("registry.invalid/a"), AMD64)


async def test_an_unknown_authority_is_refused_by_name(puller, certificate):
    registry = Registry()
    registry.add_image("a")
    async with serve(registry), tls(registry, certificate) as host:
        with pytest.raises(Unavailable, match="its certificate is not valid"):
            await puller().resolve(parse_named(f"{host}/a"), AMD64)
    assert registry.requests == []


async def test_an_insecure_registry_may_have_any_certificate(puller, certificate):
    registry = Registry()
    registry.add_image("a")
    async with serve(registry), tls(registry, certificate) as host:
        await puller({host: {"insecure": True}}).resolve(parse_named(f"{host}/a"), AMD64)
    assert len(registry.requests) == 1
