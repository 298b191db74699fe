"""Whiteouts as the kernel's overlayfs reads them (overlayfs.rst, "whiteouts and opaque directories")."""

from __future__ import annotations

import os
import stat
from typing import Final

from scow.layers.names import split
from scow.layers.tree import Tree

_OPAQUE: Final = "trusted.overlay.opaque"


def write_overlay_marks(tree: Tree) -> None:
    """Make 0:0 devices and opaque directories of what the layer hides below it. Raises OSError."""
    if tree.lower is None:
        return
    if b"" in tree.opaque:
        # overlayfs merges the layers' roots whatever their attributes say.
        tree.opaque.discard(b"")
        tree.hidden.update(tree.lower.names())
    for path in tree.hidden:
        tree.trim()
        directory, name = split(path)
        # Only where there is something to hide: in a directory that isn't merged overlayfs shows whiteouts as they are.
        if directory in tree.opaque or tree.covers(directory) or tree.lower.stat(path) is None:
            continue
        if _hide(tree.directory(directory)[1], name):
            tree.opaque.add(path)
    for path in tree.opaque:
        tree.trim()
        mark_opaque(tree.directory(path)[1])


def mark_opaque(directory: int) -> None:
    """What the layers below have in this directory isn't seen. Raises OSError."""
    os.setxattr(f"/proc/self/fd/{directory}", _OPAQUE, b"y")


def _hide(directory: int, name: bytes) -> bool:
    """Hide a name; True when the layer has a directory of that name, which must be opaque instead."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)
        return False
