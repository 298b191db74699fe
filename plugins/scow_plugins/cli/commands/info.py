"""`scow info`: the engine and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

if TYPE_CHECKING:
    from scow.engine import EngineInfo

COMMAND = Command("[OPTIONS]", (Flag("format", "json, or a Go template", "string", "f"),))


async def main(cli: Cli, args: Args) -> int:
    """Prints facts by name; what the machine lacks goes to standard error."""
    from scow_plugins.cli._format import render
    from scow_plugins.cli._functions import to_json

    async with cli.engine() as engine:
        info = await engine.info()
    form = args.text("format")
    if form:
        cli.out(to_json(_shape(info)) if form == "json" else render(form, _shape(info)))
        return 0
    for line in _lines(info):
        cli.out(line)
    for warning in info.warnings:
        cli.err(f"WARNING: {warning}")
    return 0


def _shape(info: EngineInfo) -> dict[str, Any]:
    return {
        "ServerVersion": info.version,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": info.storage,
        "NetworkDriver": info.network,
        "DefaultRuntime": info.runtime,
        "KernelVersion": info.kernel,
        "OSType": "linux",
        "Architecture": info.architecture,
        "CgroupVersion": info.cgroup,
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "DockerRootDir": info.root,
        "RunDir": info.run,
        "Warnings": list(info.warnings),
    }


def _lines(info: EngineInfo) -> list[str]:
    from scow_plugins.cli._units import binary_size

    return [
        f"Containers: {info.containers}",
        f" Running: {info.running}",
        f" Paused: {info.paused}",
        f" Stopped: {info.stopped}",
        f"Images: {info.images}",
        f"Version: {info.version}",
        f"Storage Driver: {info.storage}",
        f"Network Driver: {info.network}",
        f"Runtime: {info.runtime}",
        f"Cgroup Version: {info.cgroup}",
        f"Kernel Version: {info.kernel}",
        f"Architecture: {info.architecture}",
        f"CPUs: {info.cpus}",
        f"Total Memory: {binary_size(info.memory)}",
        f"Root Dir: {info.root}",
        f"Run Dir: {info.run}",
    ]
