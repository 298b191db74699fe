"""A container's control group: one directory in every hierarchy, made, joined, read, emptied and removed.

Everything here is short and synchronous. Hierarchies in which nothing may be made are left alone, unless a limit
needs them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from scow.api import Invalid, Resources, Unavailable, Unsupported
from scow_plugins.namespaces._cgroups import devices
from scow_plugins.namespaces._cgroups.files import counters, number, read, write
from scow_plugins.namespaces._cgroups.layout import Hierarchy, hierarchies
from scow_plugins.namespaces._cgroups.limits import settings

__all__ = ["PARENT", "Group", "enter"]

#: All groups of scow's lie in this one, unless --cgroup-parent says otherwise; it goes when the last of them goes.
PARENT: Final = "/scow"
#: An extended attribute of what scow has made outside of that: such parents go with the last group in them, others
#: stay, and nobody else's processes are ever killed.
_MADE: Final = "trusted.scow"
_FREEZER_TRIES: Final = 100
_REFUSED: Final = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EINVAL, errno.EBUSY)


class Group:
    """The group `/scow/<container>` wherever this machine has control groups; or in another parent."""

    def __init__(self, path: str, layout: list[Hierarchy] | None = None) -> None:
        self.path = path
        self._layout = hierarchies() if layout is None else layout
        self._made: list[tuple[Hierarchy, str]] = []

    @classmethod
    def of(cls, container: str, resources: Resources) -> Group:
        """The group of a container, not made yet, in the hierarchies that matter to it. Raises OSError.

        Filling in a cpuset of version 1 makes the kernel rebuild its scheduling domains and wait for an RCU grace
        period, 10 ms and more, so that only those who ask for processors get one.
        """
        wanted = resources.cpuset_cpus or resources.cgroup_parent
        useless = frozenset() if wanted else frozenset(("cpuset",))
        layout = [h for h in hierarchies() if h.version == 2 or h.controllers != useless]
        parent = os.path.normpath("/" + (resources.cgroup_parent or PARENT).strip("/"))
        return cls(f"{parent.rstrip('/')}/{container}", layout)

    def _places(self) -> Iterator[tuple[Hierarchy, str]]:
        for hierarchy in self._layout:
            yield hierarchy, hierarchy.path + self.path

    def create_unified(self, resources: Resources) -> None:
        """Make the directory of version 2, where there is one: the first process is born in it. Raises OSError."""
        self._make(2, {setting.controller for setting in settings(resources, 2)})

    def create_rest(self, resources: Resources, *, privileged: bool) -> None:
        """Make the directories of version 1, and set the limits. Raises Unsupported, Invalid, OSError."""
        self._make(1, set())
        needed = {1: settings(resources, 1), 2: settings(resources, 2)}
        for version, writes in needed.items():
            for setting in writes:
                place = self._with(setting.controller)
                if place is not None and place[0].version != version:
                    continue
                if place is None:
                    raise Unsupported(
                        f"{setting.flag}: the control group controller {setting.controller!r} can't be used here",
                        hint="leave the limit out, or mount or delegate the controller",
                    )
                _set(place[1], setting.file, setting.value, setting.flag, optional=setting.optional)
        if not privileged:
            self._restrict_devices()

    def is_ours(self) -> bool:
        """Whether scow has made it, as far as there are processes in it."""
        if os.path.dirname(self.path) == PARENT:
            return True
        return all(_marked(directory) for _, directory in self._places() if read(directory, "cgroup.procs").strip())

    def take_over(self) -> None:
        """Go on with the directories that another process has made."""
        self._made = [(hierarchy, directory) for hierarchy, directory in self._places() if os.path.isdir(directory)]

    def _make(self, version: int, wanted: set[str]) -> None:
        for hierarchy, directory in self._places():
            if hierarchy.version != version:
                continue
            try:
                _make(hierarchy, directory, wanted)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
            else:
                self._made.append((hierarchy, directory))

    def _with(self, controller: str) -> tuple[Hierarchy, str] | None:
        for hierarchy, directory in self._made:
            if controller in hierarchy.controllers and (
                hierarchy.version == 1 or controller in read(directory, "cgroup.controllers").split()
            ):
                return hierarchy, directory
        return None

    def _directory(self, controller: str) -> tuple[int, str] | None:
        """(version, directory) of where a controller of either version works."""
        place = self._with(controller)
        return None if place is None else (place[0].version, place[1])

    def _unified(self) -> str | None:
        return next((directory for hierarchy, directory in self._made if hierarchy.version == 2), None)

    def _restrict_devices(self) -> None:
        place = self._with("devices")
        if place is not None:
            devices.restrict_v1(place[1])
        elif (directory := self._unified()) is not None:
            devices.restrict_v2(directory)

    def views(self) -> tuple[tuple[str, str], ...]:
        """(name beneath /sys/fs/cgroup, directory on the host) of what the container may see; '' is version 2 alone."""
        if len(self._layout) == 1 and self._layout[0].version == 2:
            return (("", self._layout[0].path + self.path),)
        return tuple((hierarchy.label, directory) for hierarchy, directory in self._places())

    @contextmanager
    def unified(self) -> Iterator[int | None]:
        """A descriptor of the directory of version 2, for clone3(2); None when there is none. Raises OSError."""
        directory = self._unified()
        if directory is None:
            yield None
            return
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def entrances(self, *, crowded: bool = False) -> tuple[str, ...]:
        """The directories of version 1, which a process enters by itself (see `enter`).

        `crowded` leaves out the one in which processes are counted: `admit` does that afterwards.
        """
        return tuple(
            directory
            for hierarchy, directory in self._places()
            if hierarchy.version == 1 and not (crowded and "pids" in hierarchy.controllers)
        )

    def admit(self, pid: int) -> None:
        """Put a process in from outside, where it is counted: its limit is for fork(2), not for who is moved.

        Takes the kernel 10 to 20 ms (see `enter`). Raises OSError.
        """
        for hierarchy, directory in self._places():
            if hierarchy.version == 2 or "pids" in hierarchy.controllers:
                write(directory, "cgroup.procs", str(pid))

    def pids(self) -> set[int]:
        """All processes in the group, as numbers of our own PID namespace; 0 (somebody else's) is left out."""
        found: set[int] = set()
        for _, directory in self._places():
            found.update(int(line) for line in read(directory, "cgroup.procs").split())
        return found - {0}

    def signal(self, what: int) -> int:
        """Send a signal to all processes; gives how many there were."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, what)
            except ProcessLookupError:
                pass
        return len(pids)

    def kill(self) -> int:
        """SIGKILL to all, frozen or not; gives how many there were."""
        unified = next((d for h, d in self._places() if h.version == 2), None)
        if unified is not None:
            try:
                write(unified, "cgroup.kill", "1")  # Linux 5.14
            except OSError:
                pass
        count = self.signal(signal.SIGKILL)
        if count:
            self.thaw()
        return count

    def thaw(self) -> None:
        """Let all processes go on, also those in groups that a privileged container has made within; as far as it can.

        With the freezer of version 1 not even SIGKILL ends a frozen process.
        """
        for hierarchy, directory in self._places():
            file, value = ("freezer.state", "THAWED") if hierarchy.version == 1 else ("cgroup.freeze", "0")
            if hierarchy.version == 2 or "freezer" in hierarchy.controllers:
                for place, _, _ in os.walk(directory):
                    with contextlib.suppress(OSError):
                        write(place, file, value)

    def freeze(self, frozen: bool) -> None:
        """Stop all processes, or let them go on. Raises Unsupported, Unavailable, OSError."""
        place = self._directory("freezer")
        if place is not None:
            state = "FROZEN" if frozen else "THAWED"
            for _ in range(_FREEZER_TRIES):
                write(place[1], "freezer.state", state)
                if read(place[1], "freezer.state").strip() == state:
                    return
                time.sleep(0.001)
            write(place[1], "freezer.state", "THAWED")
            raise Unavailable("pause: a process doesn't stop, waiting for a device or the like", hint="try again")
        unified = self._unified()
        if unified is None or not os.path.exists(f"{unified}/cgroup.freeze"):
            raise Unsupported("pause: this machine has no freezer", hint="mount the freezer controller, or cgroup2")
        write(unified, "cgroup.freeze", "1" if frozen else "0")

    def stats(self) -> dict[str, int]:
        """memory_bytes (without what the page cache could give back), cpu_ns, pids; what isn't known is missing."""
        found: dict[str, int | None] = {}
        if (place := self._directory("memory")) is not None:
            version, directory = place
            usage = number(directory, "memory.current" if version == 2 else "memory.usage_in_bytes")
            idle = counters(read(directory, "memory.stat")).get(
                "inactive_file" if version == 2 else "total_inactive_file"
            )
            found["memory_bytes"] = None if usage is None else max(0, usage - (idle or 0))
        if (place := self._directory("cpuacct")) is not None:
            found["cpu_ns"] = number(place[1], "cpuacct.usage")
        elif (unified := self._unified()) is not None:
            usec = counters(read(unified, "cpu.stat")).get("usage_usec")
            found["cpu_ns"] = None if usec is None else usec * 1000
        if (place := self._directory("pids")) is not None:
            found["pids"] = number(place[1], "pids.current")
        return {"pids": len(self.pids()), **{name: value for name, value in found.items() if value is not None}}

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        place = self._directory("memory")
        if place is None:
            return 0
        version, directory = place
        text = read(directory, "memory.events" if version == 2 else "memory.oom_control")
        return counters(text).get("oom_kill", 0)

    def remove(self) -> bool:
        """Remove every directory of the group that is there; False when one is still busy."""
        done = True
        for hierarchy, directory in self._places():
            gone = _remove(directory)
            if gone:
                _remove_parents(hierarchy, os.path.dirname(directory))
            done = gone and done
        return done


def enter(directories: Iterable[str]) -> None:
    """Put the calling process, which has one thread, into groups of version 1; those that aren't there are left out.

    By its thread and not by its number: moving a whole process from outside makes the kernel wait for an RCU grace
    period, 10 to 20 ms, and a thread that moves itself doesn't (Linux 5.16). Raises OSError.
    """
    for directory in directories:
        try:
            write(directory, "tasks", "0")
        except FileNotFoundError:
            pass


def _make(hierarchy: Hierarchy, directory: str, wanted: set[str]) -> None:
    """mkdir with its parents, which another container's end may remove at any moment."""
    for _ in range(20):
        try:
            _make_parents(hierarchy, os.path.dirname(directory), wanted)
            os.mkdir(directory, 0o755)
        except FileNotFoundError:
            continue
        if os.path.dirname(directory) != hierarchy.path + PARENT:
            _mark(directory)
        _inherit_cpuset(hierarchy, directory)
        return
    raise OSError(errno.EBUSY, "its parent keeps disappearing", directory)


def _make_parents(hierarchy: Hierarchy, parent: str, wanted: set[str]) -> None:
    """From the top, so that each may let its controllers through to the next. Raises FileNotFoundError, OSError."""
    _delegate(hierarchy, hierarchy.path, wanted)
    made = hierarchy.path
    for name in parent[len(hierarchy.path) :].strip("/").split("/"):
        if not name:
            continue
        made = f"{made}/{name}"
        try:
            os.mkdir(made, 0o755)
        except FileExistsError:
            pass
        else:
            _mark(made)
        _delegate(hierarchy, made, wanted)


def _delegate(hierarchy: Hierarchy, directory: str, wanted: set[str]) -> None:
    """Version 2: let the controllers through to the children, where the kernel lets us."""
    if hierarchy.version == 1:
        if directory != hierarchy.path:
            _inherit_cpuset(hierarchy, directory)
        return
    useful = hierarchy.controllers & {"memory", "cpu", "pids", *wanted}
    missing = useful - set(read(directory, "cgroup.subtree_control").split())
    for controller in sorted(missing):
        try:
            write(directory, "cgroup.subtree_control", f"+{controller}")
        except OSError:
            pass  # found out by the limit that needs it


def _inherit_cpuset(hierarchy: Hierarchy, directory: str) -> None:
    """A cpuset of version 1 starts empty, and nobody can join it so."""
    if hierarchy.version == 2 or "cpuset" not in hierarchy.controllers:
        return
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not read(directory, file).strip():
            try:
                write(directory, file, read(os.path.dirname(directory), file).strip())
            except FileNotFoundError:
                return  # removed by another; made again by the caller


def _set(directory: str, file: str, value: str, flag: str, *, optional: bool) -> None:
    try:
        write(directory, file, value)
    except FileNotFoundError:
        if not optional:
            raise Unsupported(f"{flag}: this kernel has no {file}", hint="leave the limit out") from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ERANGE, errno.EACCES):
            raise Invalid(f"{flag}: the kernel refuses {value!r} for {file}: {error.strerror}") from None
        raise


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return _remove_children(directory) and _remove(directory) if _has_children(directory) else False
        return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return True


def _mark(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.setxattr(directory, _MADE, b"1")


def _marked(directory: str) -> bool:
    try:
        return bool(os.getxattr(directory, _MADE))
    except OSError:
        return False


def _remove_parents(hierarchy: Hierarchy, parent: str) -> None:
    """Those that scow has made, as far as nothing else is in them."""
    while parent != hierarchy.path:
        if parent != hierarchy.path + PARENT and not _marked(parent):
            return
        try:
            os.rmdir(parent)
        except OSError:
            return  # others are in it, or it is gone
        parent = os.path.dirname(parent)


def _has_children(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(entry.is_dir(follow_symlinks=False) for entry in entries)
    except FileNotFoundError:
        return False


def _remove_children(directory: str) -> bool:
    """Groups that a privileged container has made inside."""
    with os.scandir(directory) as entries:
        children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    done = True
    for child in children:
        try:
            done = _remove_children(child) and done
            os.rmdir(child)
        except FileNotFoundError:
            pass
        except OSError:
            done = False
    return done
