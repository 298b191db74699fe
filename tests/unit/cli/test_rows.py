"""Lines of ps and images, and the JSON of inspect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scow.api import BindMount, Container, Digest, Isolation, PortMapping, Status, TmpfsMount
from scow.engine.types import ImageInfo
from scow_plugins.cli._functions import to_json
from scow_plugins.cli._inspect import container_json, image_json
from scow_plugins.cli._rows import command_line, container_row, image_rows, status

NOW = 1_700_000_000.0
Make = Callable[..., Container]
MakeImage = Callable[..., ImageInfo]


def test_a_row(container: Make) -> None:
    row = container_row(container(ports=(PortMapping(80, 8080),), spec={"exposed": ("80/tcp", "443/tcp")}), NOW)
    assert row["ID"] == "1" * 12
    assert row["Command"] == '"nginx -g \'daemon of…"'
    assert row["RunningFor"] == "2 minutes ago"
    assert row["Status"] == "Up 3 seconds"
    assert row["State"] == "running"
    assert row["Ports"] == "0.0.0.0:8080->80/tcp, 443/tcp"
    assert row["Names"] == "web"


def test_nothing_cut_short(container: Make) -> None:
    row = container_row(container(), NOW, truncate=False)
    assert row["ID"] == "1" * 64
    assert row["Command"] == "\"nginx -g 'daemon off;'\""


def test_command_lines() -> None:
    assert command_line(()) == ""
    assert command_line(("a b", "c d", "e")) == "a b 'c d' e"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"status": Status.CREATED}, "Created"),
        ({"status": Status.EXITED, "exit_code": 137, "finished": NOW - 4 * 3600}, "Exited (137) 4 hours ago"),
        ({"status": Status.PAUSED, "started": NOW - 60}, "Up About a minute (Paused)"),
        ({"status": Status.REMOVING}, "Removal In Progress"),
        ({"status": Status.DEAD}, "Dead"),
    ],
)
def test_statuses(container: Make, state: dict[str, Any], text: str) -> None:
    assert status(container(**state), NOW) == text


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ((), ""),
        ((PortMapping(81, 8001), PortMapping(80, 8000)), "0.0.0.0:8000-8001->80-81/tcp"),
        ((PortMapping(80, 8000), PortMapping(81, 8005)), "0.0.0.0:8000->80/tcp, 0.0.0.0:8005->81/tcp"),
        ((PortMapping(53, 53, "udp", "::1"),), "[::1]:53->53/udp"),
        ((PortMapping(80, 80, "tcp", "127.0.0.1"),), "127.0.0.1:80->80/tcp"),
    ],
)
def test_ports(container: Make, ports: tuple[PortMapping, ...], text: str) -> None:
    assert container_row(container(ports=ports), NOW)["Ports"] == text
    assert container_row(container(ports=ports, status=Status.EXITED), NOW)["Ports"] == ""


def test_exposed_runs(container: Make) -> None:
    made = container(spec={"exposed": ("80/tcp", "81/tcp", "443/udp", "odd")})
    assert container_row(made, NOW)["Ports"] == "80-81/tcp, 443/udp"


def test_image_rows(image: MakeImage) -> None:
    (row,) = image_rows(image(("docker.io/library/nginx:1.2",)), NOW)
    assert (row["Repository"], row["Tag"], row["Digest"]) == ("nginx", "1.2", "<none>")
    assert (row["CreatedSince"], row["Size"]) == ("3 weeks ago", "188MB")
    assert row["ID"] == Digest.of(b"x").short


@pytest.mark.parametrize(
    ("name", "repository", "tag"),
    [
        ("localhost:5000/a/b:x", "localhost:5000/a/b", "x"),
        ("host:", "host:", "<none>"),
        ("docker.io/user/repo:latest", "user/repo", "latest"),
    ],
)
def test_image_names(image: MakeImage, name: str, repository: str, tag: str) -> None:
    (row,) = image_rows(image((name,)), NOW)
    assert (row["Repository"], row["Tag"]) == (repository, tag)


def test_images_without_names(image: MakeImage) -> None:
    (row,) = image_rows(image(()), NOW)
    assert (row["Repository"], row["Tag"]) == ("<none>", "<none>")
    digest = str(Digest.of(b"x"))
    (row,) = image_rows(image((), (f"docker.io/library/nginx@{digest}",)), NOW)
    assert (row["Repository"], row["Tag"], row["Digest"]) == ("nginx", "<none>", digest)


def test_two_names_are_two_rows(image: MakeImage) -> None:
    assert len(image_rows(image(("docker.io/library/a:1", "docker.io/library/b:2")), NOW)) == 2


def test_container_json(container: Make) -> None:
    made = container(
        addresses=("172.17.0.2/16", "fd00::2/64"),
        gateway="172.17.0.1",
        ports=(PortMapping(80, 8080),),
        spec={
            "exposed": ("80/tcp", "443/tcp"),
            "ports": (PortMapping(80),),
            "isolation": Isolation(
                "h", mounts=(BindMount("/a", "/b", True), TmpfsMount("/t", 1024)), seccomp="unconfined"
            ),
            "labels": (("a", "1"),),
        },
    )
    got = container_json(made)
    assert got["Name"] == "/web"
    assert (got["Path"], got["Args"]) == ("nginx", ["-g", "daemon off;"])
    assert got["State"]["Running"] is True
    assert got["State"]["StartedAt"] == "2023-11-14T22:13:17.000000000Z"
    assert got["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert got["Config"]["Labels"] == {"a": "1"}
    assert got["HostConfig"]["Binds"] == ["/a:/b:ro"]
    assert got["HostConfig"]["Tmpfs"] == {"/t": "size=1024,mode=1777"}
    assert got["HostConfig"]["SecurityOpt"] == ["seccomp=unconfined"]
    assert got["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": ""}]}
    assert got["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "443/tcp": None}
    assert got["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    assert got["NetworkSettings"]["Networks"]["bridge"]["GlobalIPv6Address"] == "fd00::2"
    assert [mount["Type"] for mount in got["Mounts"]] == ["bind", "tmpfs"]
    assert to_json(got)


def test_image_json(image: MakeImage) -> None:
    got = image_json(image(("docker.io/library/nginx:1.2",)))
    assert got["RepoTags"] == ["nginx:1.2"]
    pinned = f"docker.io/library/nginx@{Digest.of(b'x')}"
    got = image_json(image(("docker.io/library/nginx:1.2", pinned), digests=(pinned,)))
    assert (got["RepoTags"], got["RepoDigests"]) == (["nginx:1.2"], [pinned.removeprefix("docker.io/library/")])
    assert got["Config"]["Cmd"] == ["nginx"]
    assert got["RootFS"]["Layers"] == [str(Digest.of(b"x"))]
    assert to_json(got)
