"""The operations that a container's file system is made of: data, one class each. All targets are paths inside."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Bind",
    "Copied",
    "Device",
    "Directory",
    "Filesystem",
    "Mask",
    "Op",
    "ReadOnly",
    "Seal",
    "Symlink",
    "WriteFile",
]


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A new file system (proc, sysfs, tmpfs, devpts, mqueue). Options without a value are flags.

    `strict`: the place is the kernel's; the target must not be a link, not even one that stays inside, and no link
    leads anything else into it.
    """

    fstype: str
    target: str
    options: tuple[tuple[str, str | None], ...] = ()
    attributes: int = 0
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of the host's at a place inside; `source` is resolved before the host's root is left."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    #: MS_PRIVATE or MS_SLAVE.
    propagation: int = 0
    #: Not an error when the source isn't there: nothing is mounted then.
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Copied:
    """A small file of the host's, shown as a copy in memory: written to from inside, nothing of the host's grows."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A device node. `mode` has the type's bits (S_IFCHR, S_IFBLK)."""

    target: str
    mode: int
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Symlink:
    """A link, in a directory that is ours."""

    target: str
    to: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, with those above it."""

    target: str


@dataclass(frozen=True, slots=True)
class WriteFile:
    """One write into a file that is there (a sysctl)."""

    target: str
    content: str


@dataclass(frozen=True, slots=True)
class Mask:
    """Something of the kernel's that must not be seen: nothing over it, when it is there."""

    target: str


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Something of the kernel's that must not be written, when it is there."""

    target: str


@dataclass(frozen=True, slots=True)
class Seal:
    """A mount that is complete: read-only from here on. `/` is the container's root."""

    target: str


Op = Filesystem | Bind | Copied | Device | Symlink | Directory | WriteFile | Mask | ReadOnly | Seal
