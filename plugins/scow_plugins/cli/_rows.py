"""Containers and images as the rows of `ps` and `images`, under docker's field names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from scow.api import BindMount, Container, PortMapping, Status
from scow.engine import ImageSummary
from scow_plugins.cli._functions import Method, go_quote
from scow_plugins.cli._names import split_name
from scow_plugins.cli._units import ago, created_at, ellipsis, human_duration, human_size

CONTAINER_TITLES: Final = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}
CONTAINER_COLUMNS: Final = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
IMAGE_TITLES: Final = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
_NONE: Final = "<none>"


def container_row(container: Container, now: float, *, truncate: bool = True) -> dict[str, Any]:
    """One line of `ps`."""
    spec = container.spec
    labels = dict(spec.labels)
    command = command_line(spec.process.args)
    return {
        "Command": go_quote(ellipsis(command, 20) if truncate else command),
        "CreatedAt": created_at(spec.created),
        "ID": spec.id[:12] if truncate else spec.id,
        "Image": _image(spec.image, truncate),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": Method(lambda name: labels.get(name, "")),
        "Mounts": ",".join(ellipsis(text, 15) if truncate else text for text in _mounts(container)),
        "Names": spec.name,
        "Networks": spec.network,
        "Platform": "linux",
        "Ports": ports(container),
        "RunningFor": ago(spec.created, now),
        "State": container.state.status.value,
        "Status": status(container, now),
    }


def _image(name: str, truncate: bool) -> str:
    """The name as the user gave it; without its digest in a table, if anything is left then."""
    return (name.partition("@")[0] if truncate else "") or name


def _mounts(container: Container) -> Iterable[str]:
    for mount in container.spec.isolation.mounts:
        yield mount.source if isinstance(mount, BindMount) else mount.target


def command_line(args: Sequence[str]) -> str:
    """A command in one line; arguments with spaces are set in quotes."""
    return " ".join([*args[:1], *(f"'{arg}'" if " " in arg else arg for arg in args[1:])])


def status(container: Container, now: float) -> str:
    """`Up 3 seconds`, `Exited (0) 4 hours ago`, `Created`."""
    state = container.state
    if state.status in (Status.RUNNING, Status.PAUSED):
        up = f"Up {human_duration(now - state.started)}"
        return f"{up} (Paused)" if state.status is Status.PAUSED else up
    if state.status is Status.EXITED:
        return f"Exited ({state.exit_code}) {ago(state.finished, now)}"
    return {Status.CREATED: "Created", Status.REMOVING: "Removal In Progress"}.get(state.status, "Dead")


def ports(container: Container) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`: published ports in runs, then those that are only exposed."""
    if container.state.status not in (Status.RUNNING, Status.PAUSED):
        return ""
    published = container.state.ports
    shown = [_run(run) for run in _runs(published)]
    taken = {f"{port.container_port}/{port.protocol}" for port in published}
    exposed = [PortMapping(int(port.partition("/")[0]), 0, port.partition("/")[2]) for port in container.spec.exposed
               if port not in taken and port.partition("/")[0].isdigit()]  # fmt: skip
    shown += [_inner(run) for run in _runs(exposed)]
    return ", ".join(shown)


def _runs(mappings: Iterable[PortMapping]) -> list[list[PortMapping]]:
    """Neighbours together: same address and protocol, both ports one higher."""
    runs: list[list[PortMapping]] = []
    for each in sorted(mappings, key=lambda port: (port.host_ip, port.protocol, port.container_port, port.host_port)):
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and (last.host_ip, last.protocol, last.container_port + 1)
            == (each.host_ip, each.protocol, each.container_port)
            and each.host_port == (last.host_port and last.host_port + 1)
        ):
            runs[-1].append(each)
        else:
            runs.append([each])
    return runs


def _run(run: list[PortMapping]) -> str:
    ip = run[0].host_ip or "0.0.0.0"
    outer = _span(run[0].host_port, run[-1].host_port)
    return f"{f'[{ip}]' if ':' in ip else ip}:{outer}->{_inner(run)}"


def _inner(run: list[PortMapping]) -> str:
    return f"{_span(run[0].container_port, run[-1].container_port)}/{run[0].protocol}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def image_rows(
    image: ImageSummary, now: float, *, truncate: bool = True, digests: bool = False
) -> list[dict[str, Any]]:
    """Lines of `images`: one per name (and digest, where those are wanted), at least one."""
    known = {split_name(text)[0]: text.partition("@")[2] for text in image.repo_digests}
    names = [split_name(name) for name in image.names] or [(split_name(text)[0], "") for text in image.repo_digests]
    return [
        {
            "CreatedAt": created_at(image.created) if image.created > 0 else "N/A",
            "CreatedSince": ago(image.created, now),
            "Digest": known.get(repository) or (str(image.manifest_digest) if digests and not known else _NONE),
            "ID": image.id.short if truncate else str(image.id),
            "Repository": repository,
            "Size": human_size(image.size, 3),
            "Tag": tag or _NONE,
        }
        for repository, tag in names or [(_NONE, "")]
    ]
