"""Taking apart a control group whose supervisor is dead. Synchronous; for the next command."""

from __future__ import annotations

import time

from scow.api import Conflict, Invalid
from scow_plugins.namespaces._cgroups.group import PARENT, Group

__all__ = ["reclaim"]

_PATIENCE = 2.0


def reclaim(path: str) -> None:
    """Kill all processes of a group and remove it; not an error when it is gone. Raises Conflict when it stays busy."""
    name = path.removeprefix(f"{PARENT}/")
    if not path.startswith(f"{PARENT}/") or not name or "/" in name or name in (".", ".."):
        raise Invalid(f"{path!r} is not a control group of scow's")
    group = Group(path)
    end = time.monotonic() + _PATIENCE
    while not group.remove():
        group.kill()
        if time.monotonic() > end:
            raise Conflict(f"control group {path} is still busy", hint="a process in it can't be killed")
        time.sleep(0.005)
