"""The default runtime: a container made of this process's own system calls, without any other program.

The rule of this file: claims and the probe only; what does the work is imported after a claim has said yes.
"""

from __future__ import annotations

import os
from pathlib import Path

from scow.api import AdoptRequest, ContainerProcess, ExecHeld, ExecRequest, PluginContext, ProbeResult, hookimpl

__all__ = ["Plugin"]

_NAMESPACES = ("mnt", "pid", "uts", "ipc", "cgroup", "net")
_MACHINES = ("x86_64", "aarch64")
#: mount_setattr(2); everything else needed is older.
_OLDEST_KERNEL = (5, 12)
_CAP_SYS_ADMIN = 21


class Plugin:
    """`exec` by namespaces, control groups, capabilities and seccomp."""

    rests = True

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def exec(self, request: ExecRequest) -> ExecHeld | None:
        """Claims requests for this driver."""
        if request.driver != self._context.name:
            return None
        from scow_plugins.namespaces._container import held

        return held(request)

    def adopt(self, request: AdoptRequest) -> ContainerProcess:
        """Goes on with a container that another supervisor has started."""
        from scow_plugins.namespaces._adopted import adopt

        return adopt(request)

    def probe(self) -> ProbeResult | None:
        """Says what this machine lacks."""
        if os.geteuid() != 0:
            return ProbeResult("needs root: run scow as root")
        machine = os.uname().machine
        if machine not in _MACHINES:
            return ProbeResult(f"knows the system calls of {' and '.join(_MACHINES)}, not those of {machine}")
        release = os.uname().release
        if _version(release) < _OLDEST_KERNEL:
            return ProbeResult(f"needs Linux {'.'.join(map(str, _OLDEST_KERNEL))} or newer, this is {release}")
        missing = [name for name in _NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")]
        if missing:
            return ProbeResult(f"this kernel has no {', '.join(missing)} namespaces")
        if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
            return ProbeResult("this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)")
        if not _effective_capabilities() >> _CAP_SYS_ADMIN & 1:
            return ProbeResult("root here has no CAP_SYS_ADMIN: inside of a container, run that one with --privileged")
        return None

    @staticmethod
    def warm() -> None:
        """What serves every container later: the launcher calls it once."""
        from scow_plugins.namespaces._caps import DEFAULT
        from scow_plugins.namespaces._seccomp.choose import choose_program

        choose_program("default", DEFAULT)

    def reclaim(self, handle: dict[str, str | int]) -> None:
        """Kills what a dead supervisor left in a control group, and removes it."""
        from scow_plugins.namespaces._cgroups.reclaim import reclaim

        reclaim(str(handle["cgroup"]))


def _version(release: str) -> tuple[int, ...]:
    numbers = release.split("-")[0].split("+")[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdigit())


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
