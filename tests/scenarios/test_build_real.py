"""scow build on what people build: Docker's own introduction, services in Python and Node, a program in C.

Their packages come from the registries that this machine reaches, by the settings that its pip and npm have. One engine
for all of them, as on anybody's machine: what two Dockerfiles begin with alike is built once.
"""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import Scow, engine_at, free_port, wait_port
from .test_build import titles

#: What each of the Dockerfiles begins with.
DEBIAN = """# syntax=docker/dockerfile:1
FROM debian:bookworm AS debian
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update
"""
NPM = "10.9.2"


@pytest.fixture(scope="module")
def shop(registry: str, debian: str, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scow]:
    """An engine whose docker.io is the registry with the small Debian."""
    yield from engine_at(tmp_path_factory.mktemp("shop"), True, registry)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def put(context: Path, **files: str) -> None:
    """Write files; in their names `__` is a slash and `_` a dot."""
    for name, text in files.items():
        path = context / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def build(scow: Scow, context: Path, *flags: str) -> tuple[list[str], list[str]]:
    """Build; gives the instructions that were done and those that came from the cache."""
    done = scow.try_("build", "--progress", "rawjson", *flags, str(context), timeout=300)
    assert done.returncode == 0, _said(done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith(b"{")]
    return titles(b"\n".join(lines))


def _said(events: bytes) -> str:
    """A failed build's output in plain text."""
    lines = events.decode().splitlines()
    read = [json.loads(line) if line.startswith("{") else {} for line in lines]
    told = b"".join(base64.b64decode(log["data"]) for each in read for log in each.get("logs", ())).decode(
        errors="replace"
    )
    return told[-4000:] + "\n".join(line for line in lines if not line.startswith("{"))


@contextmanager
def service(scow: Scow, image: str, port: int) -> Iterator[str]:
    """A container of an image with a port published; gives where its page is."""
    published = free_port()
    name = scow("run", "-d", "-p", f"127.0.0.1:{published}:{port}", image).strip()
    try:
        wait_port(published, seconds=30)
        yield f"http://127.0.0.1:{published}/"
    finally:
        scow("rm", "-f", name)


def page(url: str) -> str:
    """A page, once the service behind the port has begun."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except (ConnectionError, urllib.error.URLError):
            threading.Event().wait(0.1)
    raise AssertionError(f"nobody answers at {url}")


def authorities() -> Path:
    """The certificates that this machine believes: its registries may be behind an authority of its own."""
    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    path = Path(named or "/etc/ssl/certs/ca-certificates.crt")
    if not path.is_file():
        pytest.skip("this machine has no list of certificate authorities")
    return path


def reached(url: str, what: str) -> str:
    """An address that answers; skips where it doesn't."""
    try:
        urllib.request.urlopen(url, timeout=30, context=ssl.create_default_context(cafile=authorities())).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            pytest.skip(f"this machine doesn't reach {what}: {error}")
    except OSError as error:
        pytest.skip(f"this machine doesn't reach {what}: {error}")
    return url


@pytest.fixture(scope="module")
def package_index() -> str:
    """The Python package index that this machine's pip asks."""
    index = os.environ.get("PIP_INDEX_URL") or _said("pip", "config", "get", "global.index-url") or _pip_default()
    if not index:
        pytest.skip("this machine has no pip that tells its index")
    reached(index.rstrip("/") + "/flask/", "a Python package index")
    return index


def _pip_default() -> str:
    """What pip asks when nobody has told it otherwise: only its help says that."""
    found = re.search(r"--index-url <url>.*?\(default\s+(\S+?)\)", _said("pip", "install", "--help"), re.DOTALL)
    return found[1] if found else ""


def _said(program: str, *words: str) -> str:
    """A program's answer; "" from one that isn't there. pip may be another Python's than ours."""
    ways = (
        ([sys.executable, "-m", "pip"], ["pip3"], ["/usr/bin/python3", "-m", "pip"])
        if program == "pip"
        else ([program],)
    )
    for way in ways:
        try:
            done = subprocess.run([*way, *words], capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            continue
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def _npmrc() -> str:
    """What the user's settings of npm say, where npm itself isn't installed."""
    settings = Path.home() / ".npmrc"
    lines = settings.read_text().splitlines() if settings.is_file() else []
    return next((line.partition("=")[2].strip() for line in lines if line.split("=")[0].strip() == "registry"), "")


@pytest.fixture(scope="module")
def npm_registry() -> str:
    """The registry that this machine's npm asks; with a slash at its end."""
    url = os.environ.get("NPM_CONFIG_REGISTRY") or _said("npm", "config", "get", "registry") or _npmrc()
    if not url:
        pytest.skip("this machine has no npm that tells its registry")
    return reached(url.rstrip("/") + "/", "a Node package registry")


def test_dockers_introduction(shop: Scow, context: Path) -> None:
    text = """FROM debian:bookworm
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light
RUN echo 'Hi, I am in your container' > /var/www/html/index.html
EXPOSE 80 443
CMD ["nginx", "-g", "daemon off;"]
"""
    put(context, **{"some-dockerfile": text})
    flags = ("-f", str(context / "some-dockerfile"), "-t", "introduction")
    done, cached = build(shop, context, *flags)
    assert [line.split()[0] for line in done] == ["RUN", "RUN"]
    assert not cached
    with service(shop, "introduction", 80) as url:
        assert page(url) == "Hi, I am in your container\n"
    put(context, **{"some-dockerfile": text.replace("Hi, I am", "Changed,")})
    changed, kept = build(shop, context, *flags)
    assert [line.split()[:2] for line in changed] == [["RUN", "echo"]]
    assert kept == done[:1]
    with service(shop, "introduction", 80) as url:
        assert page(url) == "Changed, in your container\n"
    found = json.loads(shop("inspect", "introduction"))[0]["Config"]
    assert found["Cmd"] == ["nginx", "-g", "daemon off;"]
    assert found["ExposedPorts"] == {"80/tcp": {}, "443/tcp": {}}
    # EXPOSE documents: only -p opens.
    name = shop("run", "-d", "introduction").strip()
    assert not json.loads(shop("inspect", name))[0]["HostConfig"]["PortBindings"]
    shop("rm", "-f", name)


def test_a_python_service(shop: Scow, context: Path, tmp_path: Path, package_index: str) -> None:
    dockerfile = f"""{DEBIAN}RUN apt-get install -y --no-install-recommends python3 python3-venv

FROM debian AS build
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /app
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=authorities \\
    pip install -r requirements.txt

FROM debian
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
USER www-data
EXPOSE 8000
CMD ["flask", "--app", "service", "run", "--host=0.0.0.0", "--port=8000"]
"""
    code = "import flask\napp = flask.Flask(__name__)\n@app.get('/')\ndef hello():\n    return 'first'\n"
    put(context, Dockerfile=dockerfile, requirements_txt="flask==3.0.3\n", service_py=code)
    put(context, _dockerignore="Dockerfile\n**/__pycache__\n")
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {package_index}\ncert = /run/secrets/authorities\ntimeout = 60\n")
    secrets = ("--secret", f"id=pip.conf,src={settings}", "--secret", f"id=authorities,src={authorities()}")
    build(shop, context, "-t", "python-service", *secrets)
    with service(shop, "python-service", 8000) as url:
        assert page(url) == "first"
    put(context, service_py=code.replace("first", "second"))
    done, cached = build(shop, context, "-t", "python-service", *secrets)
    assert done == ["COPY . ."]
    assert any("pip install" in line for line in cached)
    with service(shop, "python-service", 8000) as url:
        assert page(url) == "second"
    # Whatever kept the build from asking in vain is in no image.
    shown = shop("run", "--rm", "python-service", "sh", "-c", "ls /run /etc/pip.conf /root/.cache 2>&1 || id -u")
    assert "No such file" in shown
    assert "secrets" not in shown
    # Another list is installed again, and what is known already comes out of the cache mount.
    put(context, requirements_txt="flask==3.0.3\nitsdangerous\n")
    done, _ = build(shop, context, "-t", "python-service", *secrets)
    assert any("pip install" in line for line in done)


def test_a_node_service(shop: Scow, context: Path, tmp_path: Path, npm_registry: str) -> None:
    dockerfile = f"""{DEBIAN}RUN apt-get install -y --no-install-recommends nodejs
ADD --unpack {npm_registry}npm/-/npm-{NPM}.tgz /usr/local/lib/
RUN ln -s ../lib/package/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /app
COPY package*.json ./
RUN --mount=type=cache,target=/root/.npm --mount=type=secret,id=npmrc,target=/root/.npmrc \\
    --mount=type=secret,id=authorities \\
    NODE_EXTRA_CA_CERTS=/run/secrets/authorities npm install --omit=dev
COPY . .
ENV NODE_ENV=production
USER nobody
EXPOSE 8000
CMD ["node", "service.js"]
"""
    manifest = {"name": "service", "version": "1.0.0", "private": True, "dependencies": {"express": "4.19.2"}}
    code = "const app = require('express')()\napp.get('/', (_, to) => to.send('first'))\napp.listen(8000)\n"
    put(context, Dockerfile=dockerfile, package_json=json.dumps(manifest), service_js=code)
    put(context, _dockerignore="Dockerfile\nnode_modules\n", node_modules__express__index_js="of the host's")
    settings = tmp_path / "npmrc"
    settings.write_text(f"registry={npm_registry}\nupdate-notifier=false\nfund=false\naudit=false\n")
    secrets = ("--secret", f"id=npmrc,src={settings}", "--secret", f"id=authorities,src={authorities()}")
    build(shop, context, "-t", "node-service", *secrets)
    with service(shop, "node-service", 8000) as url:
        assert page(url) == "first"
    put(context, service_js=code.replace("first", "second"))
    done, cached = build(shop, context, "-t", "node-service", *secrets)
    assert done == ["COPY . ."]
    assert any("/root/.npm" in line for line in cached)
    with service(shop, "node-service", 8000) as url:
        assert page(url) == "second"


def test_a_program_in_c(shop: Scow, context: Path) -> None:
    """Compiled in one stage, alone in the last; tested in one that nobody else needs."""
    dockerfile = f"""{DEBIAN}RUN apt-get install -y --no-install-recommends gcc libc6-dev make

FROM debian AS build
WORKDIR /src
COPY Makefile *.c ./
RUN --mount=type=cache,target=/src/objects make PREFIX=/out install

FROM build AS test
RUN test "$(/out/bin/greet you)" = "hello you"

FROM scratch
COPY --from=build /out /
USER 65534:65534
ENTRYPOINT ["/bin/greet"]
CMD ["world"]
"""
    source = '#include <stdio.h>\nint main(int n, char **words) { printf("hello %s\\n", words[n - 1]); return 0; }\n'
    make = """objects/greet: greet.c
	$(CC) -O2 -static -o $@ $<
install: objects/greet
	install -D -m 0555 $< $(PREFIX)/bin/greet
"""
    put(context, Dockerfile=dockerfile, Makefile=make, greet_c=source)
    done, _ = build(shop, context, "-t", "greet")
    assert not any("test " in line for line in done)
    assert shop("run", "--rm", "greet") == "hello world\n"
    assert shop("run", "--rm", "greet", "you") == "hello you\n"
    listed = shop.try_("export", shop("create", "greet").strip()).stdout
    with tarfile.open(fileobj=io.BytesIO(listed)) as tar:
        files = [
            member.name.strip("./") for member in tar if member.isreg() and not member.name.startswith(("etc", "./etc"))
        ]
    assert files == ["bin/greet"]
    build(shop, context, "--target", "test")
    # A comment changes the file, but not the program: what is copied from the stage is not copied again.
    put(context, greet_c="/* the same */\n" + source)
    done, cached = build(shop, context, "-t", "greet")
    assert [line.split()[0] for line in done] == ["COPY", "RUN"]
    assert "COPY --from=build /out /" in cached


@contextmanager
def guarded(token: str, content: bytes) -> Iterator[str]:
    """A server on loopback that gives a file to those who know the token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == f"Bearer {token}"
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(content) if known else 0))
            self.end_headers()
            if known:
                self.wfile.write(content)

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


def test_all_the_rest_at_once(shop: Scow, context: Path, tmp_path: Path) -> None:
    """Secrets, cache mounts, here-documents, an archive, triggers, and contexts with names: one build of a site."""
    token = shop.env["SITE_TOKEN"] = "a token that nobody may find"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as tar:
        for name in ("theme/style.css", "theme/deep/logo.svg"):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(name), 0o640
            tar.addfile(member, io.BytesIO(name.encode()))
    (context / "theme.tar.xz").write_bytes(archive.getvalue())
    put(context, pages__one_md="one", pages__two_md="two", pages__draft_md="not yet")
    put(context, _dockerignore="pages/draft.md\n")
    (context / "Dockerfile.parent").write_text(
        "FROM busybox\nONBUILD COPY --parents pages/*.md /src/\n"
        "ONBUILD RUN --mount=type=cache,target=/built cd /src/pages && for f in *; do "
        "echo built $f >> /built/log; done && mkdir /www/site && cp *.md /www/site\n"
    )
    build(shop, context, "-f", str(context / "Dockerfile.parent"), "-t", "site-parent")
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "httpd.conf").write_text(".md:text/plain\n")
    with guarded(token, b"the private part\n") as place:
        host, _, port = place.partition(":")
        put(
            context,
            Dockerfile=f"""FROM parent AS site
ADD theme.tar.xz /www/
RUN --network=host --mount=type=secret,id=token,required <<FETCH
set -e
printf 'GET /private HTTP/1.0\\r\\nAuthorization: Bearer %s\\r\\n\\r\\n' "$(cat /run/secrets/token)" > /tmp/ask
nc {host} {port} < /tmp/ask | tail -n 1 > /www/site/private
rm /tmp/ask
FETCH
COPY --from=settings httpd.conf /etc/
COPY <<PAGE <<-'RAW' /www/site/
made for $USER_NAME
PAGE
	kept as $IT is
	RAW
ARG USER_NAME=nobody
COPY <<INDEX /www/index.html
made for $USER_NAME
INDEX
RUN --mount=type=cache,target=/built wc -l < /built/log > /www/site/count
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
""",
        )
        build(
            shop,
            context,
            "-t",
            "site",
            "--allow",
            "network.host",
            "--secret",
            "id=token,env=SITE_TOKEN",
            "--build-arg",
            "USER_NAME=you",
            "--build-context",
            f"settings={settings}",
            "--build-context",
            "parent=docker-image://site-parent",
        )
    with service(shop, "site", 80) as url:
        assert page(url) == "made for you\n"
        assert page(url + "site/private") == "the private part\n"
        assert page(url + "site/two.md") == "two"
        assert page(url + "site/count").strip() == "2"
        assert page(url + "site/PAGE") == "made for \n"
        assert page(url + "site/RAW") == "kept as $IT is\n"
        assert page(url + "theme/deep/logo.svg") == "theme/deep/logo.svg"
    assert "draft.md" not in shop("run", "--rm", "site", "ls", "/www/site")
    assert shop("run", "--rm", "site", "ls", "/tmp") == ""
    assert shop("run", "--rm", "site", "stat", "-c", "%a %u", "/www/theme/style.css").split() == ["640", "0"]
    known = subprocess.run(["grep", "-rlF", token, str(shop.root), str(shop.run_dir)], capture_output=True, check=False)
    assert not known.stdout, known.stdout
    assert token not in shop("history", "--no-trunc", "site") + shop("inspect", "site")
