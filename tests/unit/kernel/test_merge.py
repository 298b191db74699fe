"""What a request and an image make together: Docker's rules as a table."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scow.engine.merge import Chosen, merge
from scow.engine.names import check_name, new_id, new_name
from scow.engine.types import CreateRequest
from scow.errors import Invalid
from scow.model.container import ContainerSpec
from scow.model.image import ImageConfig
from scow.model.network import PortMapping
from scow.model.platform import Platform

CHOSEN = Chosen("f" * 64, "web", "sha256:i", "sha256:m", (), (), "overlay", "bridge", "namespaces", 1.0)


def merged(image: dict[str, Any] | None = None, **request: Any) -> ContainerSpec:
    config = ImageConfig(Platform("linux", "amd64"), (), **(image or {}))
    return merge(CreateRequest("img", **request), config, CHOSEN)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "asked_entrypoint", "args", "result"),
    [
        ((), ("c",), None, (), ("c",)),
        (("e",), (), None, (), ("e",)),
        (("e",), ("c",), None, (), ("e", "c")),
        (("e",), ("c",), None, ("a", "b"), ("e", "a", "b")),
        ((), ("c",), None, ("a",), ("a",)),
        (("e",), ("c",), ("x",), (), ("x",)),
        (("e",), ("c",), ("x",), ("a",), ("x", "a")),
        (("e",), ("c",), (), ("a",), ("a",)),
    ],
)
def test_command(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], asked_entrypoint: Any, args: Any, result: tuple[str, ...]
) -> None:
    spec = merged({"entrypoint": entrypoint, "cmd": cmd}, entrypoint=asked_entrypoint, args=args)
    assert spec.process.args == result
    own = entrypoint if asked_entrypoint is None else asked_entrypoint
    assert (spec.entrypoint, spec.cmd) == (own, result[len(own) :])


@pytest.mark.parametrize("request_", [{}, {"entrypoint": ()}])
def test_nothing_to_run(request_: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="no command"):
        merged(**request_)


@pytest.mark.parametrize(
    ("below", "above", "result"),
    [
        (("A=1", "B=2"), (), ("A=1", "B=2")),
        (("A=1", "B=2"), ("A=3",), ("A=3", "B=2")),
        (("A=1",), ("A",), ()),
        (("A=1",), ("B=x=y", "C="), ("A=1", "B=x=y", "C=")),
        (("A=1", "A=2"), (), ("A=2",)),
    ],
)
def test_environment(below: tuple[str, ...], above: tuple[str, ...], result: tuple[str, ...]) -> None:
    env = merged({"env": below, "cmd": ("c",)}, env=above).process.env
    assert tuple(entry for entry in env if not entry.startswith("HOSTNAME=")) == result


@pytest.mark.parametrize(
    "request_",
    [
        {"env": ("=x",)}, {"env": ("A=\0",)}, {"args": ("a\0",)}, {"workdir": "rel"}, {"workdir": "/a\0"},
        {"user": "a\0"},
        {"ports": (PortMapping(80, 8080), PortMapping(81, 8080))}, {"args": ("\udcff",)}, {"env": ("A=\udcff",)},
        {"workdir": "/\udcff"}, {"hostname": "\udcff"}, {"labels": (("a", "\udcff"),)},
    ],
)  # fmt: skip
def test_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        merged({"cmd": ("c",)}, **request_)


def test_user_workdir_labels_hostname() -> None:
    image: dict[str, Any] = {"cmd": ("c",), "user": "u", "working_dir": "/w", "labels": (("a", "1"), ("b", "2"))}
    spec = merged(image)
    assert (spec.process.user, spec.process.cwd, spec.isolation.hostname) == ("u", "/w", "f" * 12)
    spec = merged(image, user="", workdir="/x", labels=(("a", "3"),), hostname="h")
    assert (spec.process.user, spec.process.cwd, spec.isolation.hostname) == ("", "/x", "h")
    assert dict(spec.labels) == {"a": "3", "b": "2"}


def test_ports() -> None:
    image = {"cmd": ("c",), "exposed_ports": ("80", "53/udp")}
    spec = merged(image, ports=(PortMapping(80, 8080),), expose=("90",))
    assert spec.ports == (PortMapping(80, 8080),)
    assert spec.exposed == ("80/tcp", "53/udp", "90/tcp")
    spec = merged(image, ports=(PortMapping(80, 8080),), publish_all=True)
    assert spec.ports == (PortMapping(80, 8080), PortMapping(53, 0, "udp"))
    both = (PortMapping(80, 8080), PortMapping(80, 8080, "udp"), PortMapping(80, 0), PortMapping(81, 0))
    assert merged(image, ports=both).ports == both


@pytest.mark.parametrize(
    ("of_image", "asked", "signal"),
    [("", None, "SIGTERM"), ("SIGQUIT", None, "SIGQUIT"), ("SIGQUIT", "INT", "INT"), ("NONSENSE", None, "SIGTERM")],
)
def test_stop_signal(of_image: str, asked: str | None, signal: str) -> None:
    """An image that names nonsense must not make a container that can't be stopped."""
    assert merged({"cmd": ("c",), "stop_signal": of_image}, stop_signal=asked).stop_signal == signal


def test_privileged_has_no_seccomp_unless_asked() -> None:
    image = {"cmd": ("c",)}
    assert merged(image).isolation.seccomp == "default"
    assert merged(image, privileged=True).isolation.seccomp == "unconfined"


@pytest.mark.parametrize("name", ["web", "/web", "a1", "A_b.c-d", "0x"])
def test_names(name: str) -> None:
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["", "a", "/", "//web", "-a", "_a", ".a", "a b", "a/b", "é1", "ab\n", "a\0"])
def test_names_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


def test_new_names_are_names() -> None:
    for _ in range(50):
        assert check_name(new_name())
        assert re.fullmatch("[0-9a-f]{64}", new_id())


def test_what_docker_shows_of_it() -> None:
    """Published ports are exposed; the name that each container is given is no variable of its configuration."""
    ports = (PortMapping(80, 8080), PortMapping(53, 53, "udp"))
    spec = merged({"cmd": ("c",), "env": ("A=1",), "exposed_ports": ("80/tcp", "443/tcp")}, ports=ports)
    assert spec.exposed_ports == ("80/tcp", "443/tcp", "53/udp")
    assert spec.env == ("A=1",)
    assert len(spec.process.env) == 2
    assert merged({"cmd": ("c",)}, env=("HOSTNAME=mine",)).env == ("HOSTNAME=mine",)
