"""The merged tree of some layers, read-only, through fuse-overlayfs: for unpacking the next layer, and for `diff`."""

from __future__ import annotations

from collections.abc import Sequence

from scow.api import Snapshot
from scow.api.layers import LowerTree
from scow_plugins.fuse._daemon import Daemon, Stack, stack_of, start


def lower_tree(layers: Sequence[Snapshot], program: str) -> LowerTree | None:
    """Of `layers`, lowest first; None without any. Raises Unsupported for layers of other drivers."""
    if not layers:
        return None
    stack = stack_of(layers)
    return LowerTree.of(layers[0].path) if len(layers) == 1 else _View(stack, program)


class _View(LowerTree):
    """Serves itself from its first use until `close`."""

    def __init__(self, stack: Stack, program: str) -> None:
        super().__init__(self._start)
        self._stack = stack
        self._program = program
        self._daemon: Daemon | None = None

    def _start(self) -> int:
        self._daemon = start(self._program, self._stack)
        return self._daemon.root

    def close(self) -> None:
        """Give the mount back, and wait for the program's end. Blocks."""
        self._fd = None
        if self._daemon is not None:
            self._daemon.leave()
            self._daemon = None
