"""What resolve says when there is no such image, no such registry, or a registry that isn't honest."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import pytest
import trio

from scow.api import (
    OCI_INDEX,
    OCI_MANIFEST,
    Corrupt,
    Denied,
    Invalid,
    NotFound,
    Platform,
    Unavailable,
    Unsupported,
    parse_named,
)
from scow.testing.registry import Registry, serve
from scow_plugins.registry._retry import Policy

AMD64 = Platform("linux", "amd64")


@pytest.fixture
def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_no_such_tag(puller):
    async with serve() as registry:
        with pytest.raises(NotFound) as error:
            await puller().resolve(parse_named(f"{registry.host}/nginx:nope"), AMD64)
        assert error.value.message == f"image {registry.host}/nginx:nope not found in {registry.host}"
        assert len(registry.requests) == 1


async def test_nobody_listens(puller, closed_port):
    start = time.monotonic()
    with pytest.raises(Unavailable) as error:
        await puller().resolve(parse_named(f"127.0.0.1:{closed_port}/a"), AMD64)
    assert f"127.0.0.1:{closed_port}: connection refused" in error.value.message
    assert time.monotonic() - start < 1


class NoNames(trio.abc.HostnameResolver):
    """No test asks the machine's name servers."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr, flags):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_name_that_does_not_resolve(puller):
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(Unavailable, match=r"nowhere\.invalid: the name can't be resolved"):
        await puller().resolve(parse_named("nowhere.invalid/a"), AMD64)


async def test_a_name_that_can_not_exist(puller):
    with pytest.raises(Unavailable, match="this can't be a host's name"):
        await puller().resolve(parse_named("a" * 70 + ".invalid/a"), AMD64)


@pytest.mark.parametrize("proxy", ["socks5://me:sesame@127.0.0.1:1", "http://", "http://a:b:c"])
async def test_a_proxy_that_can_not_be_used(puller, monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(Invalid, match="the proxy in the environment") as error:
        await puller().resolve(parse_named("registry.invalid/a"), AMD64)
    assert "sesame" not in error.value.message


async def test_a_proxy_is_asked(puller, monkeypatch):
    """A proxy that refuses is the error; the host's name is never looked up here."""
    registry = Registry()
    async with serve(registry):
        monkeypatch.setenv("https_proxy", f"http://me:sesame@{registry.host}")
        with pytest.raises(Unavailable, match="the proxy refuses: 404") as error:
            await puller().resolve(parse_named("registry.invalid/a"), AMD64)
    assert [request.method for request in registry.requests] == ["CONNECT"]
    assert registry.requests[0].headers["proxy-authorization"].startswith("Basic ")
    assert "sesame" not in error.value.message


async def test_silence(puller):
    registry = Registry()
    registry.faults.silent = True
    async with serve(registry):
        pull = puller(policy=Policy(rounds=2, first_pause=0.01, idle=0.1))
        with pytest.raises(Unavailable, match="no answer in time"):
            await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert len(registry.requests) == 2


async def test_a_server_error_passes(puller):
    registry = Registry()
    image = registry.add_image("a")
    registry.faults.errors = 2
    async with serve(registry):
        found = await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert str(found.manifest.descriptor.digest) == image.digest


async def test_a_server_error_stays(puller):
    registry = Registry()
    registry.faults.errors = -1
    async with serve(registry):
        with pytest.raises(Unavailable, match=r"status 500 \(UNKNOWN: something broke\)"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert len(registry.requests) == 4


async def test_too_many_requests_are_waited_for(puller):
    registry = Registry()
    registry.add_image("a")
    registry.faults.too_many, registry.faults.retry_after = 1, "0"
    async with serve(registry):
        await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert len(registry.requests) == 2


async def test_too_many_requests_are_reported_when_the_wait_is_long(puller):
    registry = Registry()
    registry.faults.too_many, registry.faults.retry_after = -1, "3600"
    async with serve(registry):
        with pytest.raises(Unavailable, match="too many requests, the limit is 100 in 6 h and 0 are left") as error:
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert error.value.retry_after == 3600
    assert "scow login" in (error.value.hint or "")
    assert len(registry.requests) == 1


@pytest.mark.parametrize("by_digest", [True, False])
async def test_other_bytes_than_the_digest(puller, by_digest):
    registry = Registry()
    image = registry.add_image("a")
    registry.faults.corrupt_manifests = True
    async with serve(registry):
        name = f"{registry.host}/a@{image.digest}" if by_digest else f"{registry.host}/a"
        with pytest.raises(Corrupt, match=f"sends a manifest with the digest .* as {image.digest}"):
            await puller().resolve(parse_named(name), AMD64)


async def test_a_digest_header_that_lies(puller):
    registry = Registry()
    registry.add_image("a")
    registry.faults.claimed_digest = "sha256:" + "0" * 64
    async with serve(registry):
        with pytest.raises(Corrupt, match="as sha256:0000"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


@pytest.mark.parametrize("claim", ["", "nonsense", "blake3:" + "0" * 64])
async def test_a_digest_header_that_says_nothing(puller, claim):
    registry = Registry()
    image = registry.add_image("a")
    registry.faults.claimed_digest = claim
    async with serve(registry):
        found = await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert str(found.manifest.descriptor.digest) == image.digest


async def test_a_static_servers_content_type_will_do(puller):
    registry = Registry()
    registry.add_image("a")
    registry.faults.content_type = "text/plain; charset=utf-8"
    async with serve(registry):
        found = await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert found.manifest.descriptor.media_type == OCI_MANIFEST


async def test_an_index_that_is_announced_as_an_image(puller):
    registry = Registry()
    image = registry.add_image("a", None)
    registry.add_index("a", "latest", [(AMD64, image.manifest)])
    registry.faults.content_type = OCI_MANIFEST
    async with serve(registry):
        with pytest.raises(Corrupt, match="not of the type"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_schema_1(puller):
    registry = Registry()
    registry.add_schema1("a", "latest")
    async with serve(registry):
        with pytest.raises(Unsupported, match=r"a:latest: .*schema 1"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"\xff\xfe", b'{"layers": 5}', b"[" * 1000])
async def test_no_manifest_at_all(puller, body):
    registry = Registry()
    registry.add_manifest("a", "latest", OCI_MANIFEST, body)
    async with serve(registry):
        with pytest.raises(Corrupt, match="a:latest"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_an_artifact(puller):
    registry = Registry()
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": registry.add_blob(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "artifactType": "application/x-chart", "config": config, "layers": []}
    registry.add_manifest("a", "latest", OCI_MANIFEST, document)
    async with serve(registry):
        with pytest.raises(Unsupported, match="artifact of type application/x-chart"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_a_huge_manifest_is_not_read_to_its_end(puller):
    registry = Registry()
    registry.add_manifest("a", "latest", OCI_MANIFEST, b" " * (5 * 1024 * 1024))
    async with serve(registry):
        with pytest.raises(Corrupt, match="larger than 4194304 bytes"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_an_index_whose_image_is_gone(puller):
    registry = Registry()
    image = registry.add_image("a", None)
    registry.add_index("a", "latest", [(AMD64, image.manifest)])
    del registry.manifests["a", image.digest]
    async with serve(registry):
        with pytest.raises(NotFound) as error:
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert "the image's index lists" in (error.value.hint or "")


async def test_an_index_that_is_wrong_about_a_size(puller):
    registry = Registry()
    image = registry.add_image("a", None)
    registry.add_index("a", "latest", [(AMD64, {**image.manifest, "size": 5})])
    async with serve(registry):
        with pytest.raises(Corrupt, match="another size"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_an_index_of_attestations_only(puller):
    registry = Registry()
    entry = {**registry.add_image("a", None).manifest, "platform": {"os": "unknown", "architecture": "unknown"}}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    registry.add_manifest("a", "latest", OCI_INDEX, json.dumps(document).encode())
    async with serve(registry):
        with pytest.raises(Unsupported) as error:
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert error.value.hint == "its index holds no image at all"


@pytest.mark.parametrize(
    "target", ["http://10.255.255.1/x", "ftp://127.0.0.1/", "http://[", "http://127.0.0.1:99999/", ""]
)
async def test_redirects_to_nowhere_are_not_followed(puller, target):
    registry = Registry()
    registry.faults.redirect_all = target
    async with serve(registry):
        with pytest.raises(Unavailable, match="redirects to"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_a_redirect_loop_ends(puller):
    registry = Registry()
    async with serve(registry):
        registry.faults.redirect_all = f"{registry.url}/v2/a/manifests/latest"
        with pytest.raises(Unavailable, match="redirects more than 8 times"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert len(registry.requests) == 9


async def test_a_refusal_without_a_way_in(puller):
    registry = Registry()
    registry.faults.auth = "basic"
    async with serve(registry):
        with pytest.raises(
            Denied, match=r"denies access: status 401 \(UNAUTHORIZED: authentication required\)"
        ) as error:
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert error.value.hint == f"it may not exist, or need a login: scow login {registry.host}"


@pytest.mark.parametrize(("end", "words"), [(b"\r\n", "this is no HTTP"), (b"", "no answer in time")])
async def test_something_that_speaks_no_http(puller, end, words):
    async def babble(stream):
        await stream.send_all(b"SSH-2.0-OpenSSH_9\r\n" + end)
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x")
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, babble, 0)
        port = listeners[0].socket.getsockname()[1]
        pull = puller(policy=Policy(rounds=1, connect=0.1, idle=0.1))
        with pytest.raises(Unavailable, match=words):
            await pull.resolve(parse_named(f"127.0.0.1:{port}/a"), AMD64)
        nursery.cancel_scope.cancel()
