"""What an engine can say about itself: its plugins, and the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path

from scow import __version__
from scow.engine.core import Core
from scow.engine.netwarnings import network_warnings
from scow.engine.types import EngineInfo, PluginInfo
from scow.errors import ScowError
from scow.model.container import Status
from scow.plugins import STAGES
from scow.state import containers
from scow.state import images as rows


def list_plugins(core: Core) -> list[PluginInfo]:
    """Every plugin: what it is for, where it comes from, whether it works here, for which stages it is picked."""
    picked = {stage: _picked(core, stage) for stage in STAGES}
    return [
        PluginInfo(
            name=plugin.name,
            stages=plugin.stages,
            distribution=plugin.factory.distribution,
            version=plugin.factory.version,
            problem=plugin.problem(),
            picked=tuple(stage for stage in plugin.stages if id(plugin) in picked[stage]),
        )
        for plugin in core.registry.plugins()
    ]


def _picked(core: Core, stage: str) -> set[int]:
    """resolve and fetch ask all plugins; of the others one is picked (unpack goes with mount)."""
    if stage in ("resolve", "fetch"):
        return {id(plugin) for plugin in core.registry.plugins() if plugin.problem() is None}
    try:
        plugin = core.registry.pick("mount" if stage == "unpack" else stage)
    except ScowError:
        return set()
    return {id(plugin)}


def _name(core: Core, stage: str) -> str:
    try:
        return core.registry.pick(stage).name
    except ScowError as error:
        return f"none ({error.message})"


def describe_engine(core: Core) -> EngineInfo:
    """The facts of `scow info`."""
    states = [container.state.status for container in containers.listing(core.database)]
    uname = os.uname()
    return EngineInfo(
        version=__version__,
        root=str(core.paths.root),
        run=str(core.paths.run),
        containers=len(states),
        running=states.count(Status.RUNNING),
        paused=states.count(Status.PAUSED),
        stopped=len(states) - states.count(Status.RUNNING) - states.count(Status.PAUSED),
        images=len(rows.all_images(core.database)),
        storage=_name(core, "mount"),
        network=_name(core, "network"),
        runtime=_name(core, "exec"),
        kernel=uname.release,
        architecture=uname.machine,
        cgroup=_cgroup(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        warnings=_warnings(core),
    )


def _cgroup() -> str:
    """v2, v1, or hybrid: both hierarchies, with the controllers on v1 (cgroups(7))."""
    types = {line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    if "cgroup" in types:
        return "hybrid" if "cgroup2" in types else "v1"
    return "v2" if "cgroup2" in types else "none"


def _warnings(core: Core) -> tuple[str, ...]:
    warnings = []
    status = Path("/proc/self/status").read_text().splitlines()
    bounding = next((line.split()[1] for line in status if line.startswith("CapBnd")), "0")
    if not int(bounding, 16) >> 24 & 1:
        warnings.append("CAP_SYS_RESOURCE is missing here: resource limits can't be raised, nor oom_score_adj lowered")
    if _cgroup() == "none":
        warnings.append("no cgroup hierarchy is mounted: memory, CPU and process limits can't be set")
    try:
        warnings += network_warnings(core, core.registry.pick("network").name)
    except ScowError:
        pass  # there is none: the line of the network says why
    return tuple(warnings)
