"""Performing a plan, beneath a root, through a small port (`Port`); tests have a recording and a failing one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from scow.api import Invalid, NotFound, ScowError
from scow.api.linux import (
    AttrFlag,
    attach_mount,
    clone_mount,
    create_mount,
    is_kernels,
    mount_setattr,
    open_beneath,
    umount,
)
from scow_plugins.namespaces._beneath import open_place
from scow_plugins.namespaces._errors import explain
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

__all__ = ["Port", "RealPort", "open_sources", "perform"]


#: How much a container may add to the files that it has copies of, in bytes.
_ROOM: Final = 4 << 20


class Port(Protocol):
    """What performing needs of the kernel. Descriptors are detached mounts; paths are inside. All raise OSError."""

    def new(self, fstype: str, options: Iterable[tuple[str, str | None]], attributes: int) -> int:
        """A new file system, detached."""
        ...

    def source(self, path: str, recursive: bool) -> int:
        """A detached copy of the mount at a path of the host's."""
        ...

    def copies(self, paths: Sequence[str]) -> list[int]:
        """Detached mounts of copies of files of the host's, in a memory file system of their own."""
        ...

    def again(self, path: str) -> int | None:
        """A detached copy of what is at a path inside; None when nothing is there."""
        ...

    def is_directory(self, mount: int) -> bool:
        """Is the mount's root a directory?"""
        ...

    def kind(self, path: str) -> bool | None:
        """Is what is at a path inside a directory? None: nothing is there."""
        ...

    def change(self, mount: int, attributes: int, propagation: int, recursive: bool) -> None:
        """Set a mount's attributes and propagation."""
        ...

    def seal(self, target: str) -> None:
        """Make the mount at a place inside read-only."""
        ...

    def attach(self, mount: int, target: str, directory: bool, strict: bool) -> None:
        """Put a detached mount at a place inside, made if need be, and close it."""
        ...

    def node(self, target: str, mode: int, device: int) -> None:
        """mknod(2)."""
        ...

    def link(self, target: str, to: str) -> None:
        """symlink(2); not an error when something is there."""
        ...

    def directory(self, target: str) -> None:
        """mkdir(2) with parents."""
        ...

    def write(self, target: str, content: str) -> None:
        """One write into an existing file."""
        ...


Sources = dict[Bind | Copied, int]


def open_sources(plan: Sequence[Op], port: Port) -> Sources:
    """Take hold of everything of the host's while it is in reach. Raises ScowError."""
    held: Sources = {}
    if copied := [op for op in plan if isinstance(op, Copied)]:
        try:
            held.update(zip(copied, port.copies([op.source for op in copied]), strict=True))
        except OSError as error:
            raise explain(error, f"can't copy {error.filename or 'the files of /etc'}") from None
    for op in plan:
        if isinstance(op, Bind):
            try:
                held[op] = port.source(op.source, op.recursive)
            except FileNotFoundError:
                if op.optional:
                    continue
                raise NotFound(
                    f"bind source path does not exist: {op.source}", hint="make it first, or use a volume"
                ) from None
            except OSError as error:
                raise explain(error, f"can't take hold of mount source {op.source}") from None
    return held


def perform(plan: Iterable[Op], sources: Mapping[Bind | Copied, int], port: Port) -> None:
    """All operations in order. Raises ScowError that names the operation that failed."""
    for op in plan:
        try:
            _perform_one(op, sources, port)
        except ScowError:
            raise
        except OSError as error:
            raise _failure(op, error) from None


def _perform_one(op: Op, sources: Mapping[Bind | Copied, int], port: Port) -> None:
    match op:
        case Filesystem():
            port.attach(port.new(op.fstype, op.options, op.attributes), op.target, True, op.strict)
        case Bind() if op in sources:
            mount = sources[op]
            port.change(mount, AttrFlag.RDONLY if op.read_only else 0, op.propagation, op.recursive)
            port.attach(mount, op.target, port.is_directory(mount), False)
        case Copied():
            if op.read_only:
                port.change(sources[op], AttrFlag.RDONLY, 0, False)
            port.attach(sources[op], op.target, False, False)
        case Device():
            port.node(op.target, op.mode, os.makedev(op.major, op.minor))
        case Symlink():
            port.link(op.target, op.to)
        case Directory():
            port.directory(op.target)
        case WriteFile():
            port.write(op.target, op.content)
        case Mask():
            _mask(op, port)
        case ReadOnly():
            mount_again = port.again(op.target)
            if mount_again is not None:
                port.change(mount_again, AttrFlag.RDONLY, 0, True)
                port.attach(mount_again, op.target, port.is_directory(mount_again), False)
        case Seal():
            port.seal(op.target)


def _mask(op: Mask, port: Port) -> None:
    directory = port.kind(op.target)
    if directory is None:
        return
    if directory:
        over: int | None = port.new(
            "tmpfs", (("source", "tmpfs"), ("nr_inodes", "2"), ("mode", "755")), AttrFlag.RDONLY
        )
    else:
        over = port.again("/dev/null")
    if over is None:
        raise Invalid("the container has no /dev/null to hide things behind", hint="don't mount over /dev/null")
    port.attach(over, op.target, directory, False)


#: Nobody can ask for a target in /proc, and whoever asks for one in /sys has said so.
_KERNELS_OWN: Final = ("/proc/", "/sys/")
_WRONG_KIND: Final = (errno.ENOTDIR, errno.EISDIR)


def _failure(op: Op, error: OSError) -> ScowError:
    target = getattr(op, "target", "/")
    if isinstance(op, Bind) and error.errno in _WRONG_KIND:
        return Invalid(
            f"can't mount {op.source} at {target}: one is a directory, the other isn't",
            hint="mount a directory onto a directory, a file onto a file",
        )
    if isinstance(op, Filesystem) and op.strict and error.errno in (errno.ELOOP, errno.ENOTDIR):
        return Invalid(
            f"the image's {target} is not an ordinary directory", hint="a link in its place could lead anywhere"
        )
    if isinstance(op, Filesystem) and op.fstype == "tmpfs" and error.errno in (errno.EINVAL, errno.ERANGE):
        return Invalid(f"can't make a memory file system at {target}: {error.strerror}", hint="see tmpfs(5)")
    if isinstance(op, WriteFile) and error.errno in (errno.ENOENT, errno.EINVAL, errno.EACCES):
        return Invalid(f"can't set sysctl {target.removeprefix('/proc/sys/')} to {op.content!r}: {error.strerror}")
    return explain(error, f"can't set up {target} ({type(op).__name__.lower()})")


class RealPort:
    """The kernel, beneath the directory `root` (the attached root file system).

    `stage` is a directory of the host's where something may be mounted for a moment, in our own mount namespace.
    """

    def __init__(self, root: int = -1, stage: str = "") -> None:
        self.root = root
        self.stage = stage
        #: Devices of what was mounted as strict: memory file systems in /sys look like any other.
        self._kernels: set[int] = set()

    def new(self, fstype: str, options: Iterable[tuple[str, str | None]], attributes: int) -> int:
        return create_mount(fstype, options, attributes)

    def source(self, path: str, recursive: bool) -> int:
        return clone_mount(path, recursive=recursive)

    def copies(self, paths: Sequence[str]) -> list[int]:
        contents = [Path(path).read_bytes() for path in paths]
        size = sum(len(content) for content in contents) + _ROOM
        options = (("source", "tmpfs"), ("mode", "755"), ("size", str(size)), ("nr_inodes", str(len(paths) + 1)))
        memory = create_mount("tmpfs", options, AttrFlag.NOSUID | AttrFlag.NODEV | AttrFlag.NOEXEC)
        # Attached for a moment: of a detached mount no copies can be made (before Linux 6.15).
        attach_mount(memory, self.stage)
        try:
            for name, content in enumerate(contents):
                fd = os.open(str(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=memory)
                os.write(fd, content)
                os.close(fd)
            return [clone_mount(f"{self.stage}/{name}") for name in range(len(paths))]
        finally:
            os.close(memory)
            umount(self.stage, detach=True)

    def again(self, path: str) -> int | None:
        try:
            place = open_beneath(self.root, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return clone_mount("", dir_fd=place, recursive=True)
        finally:
            os.close(place)

    def kind(self, path: str) -> bool | None:
        try:
            place = open_beneath(self.root, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self.is_directory(place)
        finally:
            os.close(place)

    def is_directory(self, mount: int) -> bool:
        return stat.S_ISDIR(os.fstat(mount).st_mode)

    def change(self, mount: int, attributes: int, propagation: int, recursive: bool) -> None:
        if attributes or propagation:
            mount_setattr(mount, set_=attributes, propagation=propagation, recursive=recursive)

    def seal(self, target: str) -> None:
        place = open_beneath(self.root, target, os.O_PATH)
        try:
            mount_setattr(place, set_=AttrFlag.RDONLY)
        finally:
            os.close(place)

    def attach(self, mount: int, target: str, directory: bool, strict: bool) -> None:
        place = open_place(self.root, target, directory=directory, strict=strict)
        try:
            if strict:
                self._kernels.add(os.fstat(mount).st_dev)
            elif self._leads_to_the_kernels(place, target):
                raise Invalid(
                    f"mount target {target!r} is inside /proc or /sys by a link of the image",
                    hint="choose a place that isn't the kernel's",
                )
            attach_mount(mount, "", target_fd=place)
        finally:
            os.close(place)
            os.close(mount)

    def _leads_to_the_kernels(self, place: int, target: str) -> bool:
        return not target.startswith(_KERNELS_OWN) and (is_kernels(place) or os.fstat(place).st_dev in self._kernels)

    def node(self, target: str, mode: int, device: int) -> None:
        parent, name = self._parent(target)
        try:
            os.mknod(name, mode, device, dir_fd=parent)
        finally:
            os.close(parent)

    def link(self, target: str, to: str) -> None:
        parent, name = self._parent(target)
        try:
            os.symlink(to, name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)

    def directory(self, target: str) -> None:
        above, _, name = target.rpartition("/")
        try:
            parent = open_beneath(self.root, above or "/", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            parent = -1
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except OSError:  # something is there already, or above it something is missing
            os.close(open_place(self.root, target, directory=True))
        finally:
            if parent >= 0:
                os.close(parent)

    def write(self, target: str, content: str) -> None:
        fd = open_beneath(self.root, target, os.O_WRONLY)
        try:
            os.write(fd, content.encode())
        finally:
            os.close(fd)

    def _parent(self, target: str) -> tuple[int, str]:
        above, _, name = target.rpartition("/")
        return open_place(self.root, above or "/", directory=True), name
