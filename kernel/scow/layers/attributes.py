"""Owners, modes, times and extended attributes: read from a descriptor, written to a descriptor or beside one.

The order of writing is fixed by the kernel: chown(2) clears set-user-ID bits and capabilities, so it comes first.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

#: What the kernel's overlayfs and fuse-overlayfs read from their layers; an image must not steer the mount.
_OVERLAY: Final = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "security.fuseoverlayfs.")
#: Belongs to the security policy of the machine that built the image.
_LABEL: Final = "security.selinux"
#: A file system that can't hold an attribute is no reason to fail, as with docker and tar.
_TOLERATED: Final = frozenset({errno.ENOTSUP, errno.EPERM, errno.EINVAL})
_CAPABILITY: Final = "security.capability"


class Attributes(NamedTuple):
    """An inode's metadata. `mtime` in nanoseconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: dict[str, bytes] | None


#: Of a directory that no layer says anything about. Not the time of unpacking: one layer, one tree.
UNSAID: Final = Attributes(0o755, 0, 0, 0, None)


def wanted_xattrs(found: dict[str, bytes] | None) -> dict[str, bytes] | None:
    """Without those that mean something to scow's own mounts or to this machine only."""
    if not found:
        return None
    return {name: value for name, value in found.items() if not name.startswith(_OVERLAY) and name != _LABEL} or None


def read_attributes(status: os.stat_result, path: int | str) -> Attributes:
    """From stat and the descriptor (or path; a link isn't followed) of one inode. Raises OSError."""
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, read_xattrs(path))


def read_xattrs(path: int | str) -> dict[str, bytes] | None:
    """All extended attributes that are worth keeping. Raises OSError."""
    follow = isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return None
        raise
    return wanted_xattrs({name: os.getxattr(path, name, follow_symlinks=follow) for name in names}) if names else None


def write_xattrs(path: int | str, xattrs: dict[str, bytes]) -> None:
    """Set them; `path` is a descriptor, or the path of a link that isn't followed. Raises OSError."""
    for name, value in xattrs.items():
        try:
            os.setxattr(path, os.fsencode(name), value, follow_symlinks=isinstance(path, int))
        except OSError as error:
            if error.errno not in _TOLERATED or (name == _CAPABILITY and error.errno != errno.ENOTSUP):
                raise


def write_attributes(fd: int, attributes: Attributes, *, owners: bool = True) -> None:
    """Set all of an open file's or directory's metadata. Raises OSError."""
    if owners:
        os.fchown(fd, attributes.uid, attributes.gid)
    if attributes.xattrs:
        write_xattrs(fd, attributes.xattrs)
    os.fchmod(fd, attributes.mode)
    os.utime(fd, ns=(attributes.mtime, attributes.mtime))


def write_attributes_at(directory: int, name: bytes, attributes: Attributes, *, is_link: bool, owners: bool) -> None:
    """The same for what can't be opened (links, nodes), which the caller has just made. Raises OSError."""
    if owners:
        os.chown(name, attributes.uid, attributes.gid, dir_fd=directory, follow_symlinks=False)
    if attributes.xattrs:
        # There is no setxattrat(2) before Linux 6.13; the descriptor in the path keeps it beneath the directory.
        write_xattrs(f"/proc/self/fd/{directory}/{os.fsdecode(name)}", attributes.xattrs)
    if not is_link:
        os.chmod(name, attributes.mode, dir_fd=directory)
    os.utime(name, ns=(attributes.mtime, attributes.mtime), dir_fd=directory, follow_symlinks=False)
