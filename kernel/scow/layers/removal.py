"""Remove trees that strangers made: any depth, any names, links never followed, two descriptors at most."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: str | bytes) -> None:
    """Remove `name` in the directory `parent`, whatever it is; not an error when there is nothing. Raises OSError."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # Linux says EISDIR, POSIX allows EPERM.
        top = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            empty_directory(top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=parent)


def delete(path: Path) -> None:
    """The same for a path of our own. Raises OSError."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)


def empty_directory(top: int) -> None:
    """Remove all that is in a directory. Raises OSError.

    Subdirectories are moved up into `top` before they are emptied: a tree that is deeper than any path can name (which
    a container makes easily) needs neither recursion nor a descriptor per level.
    """
    moved = 0
    pending = _clear(top)
    while pending:
        name = pending.pop()
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for child in _clear(directory):
                moved += 1
                fresh = f".scow-removed-{os.getpid()}-{moved}"
                os.rename(child, fresh, src_dir_fd=directory, dst_dir_fd=top)
                pending.append(fresh)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _clear(directory: int) -> list[str]:
    """Unlink all files; gives the names of the directories that aren't empty."""
    with os.scandir(directory) as entries:
        listing = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    kept = []
    for name, is_directory in listing:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            kept.append(name)
    return kept
