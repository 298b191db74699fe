"""Taking apart a control group whose supervisor is dead. Synchronous; for the next command."""

from __future__ import annotations

import time

from scow.api import Conflict, Invalid
from scow_plugins.namespaces._cgroups.group import PARENT, Group

__all__ = ["reclaim"]

_PATIENCE = 2.0


def reclaim(path: str) -> None:
    """Kill all processes of a group and remove it; not an error when it is gone. Raises Conflict when it stays busy."""
    names = path.split("/")[1:]
    if not path.startswith("/") or {"", ".", ".."} & set(names) or path == PARENT:
        raise Invalid(f"{path!r} is not a control group of scow's")
    group = Group(path)
    if not group.is_ours() or (names[0] == PARENT[1:] and len(names) != 2):
        raise Invalid(f"{path!r} is not a control group of scow's")
    end = time.monotonic() + _PATIENCE
    while not group.remove():
        group.kill()
        if time.monotonic() > end:
            raise Conflict(f"control group {path} is still busy", hint="a process in it can't be killed")
        time.sleep(0.005)
