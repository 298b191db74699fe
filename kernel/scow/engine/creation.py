"""Creating a container: the image made local, the plugins picked, the request merged, the record written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from scow.engine import images
from scow.engine.core import Core
from scow.engine.merge import Chosen, merge
from scow.engine.names import check_name, new_id, new_name
from scow.engine.netwarnings import network_warnings
from scow.engine.types import CreateRequest, Progress
from scow.errors import Exists, Invalid, NotFound
from scow.model.container import Container
from scow.model.platform import Platform
from scow.model.process import BindMount
from scow.model.reference import Located, parse_reference
from scow.model.signals import signal_number
from scow.state import containers
from scow.state import images as rows

Report = Callable[[Progress], None]


#: What else the processors of an architecture run (containerd's platforms.Only).
_ALSO_RUNS: Final = {"amd64": "386", "arm64": "arm"}


async def create_container(
    core: Core, request: CreateRequest, report: Report, warn: Callable[[str], None] | None = None
) -> Container:
    """Create a container. Raises as `Engine.create` says."""
    name = check_name(request.name) if request.name is not None else None
    _check_mounts(request)
    if request.stop_signal is not None:
        signal_number(request.stop_signal)
    storage = core.registry.pick("mount", request.storage or "").name
    network = core.registry.pick("network", request.network or "").name
    runtime = core.registry.pick("exec", request.runtime or "").name
    if name is not None:
        _check_free(core, name)  # before an image is pulled in vain; the insert checks again
    image = await _local_image(core, request, report, storage)
    manifest, config = images.manifest_of(core, image), images.config_of(core, image)
    if warn is not None and (strange := _strange(request, config.platform)) is not None:
        warn(strange)
    if warn is not None:
        for sentence in network_warnings(core, network, request.ports):
            warn(sentence)
    snapshots = await images.unpack_stored(core, manifest, config, storage)
    spec = merge(
        request,
        config,
        Chosen(
            id=new_id(),
            name=name or new_name(),
            image_id=str(image.config),
            manifest=str(image.manifest),
            layers=tuple(str(snapshot.chain_id) for snapshot in snapshots),
            layer_drivers=tuple(snapshot.driver for snapshot in snapshots),
            storage=storage,
            network=network,
            runtime=runtime,
            host=os.uname().nodename,
            now=time.time(),
        ),
    )
    while True:
        try:
            container = containers.insert(core.database, spec)
            break
        except Exists:
            if name is not None:
                raise
            spec = replace(spec, name=new_name())
    rows.touch(core.database, image.manifest)
    core.paths.container(spec.id).mkdir(mode=0o700)
    core.events.emit_container("create", spec)
    return container


def _strange(request: CreateRequest, offered: Platform) -> str | None:
    """What is to be said of an image that is for another platform than its user may think, in Docker's words.

    Variants don't count: which of them this machine's processor runs, the kernel doesn't say. One that tells no
    architecture (`import` of old) may be for any.
    """
    if not offered.architecture:
        return None
    if (wanted := request.platform) is not None:
        # An index has what was asked for or is refused; a manifest alone is all that its name has.
        if offered.rank(wanted) is not None:
            return None
        return f"{request.image} is for {offered}, not for {wanted}: there is no other image of that name"
    host = Platform.host()
    if offered.os == host.os and offered.architecture in (host.architecture, _ALSO_RUNS.get(host.architecture)):
        return None
    return (
        f"The requested image's platform ({offered}) does not match the detected host platform ({host}) "
        "and no specific platform was requested"
    )


async def _local_image(core: Core, request: CreateRequest, report: Report, storage: str) -> rows.ImageRow:
    found = None if request.pull == "always" else images.find(core, request.image)
    if found is not None and request.platform is not None:
        offered = images.config_of(core, found).platform
        if offered.rank(request.platform) is None:
            found = None
    if found is not None and (request.pull == "never" or not _moves(core, request.image)):
        return found
    if request.pull == "never":
        raise NotFound(f"image {request.image} is not here, and --pull never forbids fetching it")
    info = await images.pull(core, request.image, request.platform, report, storage)
    row = rows.image_by_id(core.database, info.manifest_digest.hex)
    if row is None:
        raise NotFound(f"image {request.image} was removed while it was pulled")
    return row


def _moves(core: Core, name: str) -> bool:
    """Whether a name means what lies at a place now, which is asked again: a file, unlike a tag, was never pulled."""
    try:
        reference = parse_reference(name, core.registry.transports())
    except Invalid:
        return False  # an ID
    return isinstance(reference, Located) and reference.transport != "host"


def _check_free(core: Core, name: str) -> None:
    if any(container.spec.name == name for container in containers.listing(core.database)):
        raise Exists(
            f"the container name {name!r} is in use",
            hint=f"remove it (`scow rm {name}`) or choose another name",
        )


def _check_mounts(request: CreateRequest) -> None:
    for mount in request.mounts:
        if isinstance(mount, BindMount) and not os.path.lexists(mount.source):
            raise NotFound(
                f"the mount source {mount.source} doesn't exist", hint=f"create it first: mkdir -p {mount.source}"
            )
