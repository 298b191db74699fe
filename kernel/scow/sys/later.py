"""Files that are removed now and cost later: the last close of a large file gives its blocks back, and that takes time.

About 0.2 ms a MB on ext4, during which others wait for the journal, too. So descriptors are gathered, and closed by a
thread a moment later; when the process has ended by then, the kernel has done it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

#: Long enough for a command to answer and go.
_MOMENT: Final = 0.1
_lock = threading.Lock()
_waiting: list[int] = []


def unlink_later(path: Path) -> None:
    """Remove a file: its name now, its blocks a moment later. Raises FileNotFoundError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    path.unlink(missing_ok=True)
    with _lock:
        _waiting.append(fd)
        alone = len(_waiting) == 1
    if alone:
        threading.Thread(target=_close_all, name="remove", daemon=True).start()


def _close_all() -> None:
    time.sleep(_MOMENT)
    with _lock:
        fds = _waiting[:]
        _waiting.clear()
    for fd in fds:
        os.close(fd)
