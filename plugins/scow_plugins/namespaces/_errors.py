"""From errno to an error of scow's, with what the kernel's word means here."""

from __future__ import annotations

import errno
from typing import Final

from scow.api import Conflict, Denied, Exhausted, Internal, Invalid, NotFound, ScowError, Unavailable, Unsupported

__all__ = ["explain"]

_KINDS: Final[dict[int, tuple[type[ScowError], str]]] = {
    errno.ENOSPC: (
        Exhausted,
        "a limit is reached: the disk's, or one of /proc/sys/fs/mount-max and /proc/sys/user/max_*",
    ),
    errno.EDQUOT: (Exhausted, "a quota is used up"),
    errno.ENOMEM: (Exhausted, "there is no memory left, or the container's limit is too small to start"),
    errno.EAGAIN: (Exhausted, "no more processes: see --pids-limit and ulimit -u"),
    errno.EMFILE: (Exhausted, "too many open files: see ulimit -n"),
    errno.ENFILE: (Exhausted, "too many open files on this machine"),
    errno.EPERM: (Denied, "scow needs the privileges of root on the host"),
    errno.EACCES: (Denied, "scow needs the privileges of root on the host"),
    errno.ESRCH: (Conflict, "the container has just ended"),
    errno.ENOSYS: (Unsupported, "this kernel is too old"),
    errno.ENODEV: (Unsupported, "this kernel doesn't have that file system"),
    # What an image or a user can bring about by what lies, or doesn't, at a path inside.
    errno.ELOOP: (Invalid, "a symbolic link of the image leads in a circle, or over a link of /proc"),
    errno.ENOTDIR: (Invalid, "a part of the path is no directory in the image"),
    errno.EISDIR: (Invalid, "there is a directory in the image"),
    errno.EEXIST: (Invalid, "something else is there in the image"),
    errno.ENAMETOOLONG: (Invalid, "a name in it, or where a link of the image leads, is longer than the kernel takes"),
    errno.ENOENT: (NotFound, "it is not in the image, and can't be made there"),
    errno.ENXIO: (Invalid, "there is a device, a socket or a FIFO that nobody serves in the image"),
    errno.EBUSY: (Conflict, "something is mounted there, or in use"),
    errno.EIO: (Unavailable, "the disk beneath has an error: see dmesg"),
    errno.ESTALE: (Unavailable, "the file system beneath has changed: try again"),
    errno.EROFS: (Unsupported, "a read-only file system is in the way: make the place in the image"),
}


def explain(error: OSError, what: str) -> ScowError:
    """An OSError as the error that a caller can act on; `what` names the thing that failed."""
    kind, hint = _KINDS.get(error.errno or 0, (Internal, ""))
    return kind(f"{what}: {error.strerror or error}", hint=hint or None)
