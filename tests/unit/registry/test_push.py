"""Blobs into a registry: what is sent, what isn't, and what goes wrong on the way."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager

import pytest

from scow.api import Corrupt, Denied, Descriptor, Digest, Document, NotFound, Platform, Unavailable, parse_named
from scow.testing.registry import Faults, Registry, serve
from scow_plugins.registry import _push
from scow_plugins.registry._credentials import Credentials

DATA = bytes(range(256)) * 40
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


@asynccontextmanager
async def pushing(puller, registry: Registry, path: str = "a/b"):
    async with serve(registry), puller().publish(parse_named(f"{registry.host}/{path}:1")) as place:
        yield place


async def put(place, *origins: str, data: bytes = DATA, blob: Descriptor = BLOB) -> tuple[str, list[int]]:
    told: list[int] = []
    return await place.blob(blob, lambda: io.BytesIO(data), origins, told.append), told


def methods(registry: Registry) -> list[str]:
    return [request.method for request in registry.requests if "/blobs/" in request.path]


async def test_a_blob_goes_in_one_piece(puller):
    async with pushing(puller, registry := Registry()) as place:
        came, told = await put(place)
    assert (came, told[-1]) == ("pushed", len(DATA))
    assert registry.blobs[str(BLOB.digest)] == DATA
    assert methods(registry) == ["HEAD", "POST", "PUT"]


async def test_what_is_there_is_not_sent(puller):
    registry = Registry()
    registry.add_blob(DATA)
    async with pushing(puller, registry) as place:
        assert (await put(place))[0] == "exists"
    assert methods(registry) == ["HEAD"]


async def test_an_empty_blob(puller):
    async with pushing(puller, registry := Registry()) as place:
        empty = Descriptor("a/b", Digest.of(b""), 0)
        assert (await put(place, data=b"", blob=empty))[0] == "pushed"
    assert registry.blobs[str(empty.digest)] == b""


@pytest.fixture
def hidden_head(monkeypatch):
    """The test registry has one store for all repositories: let nothing be found before it is mounted."""

    async def no(self, descriptor):
        return False

    monkeypatch.setattr(_push.Pusher, "_has", no)


async def test_a_blob_of_another_repository_is_mounted(puller, hidden_head):
    registry = Registry()
    registry.add_blob(DATA)
    async with pushing(puller, registry) as place:
        assert (await put(place, f"{registry.host}/other"))[0] == "mounted"
    (request,) = registry.asked("/uploads/")
    assert dict(request.query) == {"mount": str(BLOB.digest), "from": "other"}


@pytest.mark.parametrize("origin", ["elsewhere.example/other", "{host}/a/b"])
async def test_nothing_is_mounted_from_elsewhere_or_itself(puller, hidden_head, origin):
    registry = Registry()
    registry.add_blob(DATA)
    async with pushing(puller, registry) as place:
        assert (await put(place, origin.format(host=registry.host)))[0] == "pushed"
    assert not registry.asked("/uploads/")[0].query


async def test_a_refused_mount_is_an_upload(puller, hidden_head):
    registry = Registry(Faults(no_mounts=True))
    registry.add_blob(DATA)
    async with pushing(puller, registry) as place:
        assert (await put(place, f"{registry.host}/other"))[0] == "pushed"


class TestPieces:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(_push, "CHUNK", 4096)

    async def test_a_large_blob_goes_in_pieces(self, puller):
        async with pushing(puller, registry := Registry()) as place:
            await put(place)
        assert registry.blobs[str(BLOB.digest)] == DATA
        assert methods(registry) == ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
        ranges = [request.headers["content-range"] for request in registry.requests if request.method == "PATCH"]
        assert ranges == ["0-4095", "4096-8191", "8192-10239"]

    async def test_a_broken_piece_goes_on_where_it_stopped(self, puller):
        async with pushing(puller, registry := Registry(Faults(broken_patches=1))) as place:
            await put(place)
        assert registry.blobs[str(BLOB.digest)] == DATA
        ranges = [request.headers["content-range"] for request in registry.requests if request.method == "PATCH"]
        assert ranges == ["0-4095", "2048-6143", "6144-10239"]

    @pytest.mark.parametrize("status", [405, 416, 400])
    async def test_a_registry_without_pieces_gets_it_whole(self, puller, status):
        async with pushing(puller, registry := Registry(Faults(patch_status=status))) as place:
            await put(place)
        assert registry.blobs[str(BLOB.digest)] == DATA
        assert methods(registry)[-2:] == ["POST", "PUT"]


async def test_errors_and_limits_are_tried_again(puller):
    async with pushing(puller, registry := Registry()) as place:
        registry.faults.errors = 1
        await put(place)
        registry.faults.too_many = 1
        await place.manifest(_document(), parse_named(f"{registry.host}/a/b:1"))
    assert registry.blobs[str(BLOB.digest)] == DATA


async def test_a_limit_that_stays_is_told_with_its_numbers(puller):
    async with pushing(puller, registry := Registry()) as place:
        registry.faults.too_many = -1
        with pytest.raises(Unavailable, match=r"the limit is 100 in 6 h and 0 are left"):
            await put(place)


async def test_a_damaged_blob_is_refused(puller):
    async with pushing(puller, Registry()) as place:
        with pytest.raises(Unavailable, match="DIGEST_INVALID"):
            await put(place, data=DATA[:-1] + b"?")
        with pytest.raises(Corrupt, match="shorter"):
            await put(place, data=DATA[:-1])


def _document(**more) -> Document:
    import json

    shape = {"digest": str(BLOB.digest), "size": len(DATA), "mediaType": "x/y"}
    data = json.dumps({"schemaVersion": 2, "config": shape, "layers": [], **more}).encode()
    return Document(
        Descriptor("application/vnd.docker.distribution.manifest.v2+json", Digest.of(data), len(data)), data
    )


async def test_a_manifest_keeps_its_bytes_and_type(puller):
    async with pushing(puller, registry := Registry()) as place:
        await put(place)
        document = _document()
        await place.manifest(document, parse_named(f"{registry.host}/a/b:1"))
        await place.manifest(document, None)
    assert registry.manifests["a/b", "1"] == (document.descriptor.media_type, document.data)
    assert registry.asked("/manifests/")[1].path.endswith(str(document.descriptor.digest))


async def test_a_manifest_before_its_blobs_is_refused(puller):
    async with pushing(puller, registry := Registry()) as place:
        with pytest.raises(Unavailable, match="MANIFEST_BLOB_UNKNOWN"):
            await place.manifest(_document(), parse_named(f"{registry.host}/a/b:1"))


async def test_one_token_for_reading_and_writing(puller):
    registry = Registry(Faults(auth="bearer"))
    async with pushing(puller, registry) as place:
        await put(place)
    scopes = [dict(request.query)["scope"] for request in registry.asked("/token")]
    assert scopes[-1] == "repository:a/b:pull,push"
    assert len(scopes) == 1


async def test_who_may_not_write_is_told(puller):
    registry = Registry(Faults(auth="basic", users={"me": "secret"}))
    async with serve(registry):
        with pytest.raises(Denied, match="denies access to a/b") as error:
            async with puller().publish(parse_named(f"{registry.host}/a/b:1")):
                pass
    assert f"scow login {registry.host}" in (error.value.hint or "")


async def test_a_token_that_ends_in_mid_push(puller):
    registry = Registry(Faults(auth="bearer", token_uses=2))
    async with pushing(puller, registry) as place:
        await put(place)
    assert registry.blobs[str(BLOB.digest)] == DATA


async def test_tags(puller):
    registry = Registry()
    registry.add_image("a/b", "1")
    registry.add_image("a/b", "2")
    async with serve(registry):
        assert await puller().tags(parse_named(f"{registry.host}/a/b")) == ("1", "2")


async def test_a_registry_without_search_says_so(puller):
    async with serve(registry := Registry()):
        with pytest.raises(NotFound, match="search for 'x'"):
            await puller().search(f"{registry.host}/x", 5)


class TestLogin:
    @pytest.mark.parametrize("auth", ["basic", "bearer"])
    async def test_a_good_login_is_kept_and_used(self, puller, docker_config, auth):
        registry = Registry(Faults(auth=auth, users={"me": "secret"}))
        registry.add_image("a")
        async with serve(registry):
            where = await puller().login(registry.host, "me", "secret")
            assert where == str(docker_config / "config.json")
            assert (docker_config / "config.json").stat().st_mode & 0o777 == 0o600
            await puller().resolve(parse_named(f"{registry.host}/a"), Platform.host())

    @pytest.mark.parametrize("auth", ["basic", "bearer"])
    async def test_a_bad_one_is_not(self, puller, docker_config, auth):
        registry = Registry(Faults(auth=auth, users={"me": "secret"}))
        async with serve(registry):
            with pytest.raises(Denied, match=r"incorrect username|authentication required"):
                await puller().login(registry.host, "me", "wrong")
        assert not (docker_config / "config.json").exists()

    async def test_nobody_there(self, puller):
        with pytest.raises(Unavailable, match=r"login to 127\.0\.0\.1:1 failed"):
            await puller().login("127.0.0.1:1", "me", "x")


class TestKeeping:
    async def test_what_is_not_ours_stays(self, docker_config):
        import json

        from scow_plugins.registry._accounts import forget_login, keep_login

        path = docker_config / "config.json"
        path.write_text(
            '{"HttpHeaders": {"a": "b"}, "auths": {"other": {"auth": "eDp5"}, "https://h.example/v1/": {}}}'
        )
        await keep_login("h.example", Credentials("me", "secret"))
        document = json.loads(path.read_text())
        assert document["HttpHeaders"] == {"a": "b"}
        assert set(document["auths"]) == {"other", "h.example"}
        assert await forget_login("h.example")
        assert not await forget_login("h.example")
        assert set(json.loads(path.read_text())["auths"]) == {"other"}

    async def test_a_helper_keeps_and_forgets(self, docker_config, tmp_path, monkeypatch):
        import json
        import os

        from scow_plugins.registry._accounts import forget_login, keep_login

        program = tmp_path / "docker-credential-fake"
        program.write_text(f'#!/bin/sh\ncat > {tmp_path}/"$1"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        (docker_config / "config.json").write_text('{"credsStore": "fake"}')
        assert await keep_login("docker.io", Credentials("me", "secret")) == "docker-credential-fake"
        hub = "https://index.docker.io/v1/"
        assert json.loads((tmp_path / "store").read_text()) == {
            "ServerURL": hub,
            "Username": "me",
            "Secret": "secret",
        }
        assert "secret" not in (docker_config / "config.json").read_text()
        assert await forget_login("docker.io")
        assert (tmp_path / "erase").read_text() == hub


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
async def test_a_registry_that_answers_no_head(puller, status):
    """Nobody knows whether the blob is there, so it is sent; what else is wrong is told by the upload."""
    registry = Registry()
    registry.add_blob(DATA)
    registry.faults.blob_head = status
    async with pushing(puller, registry) as place:
        assert (await put(place))[0] == "pushed"
