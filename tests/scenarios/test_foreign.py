"""Layers that may not be distributed: the manifest says where they lie, and only https will do."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scow.testing.layers import archive, file
from scow.testing.registry import Registry

from .conftest import Scow, require
from .test_hostile import busybox, served
from .test_locked import authority, signed

_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


@dataclass
class Elsewhere:
    """A web server with TLS on loopback, which has what is put into it."""

    authority: Path
    host: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"https://{self.host}{path}"


@contextmanager
def serving(server: tuple[Path, Path], by: Path) -> Iterator[Elsewhere]:
    place = Elsewhere(by)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place.asked.append((self.path, self.headers.get("Authorization")))
            data = place.files.get(self.path)
            if self.path in place.moved:
                self.send_response(302)
                self.send_header("Location", place.moved[self.path])
            else:
                self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        place.host = f"127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield place
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The launcher makes no difference here."""
    return bool(request.param)


@pytest.fixture
def place(scow: Scow, tmp_path: Path) -> Iterator[tuple[Scow, Registry, Elsewhere]]:
    """A registry that has all but one layer, which is elsewhere."""
    require("openssl", "busybox")
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    by = authority(certificates, "trusted")
    registry = Registry()
    with serving(signed(certificates, "elsewhere", by, "IP:127.0.0.1"), by[0]) as elsewhere, served(registry):
        scow.config.write_text(
            f'[registries."docker.io"]\nmirrors = ["{registry.url}"]\n[registries."{elsewhere.host}"]\nca = "{by[0]}"\n'
        )
        yield scow, registry, elsewhere


def foreign(registry: Registry, name: str, *urls: str) -> bytes:
    """An image whose upper layer isn't in the registry; gives that layer."""
    layer = archive(file("from/elsewhere", b"foreign\n"))
    registry.add_image(name, "latest", layers=[*busybox(), layer], config={"Env": ["PATH=/bin"]}, compression="none")
    document = json.loads(registry.manifests[name, "latest"][1])
    document["layers"][1] |= {"mediaType": _FOREIGN, "urls": list(urls)}
    registry.blobs.pop(document["layers"][1]["digest"])
    registry.add_manifest(name, "latest", document["mediaType"], document)
    return layer


def test_fetched_from_its_own_place(place: tuple[Scow, Registry, Elsewhere], tmp_path: Path) -> None:
    """The first URL that has it is good enough: one that is gone and one that leads further are no obstacle."""
    scow, registry, elsewhere = place
    name = f"{registry.host}/foreign/one"
    layer = foreign(
        registry,
        "foreign/one",
        "http://127.0.0.1:1/x",
        elsewhere.url("/gone"),
        elsewhere.url("/moved"),
        elsewhere.url("/x"),
    )
    elsewhere.files["/there"] = layer
    elsewhere.moved["/moved"] = elsewhere.url("/there")
    assert scow("run", "--rm", "--network", "none", name, "cat", "/from/elsewhere") == "foreign\n"
    assert elsewhere.asked == [("/gone", None), ("/moved", None), ("/there", None)]
    # Going out it is left where it is; coming in again it is fetched from there.
    scow("tag", name, f"{registry.host}/foreign/two:1")
    scow("push", "-q", f"{registry.host}/foreign/two:1")
    digest = json.loads(registry.manifests["foreign/two", "1"][1])["layers"][1]["digest"]
    assert digest not in registry.blobs
    scow("push", "-q", name, f"oci:{tmp_path}/out:x")
    assert not (tmp_path / "out" / "blobs" / "sha256" / digest.partition(":")[2]).exists()
    scow.fails("save", "-o", str(tmp_path / "out.tar"), name, code=1, says="lies elsewhere")
    assert not (tmp_path / "out.tar").exists()
    scow("rmi", "-f", name, f"{registry.host}/foreign/two:1")
    assert (
        scow("run", "--rm", "--network", "none", f"{registry.host}/foreign/two:1", "cat", "/from/elsewhere")
        == "foreign\n"
    )


def test_what_is_not_taken_from_there(place: tuple[Scow, Registry, Elsewhere]) -> None:
    """Other bytes, a way down to plain HTTP, a place that doesn't have it."""
    scow, registry, elsewhere = place
    layer = foreign(registry, "foreign/other", elsewhere.url("/other"))
    elsewhere.files["/other"] = layer[:-1] + b"x"
    scow.fails("pull", f"{registry.host}/foreign/other", code=1, says="digest")
    foreign(registry, "foreign/down", elsewhere.url("/down"))
    elsewhere.moved["/down"] = f"{registry.url}/v2/"
    scow.fails("pull", f"{registry.host}/foreign/down", code=1, says="which is not encrypted")
    foreign(registry, "foreign/gone", elsewhere.url("/gone"))
    errors = scow.fails("pull", f"{registry.host}/foreign/gone", code=1, says="127.0.0.1")
    assert "404" in errors
    assert scow("images", "-q") == ""
