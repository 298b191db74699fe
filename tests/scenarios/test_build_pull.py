"""FROM and newer images: taken when there is one, asked for in vain with a warning, left alone when told so."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import images
from .conftest import Scow
from .test_build import build, context, launcher

__all__ = ["context", "launcher"]


@contextmanager
def forwarding(registry: str) -> Iterator[str]:
    """A registry that ends when the block does: it asks another one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {name: self.headers[name] for name in ("Accept", "Range") if name in self.headers}
            request = urllib.request.Request(f"http://{registry}{self.path}", headers=asked, method=self.command)
            try:
                answer = urllib.request.urlopen(request, timeout=10)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                self.send_response(answer.status)
                for name in ("Content-Type", "Content-Length", "Docker-Content-Digest", "Content-Range"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.read())

        do_HEAD = do_GET  # noqa: N815 - the name that the module looks for

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _publish(registry: str, place: Path, kind: str) -> None:
    (place / kind).mkdir()
    (place / kind / "file").write_text(kind)
    layout = images.write_layout(place / f"layout-{kind}", [images.layer_of(place / kind)], {"Labels": {"kind": kind}})
    images.push(layout, registry, "team/moving:1")


def test_a_newer_base_is_taken(pulled: Scow, registry: str, context: Path, tmp_path: Path) -> None:
    def kind(*flags: str) -> str:
        image = build(pulled, context, f"FROM {moving}\nLABEL own=1\n", "-q", *flags)
        return pulled("inspect", "-f", "{{.Config.Labels.kind}}", image).strip()

    _publish(registry, tmp_path, "old")
    with forwarding(registry) as front:
        moving = f"{front}/team/moving:1"
        assert kind() == "old"
        _publish(registry, tmp_path, "new")
        assert kind("--pull=false") == "old"
        assert kind() == "new"
        pulled("tag", "busybox", f"{front}/team/own:1")  # never out of that registry: nobody else's business
        (context / "Dockerfile").write_text(f"FROM {front}/team/own:1\nLABEL x=y\n")
        done = pulled.try_("build", str(context))
        assert done.returncode == 0
        assert b"looked up" not in done.stderr
    (context / "Dockerfile").write_text(f"FROM {moving}\nLABEL own=2\n")
    done = pulled.try_("build", str(context))
    assert done.returncode == 0, done.stderr.decode()
    assert f"{moving} couldn't be looked up, the local image is used: " in done.stderr.decode()
    done = pulled.try_("build", "--pull=false", str(context))
    assert done.returncode == 0
    assert b"looked up" not in done.stderr
    pulled.fails("build", "--pull", str(context), code=1, says="Dockerfile:1: ")


def test_another_platform_than_was_asked_for(pulled: Scow, context: Path) -> None:
    """As BuildKit: a name that is one image is taken, with a warning; it stays beside an error."""
    foreign = "linux/s390x"
    for step, code in (("LABEL a=b", 0), ("COPY nothing /", 1)):
        (context / "Dockerfile").write_text(f"FROM busybox\n{step}\n")
        done = pulled.try_("build", "--rm", "--force-rm=false", "--compress", "--platform", foreign, str(context))
        assert done.returncode == code, done.stderr.decode()
        assert "InvalidBaseImagePlatform: Base image busybox was pulled with platform" in done.stderr.decode()
        assert f'expected "{foreign}" for current build' in done.stderr.decode()
