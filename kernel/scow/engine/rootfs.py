"""A container's files from outside: what it has changed, and its whole tree, whether it runs or not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, cast

from scow.engine.core import Core
from scow.engine.images import find_snapshot
from scow.errors import Internal, NotFound
from scow.model.container import Container, Status
from scow.model.digest import Digest
from scow.model.storage import Change, ChangeKind, MountRequest, Snapshot, SnapshotStore, Written

#: Made in every container for something to be mounted on; nothing of the container's can be in them.
MADE: Final = frozenset(
    path.encode() for path in ("dev", "dev/console", "dev/pts", "dev/shm", "dev/mqueue", "etc/hostname", "etc/hosts")
) | {b"etc/mtab", b"etc/resolv.conf", b"proc", b"sys", b"sys/fs/cgroup", b"run/.containerenv"}


class NoJournal:
    """A detached mount lives as long as its descriptor: there is nothing to write down."""

    def hold(self, **handle: str | int) -> int:
        return 0

    def release(self, entry: int) -> None:
        pass


def layers_of(core: Core, container: Container) -> tuple[Snapshot, ...]:
    """The layers below a container's own, lowest first. Raises NotFound."""
    found = []
    for text in container.spec.layers:
        snapshot = find_snapshot(core, container.spec.storage, Digest.parse(text))
        if snapshot is None:
            raise NotFound(f"layer {text} of container {container.spec.name} is not there any more")
        found.append(snapshot)
    return tuple(found)


@contextmanager
def changes_of(core: Core, container: Container) -> Iterator[Written]:
    """What a container has changed, without what was made for its mounts; with the directories above. Blocks."""
    store = core.registry.get("mount", container.spec.storage).instance
    if store is None or not hasattr(store, "changes"):
        raise Internal(f"the storage plugin {container.spec.storage} can't say what a container has changed")
    scratch = core.paths.container(container.spec.id) / "scratch"
    with cast(SnapshotStore, store).changes(layers_of(core, container), scratch) as written:
        hidden = {os.fsencode(os.path.realpath(path)).lstrip(b"/") for path in (core.paths.root, core.paths.run)}
        if "host" not in container.spec.layer_drivers:
            hidden = set()
        made = MADE | {os.fsencode(mount.target.strip("/")) for mount in container.spec.isolation.mounts}
        yield Written(written.root, tuple(told(written.changes, made, hidden)))


def told(changes: Iterable[Change], made: Iterable[bytes], hidden: Iterable[bytes]) -> list[Change]:
    """The changes that mean something, and each one's directories. Sorted by path components. Pure.

    A directory's time is a change only where something in it has changed.
    """
    made, hidden = set(made), tuple(hidden)
    kept: dict[bytes, Change] = {}
    for change in changes:
        if change.time_only or (change.kind is ChangeKind.ADDED and change.path in made):
            continue
        if any(change.path == each or change.path.startswith(each + b"/") for each in hidden):
            continue
        kept[change.path] = change
    for path in list(kept):
        while path := path.rpartition(b"/")[0]:
            kept.setdefault(path, Change(path, ChangeKind.MODIFIED))
    return [kept[path] for path in sorted(kept, key=lambda path: path.split(b"/"))]


@asynccontextmanager
async def rootfs_of(core: Core, container: Container) -> AsyncIterator[int]:
    """A descriptor of a container's root directory: of the running one with its mounts, else mounted for the body.

    Raises NotFound, Conflict (it is being started), Unsupported.
    """
    if container.state.status in (Status.RUNNING, Status.PAUSED):
        try:
            fd = os.open(f"/proc/{container.state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"container {container.spec.name} has just ended: {error.strerror}") from None
        try:
            yield fd
        finally:
            os.close(fd)
        return
    scratch = core.paths.container(container.spec.id) / "scratch"
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    request = MountRequest(container.spec.storage, container.spec.id, layers_of(core, container), scratch, NoJournal())
    async with core.stages.mount(request) as rootfs:
        yield rootfs.fd
