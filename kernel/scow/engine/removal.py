"""Taking a container away for good, so that a kill at any moment leaves it either there or to be finished."""

from __future__ import annotations

import contextlib
import shutil
from typing import cast

from scow.engine.core import Core
from scow.errors import NotFound
from scow.lifecycle import Happening
from scow.model.container import Container
from scow.model.storage import SnapshotStore
from scow.state import containers


def discard(core: Core, container: Container) -> None:
    """Remove a container that doesn't run: its files first, its row last. Not an error when it is gone.

    Raises Conflict from the lifecycle table.
    """
    spec = container.spec
    with contextlib.suppress(NotFound):
        containers.change(core.database, spec.id, Happening.DISCARD)
    home = core.paths.container(spec.id)
    scratch = home / "scratch"
    if scratch.exists():
        with contextlib.suppress(NotFound):
            store = core.registry.get("mount", spec.storage).instance
            if store is not None:
                cast(SnapshotStore, store).erase(scratch)
    shutil.rmtree(home, ignore_errors=True)
    containers.delete(core.database, spec.id)
    core.events.emit_container("destroy", spec)
