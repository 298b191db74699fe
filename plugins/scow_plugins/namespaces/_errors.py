"""From errno to an error of scow's, with what the kernel's word means here."""

from __future__ import annotations

import errno
from typing import Final

from scow.api import Conflict, Denied, Exhausted, Internal, ScowError, Unsupported

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
    errno.EROFS: (Unsupported, "a read-only file system is in the way: make the place in the image"),
}


def explain(error: OSError, what: str) -> ScowError:
    """An OSError as the error that a caller can act on; `what` names the thing that failed."""
    kind, hint = _KINDS.get(error.errno or 0, (Internal, ""))
    return kind(f"{what}: {error.strerror or error}", hint=hint or None)
