"""inotify(7), as much of it as is needed to wait until something in a directory changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import trio

from scow.sys.libc import call

_CLOEXEC: Final = os.O_CLOEXEC
_NONBLOCK: Final = os.O_NONBLOCK
_MODIFY, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x80, 0x100, 0x200


class Watch:
    """Waits for changes in one directory (its files written, made, renamed into it, removed)."""

    def __init__(self, directory: Path) -> None:
        self._fd = call("inotify_init1", _CLOEXEC | _NONBLOCK)
        try:
            call("inotify_add_watch", self._fd, os.fsencode(directory), _MODIFY | _MOVED_TO | _CREATE | _DELETE)
        except OSError:
            os.close(self._fd)
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    async def changed(self) -> None:
        """Return when something has changed since the last call."""
        await trio.lowlevel.wait_readable(self._fd)
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass
