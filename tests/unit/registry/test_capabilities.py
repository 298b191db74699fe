"""What mirrors are asked for, and the files that a registry's TLS needs."""

from __future__ import annotations

import pytest

from scow.api import Invalid, Platform, parse_named
from scow.testing.registry import Registry, serve
from scow_plugins.registry._endpoints import Rules
from scow_plugins.registry._settings import TlsFiles, read_settings

HERE = Platform("linux", "amd64")


def rules(**table: object) -> Rules:
    return Rules(read_settings({"registries": {"r.example": table}}))


def test_a_mirror_is_asked_for_what_it_can() -> None:
    found = rules(mirrors=["https://a", {"url": "https://b", "capabilities": ["pull"]}, {"url": "https://c", "capabilities": ["push"]}])  # fmt: skip  # noqa: E501
    assert [e.host for e in found.endpoints("r.example", "pull")] == ["a", "b", "r.example"]
    assert [e.host for e in found.endpoints("r.example", "resolve")] == ["a", "r.example"]
    assert [e.host for e in found.endpoints("r.example", "push")] == ["c", "r.example"]


@pytest.mark.parametrize(
    "table",
    [
        {"mirrors": [{"url": "https://a", "capabilities": ["fly"]}]},
        {"mirrors": [{"url": "https://a", "capabilities": []}]},
        {"mirrors": [{"capabilities": ["pull"]}]},
        {"mirrors": [{"url": "https://a", "other": 1}]},
        {"ca": "relative.pem"},
        {"key": "/k.pem"},
    ],
)
def test_what_is_not_right_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(Invalid, match=r"r\.example"):
        rules(**table)


def test_files_belong_to_the_host() -> None:
    found = rules(ca="/ca", cert="/cert", key="/key")
    assert found.tls_files("r.example") == TlsFiles("/ca", "/cert", "/key")
    assert found.tls_files("other") == TlsFiles()


async def test_a_tag_is_not_asked_of_a_mirror_that_only_has_blobs(puller, sink_for) -> None:
    mirror, origin = Registry(), Registry()
    image = origin.add_image("a")
    mirror.add_image("a")
    async with serve(mirror), serve(origin):
        table = {origin.host: {"mirrors": [{"url": mirror.url, "capabilities": ["pull"]}]}}
        pull = puller(table)
        found = await pull.resolve(parse_named(f"{origin.host}/a"), HERE)
        sink = sink_for(image.layers[0])
        await pull.fetch(found.source.location, sink.descriptor, sink)
        assert not mirror.asked("/manifests/")
        assert mirror.asked("/blobs/")
        assert not origin.asked("/blobs/")
