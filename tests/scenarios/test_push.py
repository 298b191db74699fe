"""Images into registries: pushed by scow, read by skopeo; logins over TLS; pulls that were killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import images, machine
from .conftest import Scow, require

#: "secret", as `htpasswd -B` writes it.
SECRET_BCRYPT = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The launcher makes no difference here."""
    return bool(request.param)


def inspect(name: str, *options: str) -> dict:
    found = subprocess.run(
        ["skopeo", "inspect", "--raw", *options, f"docker://{name}"], check=True, capture_output=True
    )
    return json.loads(found.stdout)


PLAIN = "--tls-verify=false"


def test_push_is_what_was_pulled(pulled: Scow, registry: str) -> None:
    pulled("tag", "busybox", f"{registry}/pushed/one:1")
    out = pulled("push", f"{registry}/pushed/one:1")
    assert f"The push refers to repository [{registry}/pushed/one]" in out
    assert out.splitlines()[-1].startswith("1: digest: sha256:")
    assert inspect(f"{registry}/pushed/one:1", PLAIN) == inspect(f"{registry}/library/busybox:latest", PLAIN)
    assert pulled("push", "-q", f"{registry}/pushed/one:1") == f"{registry}/pushed/one:1\n"
    assert "Layer already exists" in pulled("push", f"{registry}/pushed/one:1")
    # What one repository has, another one gets from there.
    pulled("tag", "busybox", f"{registry}/pushed/two:1")
    assert "Mounted from another repository" in pulled("push", f"{registry}/pushed/two:1")
    pulled("push", "-a", f"{registry}/pushed/two")
    pulled.fails("push", f"{registry}/nothing:1", code=1, says="no such image")
    pulled.fails("push", "-a", f"{registry}/nothing", code=1, says="no image of the repository")


def test_docker_types_stay(mirrored: Scow, registry: str, tmp_path: Path) -> None:
    layout = _layout(tmp_path / "one", "docker")
    images.push(layout, registry, "types/docker:1", "--format", "v2s2")
    mirrored("pull", "-q", f"{registry}/types/docker:1")
    mirrored("tag", f"{registry}/types/docker:1", f"{registry}/types/again:1")
    mirrored("push", f"{registry}/types/again:1")
    again = inspect(f"{registry}/types/again:1", PLAIN)
    assert again == inspect(f"{registry}/types/docker:1", PLAIN)
    assert again["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_what_is_called_oci_is_oci(mirrored: Scow, registry: str, tmp_path: Path) -> None:
    """Other tools refuse Docker's media types there."""
    require("umoci")
    layout = _layout(tmp_path / "one", "docker")
    images.push(layout, registry, "types/docker:2", "--format", "v2s2")
    mirrored("pull", "-q", f"{registry}/types/docker:2")
    out = mirrored.try_("push", f"{registry}/types/docker:2", f"oci:{tmp_path}/oci:one")
    assert b"note: Docker's media types became OCI's" in out.stderr
    (entry,) = json.loads((tmp_path / "oci" / "index.json").read_bytes())["manifests"]
    assert f"one: digest: {entry['digest']}" in out.stdout.decode()
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/oci:one", str(tmp_path / "bundle")], check=True)
    mirrored("save", "--format", "oci-archive", "-o", f"{tmp_path}/saved.tar", f"{registry}/types/docker:2")
    copy = ["skopeo", "copy", "-q", "--insecure-policy", f"oci-archive:{tmp_path}/saved.tar"]
    subprocess.run([*copy, f"oci:{tmp_path}/again:one"], check=True)
    (again,) = json.loads((tmp_path / "again" / "index.json").read_bytes())["manifests"]
    assert again["digest"] == entry["digest"]


def _layout(directory: Path, text: str) -> Path:
    (directory / "tree").mkdir(parents=True)
    (directory / "tree" / "file").write_text(text)
    return images.write_layout(directory / "layout", [images.layer_of(directory / "tree")], {"Labels": {"is": text}})


def test_an_index_goes_whole_or_alone(mirrored: Scow, registry: str, tmp_path: Path) -> None:
    layout = _indexed(tmp_path)
    subprocess.run(
        [
            *("skopeo", "copy", "-q", "--all", "--insecure-policy", "--dest-tls-verify=false"),
            *(f"oci:{layout}:both", f"docker://{registry}/index/both:1"),
        ],
        check=True,
    )
    name = f"{registry}/index/both:1"
    mirrored("pull", "-q", name)
    mirrored("tag", name, f"{registry}/index/alone:1")
    done = mirrored.try_("push", f"{registry}/index/alone:1")
    assert done.returncode == 0
    assert b"only this platform's image was pushed" in done.stderr
    assert "layers" in inspect(f"{registry}/index/alone:1", PLAIN)
    # With the other platform here too, the index goes, after its children.
    other = "arm64" if HOST == "amd64" else "amd64"
    mirrored("pull", "-q", "--platform", f"linux/{other}", name)
    mirrored("pull", "-q", name)
    mirrored("tag", name, f"{registry}/index/whole:1")
    done = mirrored.try_("push", f"{registry}/index/whole:1")
    assert done.returncode == 0
    assert done.stderr == b""
    assert inspect(f"{registry}/index/whole:1", PLAIN) == inspect(name, PLAIN)


def _indexed(tmp_path: Path) -> Path:
    """A layout with an index over two platforms."""
    import hashlib

    first, second = _layout(tmp_path / "a", "first"), _layout(tmp_path / "b", "second")
    entries = []
    for layout, arch in ((first, "amd64"), (second, "arm64")):
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        entries.append({**entry, "platform": {"os": "linux", "architecture": arch}, "annotations": {}})
    shutil.copytree(second / "blobs", first / "blobs", dirs_exist_ok=True)
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    ).encode()
    digest = hashlib.sha256(index).hexdigest()
    (first / "blobs" / "sha256" / digest).write_bytes(index)
    root = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{digest}",
        "size": len(index),
        "annotations": {"org.opencontainers.image.ref.name": "both"},
    }
    (first / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    return first


def test_all_tags(mirrored: Scow, registry: str, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        images.push(_layout(tmp_path / tag, tag), registry, f"tags/all:{tag}")
    out = mirrored("pull", "-a", f"{registry}/tags/all")
    assert out.endswith(f"\n{registry}/tags/all\n")
    listed = mirrored("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(listed) == [f"{registry}/tags/all:1", f"{registry}/tags/all:2"]
    mirrored.fails("pull", "-a", f"{registry}/tags/all:1", code=1, says="--all-tags")
    mirrored.fails("pull", "-a", f"{registry}/tags/none", code=1, says="not found")


def test_search_says_who_does_not_answer(scow: Scow, registry: str) -> None:
    scow.fails("search", f"{registry}/thing", code=1, says="not found")
    scow.fails("search", "127.0.0.1:1/thing", code=1, says="127.0.0.1:1: connection refused")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """docker-registry with TLS, htpasswd and client certificates; gives host:port and a directory with PEM files."""
    require("docker-registry", "skopeo", "openssl")
    home = tmp_path_factory.mktemp("locked")
    _certificates(home)
    (home / "htpasswd").write_text(f"me:{SECRET_BCRYPT}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {home}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}, tls: {{certificate: {home}/cert.pem, key: {home}/key.pem, "
        f"clientcas: [{home}/cert.pem]}}}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {home}/htpasswd}}}}\n"
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(home / "config.yml")], stdout=log, stderr=log)
    try:
        assert machine.eventually(lambda: _listens(port)), (home / "log").read_text()
        yield f"127.0.0.1:{port}", home
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _certificates(home: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(home / "key.pem"), "-out", str(home / "cert.pem"), "-subj", "/CN=scow test"),
            *("-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )


def test_login_push_pull_over_tls(pulled: Scow, locked: tuple[str, Path]) -> None:
    host, home = locked
    table = f'\n[registries."{host}"]\nca = "{home}/cert.pem"\n'
    config = pulled.config.read_text()
    name = f"{host}/team/tool:1"
    pulled("tag", "busybox", name)
    pulled.fails("push", name, code=1, says="certificate is not valid")
    pulled.config.write_text(config + table)
    pulled.fails("push", name, code=1, says="TLS failed")  # the server wants to see who comes
    pulled.config.write_text(config + table + f'cert = "{home}/cert.pem"\nkey = "{home}/key.pem"\n')
    pulled.fails("push", name, code=1, says=f"scow login {host}")
    wrong = pulled.try_("login", "-u", "me", "--password-stdin", host, stdin=b"wrong\n")
    assert wrong.returncode == 1
    assert f"login to {host} failed" in wrong.stderr.decode()
    assert not (pulled.root.parent / ".docker").exists()
    done = pulled.try_("login", "-u", "me", "--password-stdin", host, stdin=b"secret\n")
    assert (done.returncode, done.stdout) == (0, b"Login Succeeded\n")
    assert "stored unencrypted" in done.stderr.decode()
    pulled("push", name)
    creds = ["--creds", "me:secret", "--cert-dir", str(_cert_dir(home))]
    assert inspect(name, *creds)["schemaVersion"] == 2
    pulled("rmi", name)
    pulled("pull", "-q", name)
    assert pulled("logout", host) == f"Removing login credentials for {host}\n"
    assert pulled("logout", host) == f"Not logged in to {host}\n"
    pulled.fails("pull", name, code=1, says="denies access")
    # A certificate that isn't there is named.
    pulled.config.write_text(config + table + 'cert = "/nowhere.pem"\n')
    pulled.fails("pull", name, code=2, says="/nowhere.pem")


def _cert_dir(home: Path) -> Path:
    directory = home / "certs.d"
    directory.mkdir(exist_ok=True)
    for source, target in (("cert.pem", "ca.crt"), ("cert.pem", "client.cert"), ("key.pem", "client.key")):
        shutil.copy(home / source, directory / target)
    return directory


def test_login_asks_for_what_is_missing(scow: Scow, registry: str) -> None:
    scow.fails("login", registry, code=1, says="non TTY")
    scow.fails("login", "--password-stdin", registry, code=1, says="must provide --username")
    scow.fails("login", "-u", "a", "-p", "b", "not a host", code=2, says="not a registry's host name")
    assert "Login Succeeded" in scow("login", "-u", "a", "-p", "b", registry)  # which lets everybody in
