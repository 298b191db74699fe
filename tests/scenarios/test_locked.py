"""A registry with TLS and passwords: scow logs in, pushes and pulls; skopeo copies it out and something else in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import images
from .conftest import Scow, free_port, require, wait_port

#: "secret", as `htpasswd -B` writes it.
SECRET_BCRYPT = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The launcher makes no difference here."""
    return bool(request.param)


@dataclass
class Place:
    """A registry that runs, and the authority that signed its certificate."""

    host: str
    authority: Path

    def skopeo(self, *words: str) -> subprocess.CompletedProcess[str]:
        """skopeo with the authority, and the login of the test."""
        certificates = self.authority.parent / "for-skopeo"
        certificates.mkdir(exist_ok=True)
        shutil.copy(self.authority, certificates / "ca.crt")
        options = ["--cert-dir", str(certificates), "--creds", "me:secret"]
        if words[0] == "copy":
            side = "src" if words[1].startswith("docker:") else "dest"
            options = ["-q", f"--{side}-cert-dir", str(certificates), f"--{side}-creds", "me:secret"]
        return subprocess.run(
            ["skopeo", "--insecure-policy", words[0], *options, *words[1:]], capture_output=True, text=True, check=False
        )


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def authority(home: Path, name: str) -> tuple[Path, Path]:
    """A certificate authority of the test's own: its certificate and its key."""
    cert, key = home / f"{name}.pem", home / f"{name}.key"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-keyout", key, "-out", cert, "-subj", f"/CN={name}"),
    )
    return cert, key


def signed(home: Path, name: str, by: tuple[Path, Path], alternative: str, *when: str) -> tuple[Path, Path]:
    """A server's certificate and key. `when` are options of `openssl x509`."""
    cert, key, request, extra = (home / f"{name}.{kind}" for kind in ("pem", "key", "csr", "ext"))
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", key, "-out", request, "-subj", "/CN=registry"),
    )
    extra.write_text(f"subjectAltName={alternative}\n")
    signing = ["-CA", by[0], "-CAkey", by[1], "-CAcreateserial", "-extfile", extra, *(when or ("-days", "2"))]
    openssl("x509", "-req", "-in", request, "-out", cert, *signing)
    return cert, key


@contextmanager
def running(home: Path, server: tuple[Path, Path], by: Path) -> Iterator[Place]:
    """Debian's docker-registry with that certificate, and `me` whose password is `secret`."""
    home.mkdir()
    port = free_port()
    (home / "htpasswd").write_text(f"me:{SECRET_BCRYPT}\n")
    (home / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {home}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}, tls: {{certificate: {server[0]}, key: {server[1]}}}}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {home}/htpasswd}}}}\n"
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(home / "config.yml")], stdout=log, stderr=log)
    try:
        wait_port(port, "127.0.0.1")
        yield Place(f"127.0.0.1:{port}", by)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The authority that the user trusts."""
    require("docker-registry", "skopeo", "openssl")
    return authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, signer: tuple[Path, Path]) -> Iterator[Place]:
    """As it should be."""
    home = tmp_path_factory.mktemp("locked")
    with running(home / "registry", signed(home, "good", signer, "IP:127.0.0.1"), signer[0]) as place:
        yield place


def trusting(scow: Scow, place: Place) -> None:
    scow.config.write_text(scow.config.read_text() + f'\n[registries."{place.host}"]\nca = "{place.authority}"\n')


def login(scow: Scow, host: str, password: bytes = b"secret") -> subprocess.CompletedProcess[bytes]:
    return scow.try_("login", "-u", "me", "--password-stdin", host, stdin=password + b"\n")


def test_push_and_pull_with_skopeo(pulled: Scow, locked: Place, tmp_path: Path) -> None:
    trusting(pulled, locked)
    name = f"{locked.host}/team/tool"
    pulled("tag", "busybox", f"{name}:scow")
    pulled.fails("push", f"{name}:scow", code=1, says=f"scow login {locked.host}")
    pulled.fails("pull", f"{name}:scow", code=1, says=f"scow login {locked.host}")
    assert login(pulled, locked.host).stdout == b"Login Succeeded\n"
    pulled("push", "-q", f"{name}:scow")
    # What scow has pushed, skopeo takes out; what skopeo puts in, scow pulls: byte for byte the same manifest.
    copied = locked.skopeo("copy", f"docker://{name}:scow", f"oci:{tmp_path}/out:x")
    assert copied.returncode == 0, copied.stderr
    copied = locked.skopeo("copy", f"oci:{tmp_path}/out:x", f"docker://{locked.host}/other/place:skopeo")
    assert copied.returncode == 0, copied.stderr
    pulled("pull", "-q", f"{locked.host}/other/place:skopeo")
    digests = pulled("images", "--digests", "--format", "{{.Repository}} {{.Digest}}").splitlines()
    ours = {line.split()[0]: line.split()[1] for line in digests}
    assert ours[f"{locked.host}/other/place"] == ours[name]
    raw = locked.skopeo("inspect", "--raw", f"docker://{locked.host}/other/place:skopeo").stdout
    assert (
        json.loads(raw)["layers"]
        == json.loads(locked.skopeo("inspect", "--raw", f"docker://{name}:scow").stdout)["layers"]
    )
    # From nothing, as another machine has it.
    pulled("rmi", "-f", f"{name}:scow", f"{locked.host}/other/place:skopeo", "busybox")
    assert pulled("images", "-q") == ""
    assert (
        pulled("run", "--rm", "--network", "none", f"{locked.host}/other/place:skopeo", "cat", "/second/layer")
        == "upper\n"
    )
    # docker's file is where the login is: skopeo reads it there.
    with_login = dict(os.environ, REGISTRY_AUTH_FILE=str(pulled.root.parent / ".docker" / "config.json"))
    certificates = str(locked.authority.parent / "for-skopeo")
    found = subprocess.run(
        ["skopeo", "inspect", "--cert-dir", certificates, f"docker://{name}:scow"],
        capture_output=True, text=True, env=with_login, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert pulled("logout", locked.host) == f"Removing login credentials for {locked.host}\n"
    pulled.fails("pull", f"{name}:scow", code=1, says="denies access")


def test_a_whole_docker_image_from_skopeo(pulled: Scow, locked: Place, tmp_path: Path) -> None:
    """Docker's types, through a registry that asks for a password, from skopeo to scow and back."""
    trusting(pulled, locked)
    tree = images.busybox_tree(tmp_path / "tree")
    layout = images.write_layout(tmp_path / "layout", [images.layer_of(tree)], {"Cmd": ["echo", "docker"]})
    archive = f"docker-archive:{tmp_path}/x.tar:a/b:1"
    assert locked.skopeo("copy", f"oci:{layout}:latest", archive).returncode == 0
    copied = locked.skopeo("copy", archive, f"docker://{locked.host}/docker/one:1")
    assert copied.returncode == 0, copied.stderr
    assert login(pulled, locked.host).returncode == 0
    assert pulled("run", "--rm", "--network", "none", f"{locked.host}/docker/one:1") == "docker\n"
    pulled("tag", f"{locked.host}/docker/one:1", f"{locked.host}/docker/two:1")
    pulled("push", "-q", f"{locked.host}/docker/two:1")
    one, two = (
        locked.skopeo("inspect", "--raw", f"docker://{locked.host}/docker/{name}:1").stdout for name in ("one", "two")
    )
    assert one == two != ""


def test_wrong_passwords(pulled: Scow, locked: Place) -> None:
    trusting(pulled, locked)
    wrong = login(pulled, locked.host, b"wrong")
    assert wrong.returncode == 1
    assert f"login to {locked.host} failed" in wrong.stderr.decode()
    assert "hint: check name and password" in wrong.stderr.decode()
    assert not (pulled.root.parent / ".docker").exists()
    # One that was right once: what is in the file is not what the registry wants any more.
    assert login(pulled, locked.host).returncode == 0
    config = pulled.root.parent / ".docker" / "config.json"
    document = json.loads(config.read_text())
    document["auths"][locked.host] = {"auth": "bWU6c2VzYW1l"}
    config.write_text(json.dumps(document))
    errors = pulled.fails("pull", f"{locked.host}/team/tool:1", code=1, says="denies access")
    assert f"scow login {locked.host}" in errors
    assert "sesame" not in errors
    pulled("tag", "busybox", f"{locked.host}/team/tool:wrong")
    pulled.fails("push", f"{locked.host}/team/tool:wrong", code=1, says=f"scow login {locked.host}")


def test_certificates_that_are_not_right(
    pulled: Scow, signer: tuple[Path, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An unknown authority, one that is another, a certificate that has run out, one for another name."""
    stranger = authority(tmp_path, "stranger")
    cases = {
        "unknown": (signed(tmp_path, "unknown", stranger, "IP:127.0.0.1"), "unable to get local issuer certificate"),
        "elsewhere": (signed(tmp_path, "elsewhere", signer, "DNS:registry.example"), "IP address mismatch"),
        "expired": (expired(tmp_path, signer), "certificate has expired"),
    }
    for name, (server, says) in cases.items():
        with running(tmp_path / name, server, signer[0]) as place:
            pulled.config.write_text("")
            trusting(pulled, place)
            errors = pulled.fails("pull", f"{place.host}/a/b:1", code=1, says="certificate is not valid")
            assert says in errors, errors
            assert "hint:" in errors
            pulled("tag", "busybox", f"{place.host}/a/b:1")
            assert says in pulled.fails("push", f"{place.host}/a/b:1", code=1, says="certificate is not valid")
            failed = login(pulled, place.host)
            assert failed.returncode == 1
            assert says in failed.stderr.decode()
            assert not (pulled.root.parent / ".docker").exists(), "a password was kept that nobody has checked"
    pulled.config.write_text(f'[registries."127.0.0.1:1"]\nca = "{tmp_path}/nothing.pem"\n')
    pulled.fails("pull", "127.0.0.1:1/a/b:1", code=2, says="nothing.pem")


def expired(home: Path, by: tuple[Path, Path]) -> tuple[Path, Path]:
    """A certificate of yesterday: `openssl ca` alone can date one back."""
    cert, key = signed(home, "expired", by, "IP:127.0.0.1")
    (home / "index").write_text("")
    (home / "serial").write_text("01\n")
    (home / "ca.conf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={home}/index\nserial={home}/serial\nnew_certs_dir={home}\n"
        "default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n"
    )
    openssl(
        *("ca", "-batch", "-config", home / "ca.conf", "-cert", by[0], "-keyfile", by[1], "-in", home / "expired.csr"),
        *("-out", cert, "-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-notext"),
    )
    return cert, key
