"""What limits are written into which file of which controller, for both versions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scow.api import Invalid, Resources
from scow_plugins.namespaces._ulimits import check_ulimits

__all__ = ["Setting", "check", "settings"]

_PERIOD: Final = 100_000
_SMALLEST_MEMORY: Final = 6 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """One write. `optional`: the file isn't there on every kernel, and nothing is lost without it."""

    controller: str
    file: str
    value: str
    flag: str
    optional: bool = False


def check(resources: Resources) -> None:
    """Refuse what can't be meant. Raises Invalid."""
    memory, swap = resources.memory, resources.memory_swap
    if memory is not None and memory < _SMALLEST_MEMORY:
        raise Invalid("memory: the smallest limit is 6 MiB", hint="ask for at least 6m")
    if swap is not None and swap != -1:
        if memory is None:
            raise Invalid("memory-swap: needs a memory limit too", hint="give --memory")
        if swap < memory:
            raise Invalid("memory-swap: smaller than the memory limit", hint="it counts memory and swap together")
    if resources.cpus is not None and resources.cpus < 0.01:
        raise Invalid("cpus: the smallest share is 0.01", hint="ask for at least 0.01")
    if resources.cpu_shares is not None and not 2 <= resources.cpu_shares <= 262144:
        raise Invalid("cpu-shares: from 2 to 262144")
    parent = resources.cgroup_parent
    if any(part in (".", "..") for part in parent.split("/")) or "\0" in parent:
        raise Invalid(f"cgroup-parent {parent!r}: not a path from the root of the control groups")
    check_ulimits(resources.ulimits)


def settings(resources: Resources, version: int) -> tuple[Setting, ...]:
    """All writes for these resources, in the order in which the kernel takes them."""
    return (*_memory(resources, version), *_cpu(resources, version), *_pids(resources))


def _memory(resources: Resources, version: int) -> tuple[Setting, ...]:
    memory, both = resources.memory, resources.memory_swap
    if memory is None:
        return ()
    if both is None:
        both = 2 * memory
    if version == 2:
        swap = "max" if both == -1 else str(both - memory)
        return (
            Setting("memory", "memory.max", str(memory), "--memory"),
            Setting("memory", "memory.swap.max", swap, "--memory-swap", optional=True),
        )
    return (
        Setting("memory", "memory.limit_in_bytes", str(memory), "--memory"),
        Setting("memory", "memory.memsw.limit_in_bytes", str(both), "--memory-swap", optional=True),
    )


def _cpu(resources: Resources, version: int) -> tuple[Setting, ...]:
    found = []
    if resources.cpu_shares is not None:
        weight = 1 + (resources.cpu_shares - 2) * 9999 // 262142
        file, value = ("cpu.weight", weight) if version == 2 else ("cpu.shares", resources.cpu_shares)
        found.append(Setting("cpu", file, str(value), "--cpu-shares"))
    if resources.cpus is not None:
        quota = max(1000, round(resources.cpus * _PERIOD))
        if version == 2:
            found.append(Setting("cpu", "cpu.max", f"{quota} {_PERIOD}", "--cpus"))
        else:
            found.append(Setting("cpu", "cpu.cfs_period_us", str(_PERIOD), "--cpus"))
            found.append(Setting("cpu", "cpu.cfs_quota_us", str(quota), "--cpus"))
    if resources.cpuset_cpus:
        found.append(Setting("cpuset", "cpuset.cpus", resources.cpuset_cpus, "--cpuset-cpus"))
    return tuple(found)


def _pids(resources: Resources) -> tuple[Setting, ...]:
    if resources.pids is None:
        return ()
    value = str(resources.pids) if resources.pids > 0 else "max"
    return (Setting("pids", "pids.max", value, "--pids-limit"),)
