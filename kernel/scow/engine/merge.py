"""A create request and an image's own wishes become a container's specification. Pure.

The rules are Docker's: a new entrypoint drops the image's command; the image's variables come first, the user's
override them; what neither says is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from scow.engine.types import CreateRequest
from scow.errors import Invalid
from scow.model.container import ContainerSpec
from scow.model.image import ImageConfig
from scow.model.network import PortMapping, parse_ports
from scow.model.process import Isolation, ProcessSpec
from scow.model.signals import signal_number

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the engine has decided before the merge: names, plugins, the image."""

    id: str
    name: str
    image_id: str
    manifest: str
    layers: tuple[str, ...]
    layer_drivers: tuple[str, ...]
    storage: str
    network: str
    runtime: str
    now: float
    #: The host's own name.
    host: str = "localhost"


def merge(request: CreateRequest, image: ImageConfig, chosen: Chosen) -> ContainerSpec:
    """The specification. Raises Invalid when there is nothing to run."""
    # Where the network is the host's, so is the name by which others find the machine (as Docker has it).
    hostname = request.hostname or (chosen.host if chosen.network == "host" else chosen.id[:12])
    spec = ContainerSpec(
        id=chosen.id,
        name=chosen.name,
        image=request.image,
        image_id=chosen.image_id,
        manifest=chosen.manifest,
        layers=chosen.layers,
        layer_drivers=chosen.layer_drivers,
        storage=chosen.storage,
        network=chosen.network,
        runtime=chosen.runtime,
        process=_process(request, image, hostname),
        isolation=_isolation(request, hostname),
        created=chosen.now,
        ports=_ports(request, image),
        exposed=_exposed(request, image),
        labels=tuple({**dict(image.labels), **dict(request.labels)}.items()),
        stdin_open=request.stdin_open,
        stdin_once=request.stdin_once,
        auto_remove=request.auto_remove,
        detached=request.detached,
        stop_signal=_stop_signal(request, image),
        stop_timeout=10 if request.stop_timeout is None else request.stop_timeout,
        restart=request.restart,
        nameservers=request.nameservers,
        search=request.search,
        dns_options=request.dns_options,
        extra_hosts=request.extra_hosts,
        entry_words=len(image.entrypoint if request.entrypoint is None else request.entrypoint),
    )
    check_text(spec)
    check_process(spec.process)
    return spec


def check_text(spec: ContainerSpec | ProcessSpec) -> None:
    """What is kept and sent as JSON has to be text; Python hands bytes that are no UTF-8 on as lone surrogates."""
    try:
        msgspec.json.encode(spec)
    except UnicodeEncodeError as error:
        raise Invalid(f"{error.object!r} is not valid UTF-8") from None


def check_process(process: ProcessSpec) -> None:
    """What execve(2) can't take: a zero byte ends every string there. Raises Invalid."""
    for word in (*process.args, *process.env, process.cwd, process.user, *process.groups):
        if "\0" in word:
            raise Invalid(f"{word!r} contains a zero byte")


def _stop_signal(request: CreateRequest, image: ImageConfig) -> str:
    """The request's, which was checked; the image's, unless that is nonsense: a container must be stoppable."""
    try:
        signal_number(image.stop_signal)
    except Invalid:
        return request.stop_signal or "SIGTERM"
    return request.stop_signal or image.stop_signal


def command(request: CreateRequest, image: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command joined. Raises Invalid when both are empty."""
    if request.entrypoint is not None:
        args = request.entrypoint + request.args
    else:
        args = image.entrypoint + (request.args or image.cmd)
    if not args:
        raise Invalid(f"image {request.image} names no command", hint="give one: scow run IMAGE COMMAND")
    return args


def environment(request: CreateRequest, image: ImageConfig, below: Mapping[str, str] = NOTHING) -> tuple[str, ...]:
    """`below`, overridden by the image's variables, overridden by the request's; an entry without `=` removes."""
    merged = dict(below)
    for entry in (*image.env, *request.env):
        key, equals, value = entry.partition("=")
        if not key:
            raise Invalid(f"environment variable {entry!r} has no name")
        if equals:
            merged[key] = value
        else:
            merged.pop(key, None)
    return tuple(f"{key}={value}" for key, value in merged.items())


def _process(request: CreateRequest, image: ImageConfig, hostname: str) -> ProcessSpec:
    return ProcessSpec(
        args=command(request, image),
        env=environment(request, image, {"HOSTNAME": hostname}),
        cwd=_workdir(request.workdir if request.workdir is not None else image.working_dir),
        user=request.user if request.user is not None else image.user,
        tty=request.tty,
        groups=request.groups,
        privileged=request.privileged,
        rows=request.rows,
        columns=request.columns,
    )


def _workdir(path: str) -> str:
    if path and not path.startswith("/"):
        raise Invalid(f"working directory {path!r} is not an absolute path")
    return path or "/"


def _isolation(request: CreateRequest, hostname: str) -> Isolation:
    return Isolation(
        hostname=hostname,
        domainname=request.domainname,
        privileged=request.privileged,
        cap_add=request.cap_add,
        cap_drop=request.cap_drop,
        read_only=request.read_only,
        seccomp="unconfined" if request.privileged and request.seccomp == "default" else request.seccomp,
        no_new_privileges=request.no_new_privileges,
        unmasked=request.unmasked,
        mounts=request.mounts,
        resources=request.resources,
        sysctls=request.sysctls,
        init=request.init,
    )


def _exposed(request: CreateRequest, image: ImageConfig) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(port if "/" in port else f"{port}/tcp" for port in (*image.exposed_ports, *request.expose))
    )


def _ports(request: CreateRequest, image: ImageConfig) -> tuple[PortMapping, ...]:
    ports = list(request.ports)
    taken = {(port.protocol, port.container_port) for port in ports}
    if request.publish_all:
        for exposed in _exposed(request, image):
            ports += [p for p in parse_ports(exposed) if (p.protocol, p.container_port) not in taken]
    seen: set[tuple[str, str, int]] = set()
    for port in ports:
        key = (port.host_ip, port.protocol, port.host_port)
        if port.host_last:
            continue  # one that is still free is found at start
        if port.host_port and key in seen:
            raise Invalid(f"port {port.host_port}/{port.protocol} of the host is published twice")
        seen.add(key)
    return tuple(ports)
