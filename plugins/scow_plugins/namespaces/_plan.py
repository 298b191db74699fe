"""From a request and what the host has to a tuple of operations. Pure: nothing here touches the machine."""

from __future__ import annotations

import os.path
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scow.api import ExecRequest, Invalid, Isolation, Mount, TmpfsMount, Unsupported
from scow.api.linux import AttrFlag, MountFlag
from scow_plugins.namespaces import _defaults as defaults
from scow_plugins.namespaces._ops import (
    Bind,
    Copied,
    Device,
    Directory,
    Filesystem,
    Mask,
    Op,
    ReadOnly,
    Seal,
    Symlink,
    WriteFile,
)

__all__ = ["HostDevice", "HostFacts", "plan"]

_QUIET: Final = AttrFlag.NOSUID | AttrFlag.NODEV | AttrFlag.NOEXEC
_TAKEN_BACK: Final = {"exec": AttrFlag.NOEXEC, "suid": AttrFlag.NOSUID, "dev": AttrFlag.NODEV}
_TIMES: Final = {
    "noatime": AttrFlag.NOATIME,
    "nodiratime": AttrFlag.NODIRATIME,
    "strictatime": AttrFlag.STRICTATIME,
}
_PROPAGATION: Final = {
    "": MountFlag.PRIVATE,
    "private": MountFlag.PRIVATE,
    "rprivate": MountFlag.PRIVATE,
    "slave": MountFlag.SLAVE,
    "rslave": MountFlag.SLAVE,
}


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A node in the host's /dev; `mode` with the type's bits."""

    path: str
    mode: int
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What of the host goes into a plan: control groups to show (name, directory), and devices when privileged."""

    cgroups: tuple[tuple[str, str], ...] = ()
    devices: tuple[HostDevice, ...] = ()


def plan(request: ExecRequest, host: HostFacts) -> tuple[Op, ...]:
    """All operations, in order. Raises Invalid, Unsupported."""
    isolation = request.isolation
    mounts = {_target(mount): mount for mount in isolation.mounts}
    etc = {target: source for source, target in request.etc if target not in mounts}
    placed: dict[str, Op] = {target: Copied(source, target, isolation.read_only) for target, source in etc.items()}
    placed |= {target: _user_mount(mount) for target, mount in mounts.items()}
    ops: list[Op] = [Filesystem("proc", "/proc", _source("proc"), attributes=_QUIET, strict=True)]
    if "/sys" not in mounts:
        ops += _sys(isolation, host, shown="/sys/fs/cgroup" not in mounts)
    if "/dev" not in mounts:
        ops += (op for op in _dev(isolation, host) if op.target not in mounts)
    ops += (placed[target] for target in sorted(placed, key=lambda target: target.count("/")))
    # After the mounts, so that it is made in them, and while the root can still be written.
    ops.append(Directory(request.process.cwd or "/"))
    ops += _sysctls(isolation, own_network=request.endpoint.netns is not None)
    if not isolation.privileged and not isolation.unmasked:
        ops += (Mask(path) for path in defaults.MASKED)
        ops += (ReadOnly(path) for path in defaults.READ_ONLY)
    if isolation.read_only:
        ops.append(Seal("/"))
    return tuple(ops)


def _source(name: str) -> tuple[tuple[str, str | None], ...]:
    """What the mount table calls it."""
    return (("source", name),)


def _sys(isolation: Isolation, host: HostFacts, *, shown: bool) -> Iterator[Op]:
    read_only = AttrFlag(0) if isolation.privileged else AttrFlag.RDONLY
    yield Filesystem("sysfs", "/sys", _source("sysfs"), attributes=_QUIET | read_only, strict=True)
    if not shown or not host.cgroups:
        return
    if host.cgroups[0][0] == "":
        yield _cgroup(host.cgroups[0][1], "/sys/fs/cgroup", isolation)
        return
    yield Filesystem("tmpfs", "/sys/fs/cgroup", (*_source("cgroup"), ("mode", "755")), _QUIET, strict=True)
    for name, directory in host.cgroups:
        target = f"/sys/fs/cgroup/{name}"
        yield Directory(target)
        yield _cgroup(directory, target, isolation)
        # Controllers that are mounted together have names of their own too.
        for single in name.split(",") if "," in name else ():
            yield Symlink(f"/sys/fs/cgroup/{single}", name)
    if not isolation.privileged:
        yield Seal("/sys/fs/cgroup")


def _cgroup(directory: str, target: str, isolation: Isolation) -> Bind:
    return Bind(
        directory, target, not isolation.privileged, recursive=False, propagation=MountFlag.PRIVATE, optional=True
    )


_Dev = Filesystem | Device | Directory | Symlink


def _dev(isolation: Isolation, host: HostFacts) -> Iterator[_Dev]:
    size = str(isolation.resources.shm_size)
    yield Filesystem("tmpfs", "/dev", (*_source("tmpfs"), ("mode", "755"), ("size", "65536k")), AttrFlag.NOSUID)
    names = set()
    for name, major, minor in defaults.DEVICES:
        names.add(f"/dev/{name}")
        yield Device(f"/dev/{name}", stat.S_IFCHR | 0o666, major, minor)
    for device in host.devices if isolation.privileged else ():
        if device.path not in names:
            yield Device(device.path, device.mode, device.major, device.minor)
    for name, to in defaults.LINKS:
        yield Symlink(f"/dev/{name}", to)
    pts = (*_source("devpts"), ("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"))
    for directory in ("/dev/pts", "/dev/shm", "/dev/mqueue"):
        yield Directory(directory)
    yield Filesystem("devpts", "/dev/pts", pts, AttrFlag.NOSUID | AttrFlag.NOEXEC)
    yield Filesystem("tmpfs", "/dev/shm", (*_source("shm"), ("mode", "1777"), ("size", size)), _QUIET)
    yield Filesystem("mqueue", "/dev/mqueue", _source("mqueue"), _QUIET)


def _target(mount: Mount) -> str:
    """The place inside as written, without `.`, `..` and double slashes. Raises Invalid."""
    if not mount.target.startswith("/") or "\0" in mount.target:
        raise Invalid(f"mount target {mount.target!r} is not an absolute path in the container")
    target = os.path.normpath(mount.target)
    target = "/" + target.lstrip("/")
    if target == "/":
        raise Invalid(f"mount target {mount.target!r} would replace the container's root", hint="mount beneath it")
    if target == "/proc" or target.startswith("/proc/"):
        raise Invalid(f"mount target {mount.target!r} is inside /proc", hint="choose a place that isn't the kernel's")
    return target


def _user_mount(mount: Mount) -> Op:
    target = _target(mount)
    if isinstance(mount, TmpfsMount):
        options: list[tuple[str, str | None]] = [*_source("tmpfs"), ("mode", f"{mount.mode:o}")]
        if mount.size is not None:
            options.append(("size", str(mount.size)))
        return Filesystem("tmpfs", target, (*options, *mount.options), _attributes(mount))
    if mount.propagation in ("shared", "rshared"):
        raise Unsupported(
            f"mount {target!r}: propagation {mount.propagation!r} can't lead out of a container",
            hint="rslave sees what the host mounts later",
        )
    if mount.propagation not in _PROPAGATION:
        raise Invalid(f"mount {target!r}: there is no propagation {mount.propagation!r}")
    return Bind(mount.source, target, mount.read_only, mount.recursive, _PROPAGATION[mount.propagation])


def _attributes(mount: TmpfsMount) -> int:
    attributes = _QUIET | (AttrFlag.RDONLY if mount.read_only else AttrFlag(0))
    for word in mount.flags:
        if word in _TAKEN_BACK:
            attributes &= ~_TAKEN_BACK[word]
        elif word in _TIMES:
            attributes |= _TIMES[word]
        else:
            raise Invalid(f"tmpfs {mount.target!r}: there is no option {word!r}")
    # Of the two the kernel takes one only (mount_setattr(2)).
    return attributes & ~AttrFlag.NOATIME if attributes & AttrFlag.STRICTATIME else attributes


def _sysctls(isolation: Isolation, *, own_network: bool) -> Iterator[Op]:
    for name, value in isolation.sysctls:
        own = name in defaults.SYSCTLS or name.startswith(defaults.SYSCTL_PREFIXES)
        if not (own or (own_network and name.startswith("net."))) or "/" in name or ".." in name:
            raise Invalid(f"sysctl {name!r} doesn't belong to the container", hint="it would change the whole machine")
        yield WriteFile("/proc/sys/" + name.replace(".", "/"), value)
