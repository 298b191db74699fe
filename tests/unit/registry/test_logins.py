"""Who is told which secret, and how often tokens are asked for."""

from __future__ import annotations

import base64
import json

import pytest
import trio

from scow.api import Denied, Platform, Unavailable, parse_named
from scow.testing.registry import Faults, Registry, serve

AMD64 = Platform("linux", "amd64")
SECRET = "sesame-open"
BASIC = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()


@pytest.fixture
def login(docker_config):
    def login(host: str, **entry: str) -> None:
        entry = entry or {"username": "me", "password": SECRET}
        (docker_config / "config.json").write_text(json.dumps({"auths": {host: entry}}))

    return login


def secrets_seen(registry: Registry) -> set[str]:
    return {request.headers["authorization"] for request in registry.requests if "authorization" in request.headers}


async def test_anonymous_tokens_are_asked_for_once(puller, sink_for):
    registry = Registry(Faults(auth="bearer"))
    image = registry.add_image("library/a", layers=[{str(n): b"x"} for n in range(6)])
    async with serve(registry):
        pull = puller()
        found = await pull.resolve(parse_named(f"{registry.host}/library/a"), AMD64)
        async with trio.open_nursery() as nursery:
            for layer in image.layers:
                sink = sink_for(layer)
                nursery.start_soon(pull.fetch, found.source.location, sink.descriptor, sink)
    (request,) = registry.asked("/token")
    assert dict(request.query)["scope"] == "repository:library/a:pull"
    assert dict(request.query)["service"] == "scow test"
    assert len(registry.requests) == 1 + 1 + 1 + 6


async def test_a_token_that_ends_is_renewed_on_the_way(puller, sink_for):
    registry = Registry(Faults(auth="bearer", token_uses=2))
    image = registry.add_image("a", layers=[{str(n): b"x"} for n in range(6)])
    async with serve(registry):
        pull = puller()
        found = await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
        for layer in image.layers:
            sink = sink_for(layer)
            await pull.fetch(found.source.location, sink.descriptor, sink)
    assert len(registry.asked("/token")) == 4


async def test_a_token_is_renewed_before_its_end(puller, sink_for):
    registry = Registry(Faults(auth="bearer", expires_in=0.1))
    image = registry.add_image("a")
    async with serve(registry):
        pull = puller()
        await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
        await trio.sleep(0.1)
        sink = sink_for(image.layers[0])
        await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert [request.path.split("/")[-2] for request in registry.requests] == [
        "manifests", "", "manifests", "", "blobs",
    ]  # fmt: skip


async def test_many_at_once_renew_once(puller, sink_for):
    registry = Registry(Faults(auth="bearer"))
    image = registry.add_image("a", layers=[{str(n): b"x"} for n in range(8)])
    async with serve(registry):
        pull = puller()
        await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
        registry.tokens.clear()
        registry.tokens.update(dict.fromkeys(registry.tokens, 0))
        async with trio.open_nursery() as nursery:
            for layer in image.layers:
                sink = sink_for(layer)
                nursery.start_soon(pull.fetch, f"{registry.host}/a", sink.descriptor, sink)
    assert len(registry.asked("/token")) == 2


async def test_a_password_for_basic(puller, login):
    registry = Registry(Faults(auth="basic", users={"me": SECRET}))
    registry.add_image("a")
    async with serve(registry):
        login(registry.host)
        await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert [request.headers.get("authorization") for request in registry.requests] == [None, BASIC]


async def test_a_password_for_the_token_server_only(puller, login):
    registry = Registry(Faults(auth="bearer", users={"me": SECRET}))
    registry.add_image("a")
    async with serve(registry):
        login(registry.host)
        await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert [request.path for request in registry.requests if request.headers.get("authorization") == BASIC] == [
        "/token"
    ]


async def test_an_identity_token(puller, login):
    registry = Registry(Faults(auth="bearer", users={"x": "y"}, identity_token=SECRET))
    registry.add_image("a")
    async with serve(registry):
        login(registry.host, identitytoken=SECRET)
        await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    (request,) = registry.asked("/token")
    assert request.method == "POST"
    assert f"refresh_token={SECRET}".encode() in request.body


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_wrong_password_is_denied_and_not_shown(puller, login, auth):
    registry = Registry(Faults(auth=auth, users={"me": "another"}))
    registry.add_image("a")
    async with serve(registry):
        login(registry.host)
        with pytest.raises(Denied) as error:
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert SECRET not in str(error.value) + str(error.value.hint)
    assert BASIC not in str(error.value) + str(error.value.hint)
    assert "your login may be wrong or not be allowed" in (error.value.hint or "")
    assert len(registry.requests) == 2


async def test_a_missing_helper_is_the_hint(puller, docker_config):
    registry = Registry(Faults(auth="bearer", users={"me": SECRET}))
    (docker_config / "config.json").write_text('{"credsStore": "not-there"}')
    async with serve(registry):
        with pytest.raises(Denied) as error:
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert error.value.hint == "no login was sent: docker-credential-not-there: No such file or directory"


async def test_a_registry_that_wants_ever_new_logins(puller):
    registry = Registry(Faults(auth="bearer", token_uses=0))
    async with serve(registry):
        with pytest.raises(Denied):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert len(registry.requests) == 3


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_redirect_to_another_port_gets_no_login(puller, login, sink_for, auth):
    registry, storage = Registry(Faults(auth=auth, users={"me": SECRET})), Registry()
    image = registry.add_image("a", layers=[{"a": b"x" * 10_000}], compression="none")
    storage.blobs = registry.blobs
    async with serve(registry), serve(storage):
        login(registry.host)
        registry.faults.redirect = storage.url
        sink = sink_for(image.layers[0])
        sink.data += registry.blobs[str(sink.descriptor.digest)][:100]
        await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert len(storage.requests) == 1
    assert secrets_seen(storage) == set()
    assert storage.requests[0].headers["range"] == "bytes=100-"
    assert secrets_seen(registry) != set()


async def test_a_storage_that_asks_for_a_login_gets_none(puller, login, sink_for):
    registry, storage = Registry(), Registry(Faults(auth="basic", users={"me": SECRET}))
    image = registry.add_image("a")
    async with serve(registry), serve(storage):
        login(storage.host)
        registry.faults.redirect_all = f"{storage.url}/v2/a/manifests/latest"
        with pytest.raises(Unavailable, match=f"status 401 .* from {storage.host}"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert image.digest
    assert secrets_seen(storage) == set()


async def test_a_mirror_never_sees_the_registrys_login(puller, login):
    mirror, registry = (
        Registry(Faults(auth="basic", users={"me": SECRET})),
        Registry(Faults(auth="basic", users={"me": SECRET})),
    )
    image = registry.add_image("a")
    async with serve(mirror), serve(registry):
        login(registry.host)
        pull = puller({registry.host: {"mirrors": [mirror.url]}})
        found = await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert str(found.manifest.descriptor.digest) == image.digest
    assert secrets_seen(mirror) == set()
    assert secrets_seen(registry) == {BASIC}


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("http://10.0.0.1/token", "names the token server http://10.0.0.1, which is not encrypted"),
        ("file:///etc/shadow", "no URL"),
        ("https://", "no URL"),
        ("http://127.0.0.1@10.0.0.1/", "no URL"),
    ],
)
async def test_token_servers_that_are_not_asked(puller, realm, words):
    registry = Registry(Faults(auth="bearer", realm=realm))
    async with serve(registry):
        with pytest.raises(Unavailable, match=words):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_a_token_server_that_is_down(puller):
    registry = Registry(Faults(auth="bearer", realm="http://127.0.0.1:1/token"))
    async with serve(registry):
        with pytest.raises(Unavailable, match=r"its token server 127\.0\.0\.1:1: connection refused"):
            await puller().resolve(parse_named(f"{registry.host}/a"), AMD64)
