"""Making places beneath a root that strangers filled: no step follows a link out of it."""

from __future__ import annotations

import errno
import os
import stat

from scow.api.linux import Resolve, is_kernels, open_beneath

__all__ = ["open_directory", "open_place"]

_MOST_LINKS = 40


def open_place(root: int, path: str, *, directory: bool, strict: bool = False) -> int:
    """An O_PATH descriptor of `path`, made if it isn't there, with the directories above it.

    Links are followed as inside a container whose `/` is `root`; what a dangling one names is made. `strict` refuses
    any link. Raises OSError: ENOTDIR, EISDIR when what is there is of the other kind; ELOOP.
    """
    resolve = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS | (Resolve.NO_SYMLINKS if strict else 0)
    try:
        fd = open_beneath(root, path, os.O_PATH, resolve=resolve)
    except FileNotFoundError:
        _make(root, path, directory)
        fd = open_beneath(root, path, os.O_PATH, resolve=resolve)
    found = stat.S_ISDIR(os.fstat(fd).st_mode)
    if found != directory:
        os.close(fd)
        code = errno.EISDIR if found else errno.ENOTDIR
        raise OSError(code, os.strerror(code), path)
    return fd


def open_directory(root: int, path: str) -> int:
    """A directory that must be there. Raises OSError."""
    return open_beneath(root, path, os.O_PATH | os.O_DIRECTORY)


def _make(root: int, path: str, directory: bool) -> None:
    """Walk down; `done` is what is there (the kernel resolves it, `..` too), `pending` what may be missing."""
    done, links = "", 0
    pending = _names(path)
    while pending:
        name = pending.pop(0)
        trial = f"{done}/{name}"
        try:
            os.close(open_beneath(root, trial, os.O_PATH))
        except FileNotFoundError:
            link = _make_one(root, done, name, directory or bool(pending))
            if link is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                pending = _names(link) + pending
                done = "" if link.startswith("/") else done
                continue
        done = trial


def _make_one(root: int, parent: str, name: str, directory: bool) -> str | None:
    """Make one missing entry; if it is a dangling link, give where that leads instead."""
    parent_fd = open_beneath(root, parent or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        try:
            return os.readlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            pass
        if is_kernels(parent_fd):
            # A directory in there may be more than one: a control group.
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent_fd))
        return None
    finally:
        os.close(parent_fd)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]
