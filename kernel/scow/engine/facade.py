"""The engine: the whole public Python API of scow. Front-ends use nothing else.

    async with scow.open_engine() as engine:
        await engine.pull("nginx")
        container = await engine.create(CreateRequest(image="nginx", name="web"))
        await engine.start(container.spec.id)

Containers are named by ID, by an unambiguous beginning of it, or by name; images by name, ID or beginning of an ID.
All methods raise only ScowErrors.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import trio

from scow.engine import archives, buildgarbage, cachestore, fsck, images, neighbours, publish, store, usage
from scow.engine.building import Workbench, open_workbench
from scow.engine.collecting import collect
from scow.engine.commit import commit
from scow.engine.copying import Place, pack, pack_all, unpack_into
from scow.engine.core import Core
from scow.engine.creation import create_container
from scow.engine.garbage import bringing_in, in_thread, sweep
from scow.engine.importing import import_image
from scow.engine.logs import Entry, Wanted, followed, past, records, shown
from scow.engine.machine import describe_engine, list_plugins
from scow.engine.merge import check_process, check_text
from scow.engine.mounted import mounts_of
from scow.engine.opening import open_core, read_settings
from scow.engine.reclaim import reclaim
from scow.engine.removal import discard
from scow.engine.rootfs import changes_of, rootfs_of
from scow.engine.session import Conversation, connect, conversing
from scow.engine.spawn import spawn_supervisor
from scow.engine.types import (
    BuildCacheEntry,
    BuildCacheRemoval,
    CacheInfo,
    Check,
    Collection,
    CreateRequest,
    DiskUsage,
    EngineInfo,
    Event,
    HistoryLine,
    ImageInfo,
    ImageSummary,
    Loaded,
    LogRecord,
    Output,
    PlatformEntry,
    PluginInfo,
    Progress,
    PushResult,
    Removal,
)
from scow.errors import Conflict, Internal, NotFound, ScowError
from scow.lifecycle import Happening, step
from scow.model.container import Container, Status
from scow.model.digest import Digest
from scow.model.fetching import Found
from scow.model.platform import Platform
from scow.model.process import ExitStatus, ProcessSpec
from scow.model.reference import parse_reference
from scow.model.signals import signal_number
from scow.model.storage import Change
from scow.paths import Paths
from scow.state import containers
from scow.state import images as rows
from scow.state.database import Database
from scow.state.liveness import is_owned
from scow.supervisor.protocol import Order, SuperviseRequest, log_path
from scow.trace import write_trace


class Session(Protocol):
    """A conversation with a process: its output, its input, its terminal, its end."""

    def output(self) -> AsyncIterator[Output]:
        """What it writes, until it ends or the session is closed. To be iterated once."""
        ...

    async def send(self, data: bytes) -> None:
        """Write to its standard input. Dropped silently when it doesn't read any more."""
        ...

    async def send_eof(self) -> None:
        """End its standard input."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Tell it the terminal's size."""
        ...

    async def signal(self, number: int) -> None:
        """Send it a signal."""
        ...

    async def wait(self) -> ExitStatus:
        """Its end. Output that nobody iterates is dropped meanwhile."""
        ...


class EngineProtocol(Protocol):
    """The facade's shape, for reading and for typing fakes; `Engine` is the one implementation."""

    async def pull(
        self, name: str, *, platform: Platform | None = None, progress: Callable[[Progress], None] | None = None
    ) -> ImageInfo: ...

    async def images(self) -> list[ImageSummary]: ...

    async def inspect_image(self, name: str) -> ImageInfo: ...

    async def tag(self, source: str, target: str) -> str: ...

    async def remove_image(self, name: str, *, force: bool = False, prune: bool = True) -> Removal: ...

    async def prune_images(
        self, *, everything: bool = False, wanted: Callable[[ImageInfo], bool] | None = None
    ) -> Removal: ...

    async def history(self, name: str) -> list[HistoryLine]: ...

    async def platforms(self, name: str) -> tuple[Digest, tuple[PlatformEntry, ...]]: ...

    def transports(self) -> frozenset[str]: ...

    async def push(
        self, name: str, *, target: str | None = None, progress: Callable[[Progress], None] | None = None
    ) -> PushResult: ...

    async def tags(self, name: str) -> tuple[str, ...]: ...

    async def search(self, term: str, *, limit: int = 25) -> tuple[Found, ...]: ...

    async def login(self, server: str, username: str, password: str) -> str: ...

    async def logout(self, server: str) -> bool: ...

    async def save(
        self,
        names: Sequence[str],
        path: str,
        *,
        format: str = "docker-archive",  # noqa: A002 - Docker's word
        progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]: ...

    async def load(
        self,
        source: BinaryIO,
        *,
        platform: Platform | None = None,
        storage: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> tuple[Loaded, ...]: ...

    async def commit(
        self,
        container: str,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: tuple[str, ...] = (),
        pause: bool = True,
    ) -> ImageInfo: ...

    async def diff(self, container: str) -> tuple[Change, ...]: ...

    async def export(self, container: str, out: int) -> None: ...

    async def copy_from(self, container: str, path: str, out: int, *, follow: bool = False) -> None: ...

    async def copy_to(
        self,
        container: str,
        path: str,
        source: int,
        *,
        owners: bool = False,
        rename: Callable[[bytes], bytes] | None = None,
    ) -> None: ...

    async def stat_path(self, container: str, path: str, *, follow: bool = True) -> os.stat_result | None: ...

    async def real_path(self, container: str, path: str) -> str: ...

    async def disk_usage(self) -> DiskUsage: ...

    async def collect_garbage(self, keep: int, *, dry_run: bool = False) -> Collection: ...

    async def build_cache(self) -> tuple[BuildCacheEntry, ...]: ...

    async def prune_build_cache(
        self,
        *,
        everything: bool = False,
        keep: int | None = None,
        wanted: Callable[[BuildCacheEntry], bool] | None = None,
    ) -> BuildCacheRemoval: ...

    async def caches(self) -> tuple[CacheInfo, ...]: ...

    async def export_cache(self, name: str, out: int) -> None: ...

    async def import_cache(self, name: str, source: BinaryIO, *, replace: bool = False) -> CacheInfo: ...

    async def remove_cache(self, name: str) -> tuple[str, ...]: ...

    async def fsck(self, *, layers: bool = True, repair: bool = False) -> Check: ...

    async def sweep(self) -> Removal: ...

    async def prune_containers(
        self, wanted: Callable[[Container], bool] | None = None
    ) -> tuple[tuple[Container, ...], int]: ...

    async def create(
        self,
        request: CreateRequest,
        *,
        progress: Callable[[Progress], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Container: ...

    async def start(self, container: str) -> None: ...

    def attach(
        self, container: str, *, start: bool = False, stdin: bool = False
    ) -> AbstractAsyncContextManager[Session]: ...

    def exec(
        self, container: str, process: ProcessSpec, *, stdin: bool = False, detach: bool = False
    ) -> AbstractAsyncContextManager[Session]: ...

    async def stop(self, container: str, *, timeout: float | None = None) -> None: ...

    async def kill(self, container: str, signal: int | str = "SIGKILL") -> None: ...

    async def wait(self, container: str) -> int: ...

    async def remove(self, container: str, *, force: bool = False) -> None: ...

    async def containers(self, *, all: bool = False) -> list[Container]: ...  # noqa: A002 - Docker's word

    async def inspect(self, container: str) -> Container: ...

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[LogRecord]]: ...

    def log_output(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[Output]]: ...

    def events(
        self, *, since: float | None = None, until: float | None = None, follow: bool = True
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...

    def plugins(self) -> list[PluginInfo]: ...

    async def info(self) -> EngineInfo: ...


def _nobody(_: Progress) -> None:
    """For those who don't want to know about progress."""


class Engine:
    """An open engine; made by `open_engine`. See `EngineProtocol` for the methods at a glance."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def pull(
        self,
        name: str,
        *,
        platform: Platform | None = None,
        storage: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> ImageInfo:
        """Fetch an image and unpack it for a storage plugin (default: the configured one).

        Raises NotFound, Unavailable, Denied, Corrupt, Exhausted, Unsupported, Invalid (the name).
        """
        driver = self._core.registry.pick("mount", storage or "").name
        async with bringing_in(self._core):
            return await images.pull(self._core, name, platform, progress or _nobody, driver)

    async def tag(self, source: str, target: str) -> str:
        """Let the name `target` point at the image `source`; gives the full name. Raises NotFound, Invalid."""
        return store.tag(self._core, source, target)

    async def remove_image(self, name: str, *, force: bool = False, prune: bool = True) -> Removal:
        """Take a name away, and the image with its last name; an ID means the image with all its names.

        With `force` also when stopped containers use it, or when it has names in several repositories. What running
        commands may need stays until they have ended; without `prune` all blobs and layers stay, until something else
        is removed. Raises NotFound, Invalid, Conflict (saying who uses it).
        """
        return await in_thread(self._core, store.remove_image, name, force=force, prune=prune)

    async def prune_images(
        self, *, everything: bool = False, wanted: Callable[[ImageInfo], bool] | None = None
    ) -> Removal:
        """Remove the images without a name that no container uses; with `everything`, all that no container uses."""
        return await in_thread(self._core, store.prune_images, everything=everything, wanted=wanted)

    async def commit(
        self,
        container: str,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: tuple[str, ...] = (),
        pause: bool = True,
    ) -> ImageInfo:
        """Make an image of a container: its own one, a layer of what was changed, and Dockerfile-like `changes`.

        A running container is frozen meanwhile, unless `pause` is False. Raises NotFound, Invalid, Unsupported,
        Exhausted.
        """
        found = containers.find(self._core.database, container)
        named = store.tag_name(self._core, name) if name is not None else None
        freeze = pause and found.state.status is Status.RUNNING
        async with bringing_in(self._core):
            if freeze:
                await self.pause(found.spec.id)
            try:
                row = await in_thread(self._core, commit, found, author, message, changes)
            finally:
                if freeze:
                    with trio.CancelScope(shield=True), suppress(Conflict, NotFound):
                        await self.unpause(found.spec.id)
            manifest, config = images.manifest_of(self._core, row), images.config_of(self._core, row)
            await images.unpack_stored(self._core, manifest, config, found.spec.storage)
            rows.save_image(self._core.database, row, named, None)
        images.write_index(self._core)
        self._emit("commit", found, imageID=str(row.config))
        return images.info(self._core, row.manifest)

    async def diff(self, container: str) -> tuple[Change, ...]:
        """What a container has changed in its root file system, sorted. Raises NotFound."""
        found = containers.find(self._core.database, container)

        def look(core: Core) -> tuple[Change, ...]:
            with changes_of(core, found) as written:
                return tuple(change for change in written.changes if change.path)

        return await in_thread(self._core, look)

    async def export(self, container: str, out: int) -> None:
        """Write a container's root file system as a tar stream to a descriptor. Raises NotFound, Conflict."""
        async with rootfs_of(self._core, containers.find(self._core.database, container)) as root:
            await trio.to_thread.run_sync(pack_all, root, out)

    async def copy_from(self, container: str, path: str, out: int, *, follow: bool = False) -> None:
        """Write what is at `path` in a container as a tar stream to a descriptor, under its last component's name.

        A link is written itself, or with `follow` what it leads to. Raises NotFound, Invalid, Conflict.
        """
        found = containers.find(self._core.database, container)
        async with rootfs_of(self._core, found) as root:
            copy = partial(pack, root, path, out, follow=follow, mounted=mounts_of(found))
            await trio.to_thread.run_sync(copy)

    async def copy_to(
        self,
        container: str,
        path: str,
        source: int,
        *,
        owners: bool = False,
        rename: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Unpack a tar stream from a descriptor into the directory `path` of a container.

        All belongs to root then; with `owners`, to whom the stream says. `rename` gives each entry's name. Raises
        NotFound, Invalid, Corrupt, Exhausted, Denied, Conflict.
        """
        found = containers.find(self._core.database, container)
        async with rootfs_of(self._core, found) as root:
            copy = partial(unpack_into, root, path, source, owners=owners, rename=rename, mounted=mounts_of(found))
            await trio.to_thread.run_sync(copy)

    async def stat_path(self, container: str, path: str, *, follow: bool = True) -> os.stat_result | None:
        """What is at `path` in a container; None when there is nothing. Raises NotFound (the container), Invalid."""
        found = containers.find(self._core.database, container)
        async with rootfs_of(self._core, found) as root:
            with Place(root, mounts_of(found)) as place:
                try:
                    return place.find(path, follow=follow).status
                except NotFound:
                    return None

    async def real_path(self, container: str, path: str) -> str:
        """Where a file written to `path` in a container will lie: what links lead to. Raises NotFound, Invalid."""
        found = containers.find(self._core.database, container)
        async with rootfs_of(self._core, found) as root:
            with Place(root, mounts_of(found)) as place:
                return place.real(path)

    async def disk_usage(self) -> DiskUsage:
        """What images, containers and leftovers take on disk; what is shared counts once."""
        return await in_thread(self._core, usage.disk_usage)

    async def collect_garbage(self, keep: int, *, dry_run: bool = False) -> Collection:
        """Remove leftovers, then images that no container uses, the longest unused first, down to `keep` bytes.

        With `dry_run` nothing is removed; the decisions and their reasons are the same.
        """
        return await in_thread(self._core, collect, keep, dry_run=dry_run)

    async def fsck(self, *, layers: bool = True, repair: bool = False) -> Check:
        """Check every blob, and (with `layers`) every unpacked layer, against its digest; `repair` fetches again.

        Nothing is swept meanwhile. Layers are compared with a fresh copy, which needs room for one image.
        """
        async with bringing_in(self._core):
            found = await fsck.check(self._core, layers=layers)
            if repair:
                # A command that was killed just before may have left it behind its time.
                images.write_index(self._core)
            if repair and found.damages:
                found = replace(found, damages=tuple(await fsck.repair(self._core, found.damages)))
        return found

    async def sweep(self) -> Removal:
        """Remove interrupted downloads, and blobs and layers that no image and no container names."""
        swept = await in_thread(self._core, sweep, everything=True)
        return Removal(deleted=tuple(map(str, swept.layers)), bytes=swept.bytes, postponed=swept.postponed)

    async def prune_containers(
        self, wanted: Callable[[Container], bool] | None = None
    ) -> tuple[tuple[Container, ...], int]:
        """Remove the containers that don't run (of those, the wanted ones); gives them, and the bytes they took."""
        gone, freed = [], 0
        for each in containers.listing(self._core.database):
            if usage.ended(each) and (wanted is None or wanted(each)):
                size = await in_thread(self._core, usage.scratch_bytes, each)
                with suppress(NotFound, Conflict):  # somebody removed or started it meanwhile
                    await self.remove(each.spec.id)
                    gone.append(each)
                    freed += size
        return tuple(gone), freed

    def transports(self) -> frozenset[str]:
        """What may stand before an image name's first colon, to say that it lies elsewhere than in a registry."""
        return self._core.registry.transports()

    async def push(
        self, name: str, *, target: str | None = None, progress: Callable[[Progress], None] | None = None
    ) -> PushResult:
        """Send a local image to the registry that its name, or `target`, names; to a transport's place as well.

        Raises NotFound, Invalid, Denied, Unavailable, Unsupported, Exhausted.
        """
        async with bringing_in(self._core):  # what is on its way out must not be swept, either
            return await publish.push(self._core, name, target, progress or _nobody)

    async def tags(self, name: str) -> tuple[str, ...]:
        """All tags of a name's repository, asked of the registry. Raises NotFound, Unavailable, Denied, Invalid."""
        plugin, catalog = neighbours.catalog(self._core, "list tags")
        with neighbours.held_to_errors(plugin, "tags"):
            return await catalog.tags(parse_reference(name, self.transports()))

    async def search(self, term: str, *, limit: int = 25) -> tuple[Found, ...]:
        """Images in Docker Hub, or in the registry before the first slash. Raises Unavailable, Invalid."""
        plugin, catalog = neighbours.catalog(self._core, "search")
        with neighbours.held_to_errors(plugin, "search"):
            return await catalog.search(term, limit)

    async def login(self, server: str, username: str, password: str) -> str:
        """Check a login with a registry (default: Docker Hub) and keep it; says where. Raises Denied, Unavailable."""
        plugin, accounts = neighbours.accounts(self._core, "log in")
        with neighbours.held_to_errors(plugin, "login"):
            return await accounts.login(server, username, password)

    async def logout(self, server: str) -> bool:
        """Forget a login; false when there was none. Raises Invalid."""
        plugin, accounts = neighbours.accounts(self._core, "log out")
        with neighbours.held_to_errors(plugin, "logout"):
            return await accounts.logout(server)

    async def save(
        self,
        names: Sequence[str],
        path: str,
        *,
        format: str = "docker-archive",  # noqa: A002 - Docker's word
        progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]:
        """Write local images into one archive; gives those that have another digest there (Docker's in an OCI archive).

        Raises NotFound, Invalid, Exhausted, Unsupported (`host:`).
        """
        async with bringing_in(self._core):
            return await archives.save(self._core, names, format, path, progress or _nobody)

    async def import_image(
        self,
        source: BinaryIO,
        name: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: Platform | None = None,
        storage: str | None = None,
    ) -> ImageInfo:
        """Make an image of an archive of a file system; `changes` are Dockerfile instructions.

        Raises Invalid, Corrupt, Unsupported, Exhausted.
        """
        driver = self._core.registry.pick("mount", storage or "").name
        async with bringing_in(self._core):
            return await import_image(self._core, source, name, changes, message, platform or Platform.host(), driver)

    async def load(
        self,
        source: BinaryIO,
        *,
        platform: Platform | None = None,
        storage: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> tuple[Loaded, ...]:
        """Take in all images of an archive, plain or compressed, from a file or a pipe. Raises Invalid, Corrupt."""
        driver = self._core.registry.pick("mount", storage or "").name
        async with bringing_in(self._core):
            return await archives.load(self._core, source, platform, progress or _nobody, driver)

    async def platforms(self, name: str) -> tuple[Digest, tuple[PlatformEntry, ...]]:
        """What a local image's name stands for: the digest of an index and its platforms, or of a manifest alone.

        Raises NotFound, Invalid, Corrupt.
        """
        return store.platforms(self._core, name)

    @asynccontextmanager
    async def workbench(self, *, storage: str | None = None, runtime: str | None = None) -> AsyncIterator[Workbench]:
        """The means of one build (`scow.engine.building`). Raises Unsupported, NotFound (a plugin)."""
        try:
            async with open_workbench(self._core, storage, runtime) as bench:
                yield bench
        except ScowError:
            await buildgarbage.collect(self._core, grown=True)
            raise
        await buildgarbage.collect(self._core, grown=bench.grown)

    async def build_cache(self) -> tuple[BuildCacheEntry, ...]:
        """What builds have left for later ones: layers, cache mounts, digests of files. The last used first."""
        return await in_thread(self._core, buildgarbage.entries)

    async def prune_build_cache(
        self,
        *,
        everything: bool = False,
        keep: int | None = None,
        wanted: Callable[[BuildCacheEntry], bool] | None = None,
    ) -> BuildCacheRemoval:
        """Remove entries that no build uses (of those, the wanted), the longest unused first.

        With `keep`, only until at most so many bytes are left. Without `everything`, entries stay whose layers images
        have, too.
        """
        return await in_thread(self._core, buildgarbage.prune, everything=everything, keep=keep, wanted=wanted)

    async def caches(self) -> tuple[CacheInfo, ...]:
        """The cache mounts of builds (`RUN --mount=type=cache`), by name."""
        return await in_thread(self._core, cachestore.listing)

    async def export_cache(self, name: str, out: int) -> None:
        """Write a cache's files as a tar stream to a descriptor. Raises NotFound, Invalid, Conflict (in use)."""
        await in_thread(self._core, cachestore.export, name, out)

    async def import_cache(self, name: str, source: BinaryIO, *, replace: bool = False) -> CacheInfo:
        """Make a cache of a tar archive, plain, gzip or zstd; with `replace`, in the place of one that is there.

        Raises Invalid, Conflict (there is one, or in use), Corrupt, Unsupported, Exhausted.
        """
        return await in_thread(self._core, cachestore.import_, name, source, replace=replace)

    async def remove_cache(self, name: str) -> tuple[str, ...]:
        """Remove a cache with its private copies; gives their keys. Raises NotFound, Conflict (in use)."""
        return tuple(each.name for each in await in_thread(self._core, cachestore.remove, name))

    async def history(self, name: str) -> list[HistoryLine]:
        """What made an image, the last step first. Raises NotFound, Invalid, Corrupt."""
        return store.history(self._core, name)

    async def images(self) -> list[ImageSummary]:
        """All local images, the newest first. `inspect_image` has more of each."""
        return images.summaries(self._core)

    async def inspect_image(self, name: str) -> ImageInfo:
        """One local image. Raises NotFound, Invalid."""
        found = images.find(self._core, name)
        if found is None:
            raise NotFound(
                f"no such image: {name}", hint=f"`scow images` lists what is here, `scow pull {name}` fetches it"
            )
        return images.describe(self._core, found, rows.names_of(self._core.database))

    async def create(
        self,
        request: CreateRequest,
        *,
        progress: Callable[[Progress], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Container:
        """Create a container; its image is pulled first when it isn't there and `request.pull` allows that.

        `warn` is told in a sentence what the user might not expect: that the image is for another platform.
        Raises what `pull` raises; Exists (the name is taken), Invalid, NotFound (a mount's source), Unsupported.
        """
        async with bringing_in(self._core):
            return await create_container(self._core, request, progress or _nobody, warn)

    async def start(self, container: str) -> None:
        """Start a container that was created or has ended; gives back when its process runs.

        One that runs is left alone. Raises NotFound, Conflict (it is paused), NoCommand, NotExecutable, Exists (a port
        is taken), Unsupported.
        """
        if containers.find(self._core.database, container).state.status is Status.RUNNING:
            return
        async with self._started(container, attach=False, stdin=False):
            pass

    @asynccontextmanager
    async def attach(
        self, container: str, *, start: bool = False, stdin: bool = False, rows: int = 0, columns: int = 0
    ) -> AsyncIterator[Session]:
        """A conversation with a container's process; with `start`, from its first byte on.

        Leaving the context leaves the container alone. Raises as `start`; Conflict when it doesn't run.
        """
        if start and containers.find(self._core.database, container).state.status is not Status.RUNNING:
            async with self._started(container, attach=True, stdin=stdin, rows=rows, columns=columns) as session:
                yield session
            return
        async with self._connected(container, Order("attach", stdin=stdin)) as session:
            await session.started()
            if rows and columns:
                await session.resize(rows, columns)
            yield session

    @asynccontextmanager
    async def exec(
        self, container: str, process: ProcessSpec, *, stdin: bool = False, detach: bool = False
    ) -> AsyncIterator[Session]:
        """Run another process in a running container. What `process` leaves empty comes from the container.

        With `detach` nobody need listen: the process goes on when the context is left.
        Raises NotFound, Conflict (not running, paused), NoCommand, NotExecutable.
        """
        spec = containers.find(self._core.database, container).spec
        inner = replace(
            process,
            env=_overridden(spec.process.env, process.env),
            cwd=process.cwd or spec.process.cwd,
            user=process.user or spec.process.user,
        )
        check_text(inner)
        check_process(inner)
        order = Order("exec", stdin=stdin, process=inner, detach=detach, command=self._core.events.command)
        async with self._connected(container, order) as session:
            await session.started()
            yield session

    async def stop(self, container: str, *, timeout: float | None = None) -> None:
        """The container's stop signal, `timeout` seconds (default: the container's) to obey, then SIGKILL.

        Gives back when the container has ended and is cleaned up. No error when it doesn't run. Raises NotFound.
        """
        found = containers.find(self._core.database, container)
        stream = await connect(self._core.paths.rundir(found.spec.id))
        if stream is None:
            return
        async with conversing(stream) as session:
            await session.order(Order("stop", timeout=timeout))
            self._emit("kill", found, signal=signal_number(found.spec.stop_signal))
            with suppress(Internal, Conflict):  # it was killed or ended while we asked; either way it has stopped
                await session.wait()
        await self._wait_gone(found.spec.id)
        self._emit("stop", found)

    async def kill(self, container: str, signal: int | str = "SIGKILL") -> None:
        """Send a signal to the container's first process. Raises NotFound, Conflict (not running), Invalid."""
        number = signal_number(signal)
        await self._ask(container, Order("signal", number=number))
        self._emit("kill", containers.find(self._core.database, container), signal=number)

    async def pause(self, container: str) -> None:
        """Freeze a container's processes. Raises NotFound, Conflict, Unsupported."""
        await self._ask(container, Order("pause"))

    async def unpause(self, container: str) -> None:
        """Thaw them. Raises NotFound, Conflict."""
        await self._ask(container, Order("resume"))

    async def stats(self, container: str) -> dict[str, Any]:
        """Counters of a running container: memory_bytes, cpu_ns, pids. Raises NotFound, Conflict."""
        return await self._ask(container, Order("stats"))

    async def wait(self, container: str) -> int:
        """Wait until a container doesn't run any more; its exit code. Raises NotFound."""
        found = containers.find(self._core.database, container)
        stream = await connect(self._core.paths.rundir(found.spec.id))
        if stream is None:
            return containers.find(self._core.database, found.spec.id).state.exit_code
        async with conversing(stream) as session:
            await session.order(Order("wait"))
            try:
                return (await session.wait()).exit_code
            except (Internal, Conflict):
                reclaim(self._core)
                return containers.find(self._core.database, found.spec.id).state.exit_code

    async def remove(self, container: str, *, force: bool = False) -> None:
        """Remove a container that doesn't run; with `force`, kill it first. Raises NotFound, Conflict."""
        found = containers.find(self._core.database, container)
        running = found.state.status in (Status.RUNNING, Status.PAUSED)
        if running and force:
            await self.stop(found.spec.id, timeout=0)
        elif running:
            raise Conflict(
                f"container {found.spec.name} is {found.state.status.value} and can't be removed",
                hint="stop it first, or use -f",
            )
        await self._wait_gone(found.spec.id)
        try:
            fresh = containers.find(self._core.database, found.spec.id)
        except NotFound:
            return  # it was run with --rm, and went by itself
        await trio.to_thread.run_sync(_discard_with_own_connection, self._core, fresh)

    async def containers(self, *, all: bool = False) -> list[Container]:  # noqa: A002 - Docker's word
        """The running containers, or all, the newest first."""
        wanted = None if all else (Status.RUNNING, Status.PAUSED)
        return containers.listing(self._core.database, wanted)

    async def inspect(self, container: str) -> Container:
        """One container. Raises NotFound, Invalid (an ambiguous beginning of an ID)."""
        return containers.find(self._core.database, container)

    @asynccontextmanager
    async def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> AsyncIterator[AsyncIterator[LogRecord]]:
        """A container's output, from the beginning or the last `tail` lines; with `follow`, on until it ends."""
        wanted = Wanted(tail, since, until)
        async with aclosing(self._log(container, wanted, follow=follow)) as blocks, aclosing(records(blocks)) as stream:
            yield stream

    @asynccontextmanager
    async def log_output(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[AsyncIterator[Output]]:
        """The same as `logs`, as it is shown: many lines at a time, each with its time before it if asked for.

        Much quicker than a record for each line: for copying it somewhere.
        """
        wanted = Wanted(tail, since, until)
        async with (
            aclosing(self._log(container, wanted, follow=follow)) as blocks,
            aclosing(shown(blocks, timestamps=timestamps)) as stream,
        ):
            yield stream

    def _log(self, container: str, wanted: Wanted, *, follow: bool) -> AsyncGenerator[list[Entry], None]:
        spec = containers.find(self._core.database, container).spec
        path = log_path(self._core.paths.container(spec.id), spec.id)
        rundir = self._core.paths.rundir(spec.id)
        if follow and path.exists():
            return followed(path, wanted, lambda: is_owned(rundir))
        return past(path, wanted)

    @asynccontextmanager
    async def events(
        self, *, since: float | None = None, until: float | None = None, follow: bool = True
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """What happens in this engine, in every process, from `since` (default: now) to `until` (default: for ever)."""
        async with self._core.events.follow(since=since, until=until, follow=follow) as stream:
            yield stream

    def plugins(self) -> list[PluginInfo]:
        """Every plugin found, those that can't be loaded or can't work here too."""
        return list_plugins(self._core)

    async def info(self) -> EngineInfo:
        """This engine and this machine."""
        return describe_engine(self._core)

    @asynccontextmanager
    async def _started(
        self, container: str, *, attach: bool, stdin: bool, rows: int = 0, columns: int = 0
    ) -> AsyncIterator[Conversation]:
        found = containers.find(self._core.database, container)
        if found.state.status in (Status.RUNNING, Status.PAUSED):
            raise Conflict(f"container {found.spec.name} is {found.state.status.value} already")
        step(found.state.status, Happening.START, found.spec.name)
        request = SuperviseRequest(
            root=str(self._core.paths.root),
            run=str(self._core.paths.run),
            config=self._core.config_file,
            settings=self._core.config,
            container=found.spec.id,
            command=self._core.events.command,
            attach=attach,
            stdin=stdin,
            rows=rows,
            columns=columns,
        )
        async with conversing(await spawn_supervisor(request)) as session:
            await session.started()
            yield session

    @asynccontextmanager
    async def _connected(self, container: str, order: Order) -> AsyncIterator[Conversation]:
        found = containers.find(self._core.database, container)
        stream = await connect(self._core.paths.rundir(found.spec.id))
        if stream is None:
            raise Conflict(
                f"container {found.spec.name} is not running", hint=f"`scow start {found.spec.name}` starts it"
            )
        async with conversing(stream) as session:
            await session.order(order)
            yield session

    async def _ask(self, container: str, order: Order) -> dict[str, Any]:
        async with self._connected(container, order) as session:
            return await session.answered()

    async def _wait_gone(self, container_id: str, seconds: float = 10) -> None:
        """Until the supervisor has left its run directory."""
        rundir = self._core.paths.rundir(container_id)
        with trio.move_on_after(seconds):
            # A lock in another process gives no notice when it is let go.
            while is_owned(rundir):  # noqa: ASYNC110
                await trio.sleep(0.005)
        if rundir.exists() and not is_owned(rundir):
            reclaim(self._core)

    def _emit(self, action: str, container: Container, **facts: Any) -> None:
        spec = container.spec
        self._core.events.emit_container(action, spec, **facts)


@asynccontextmanager
async def open_engine(
    *,
    root: Path | None = None,
    run: Path | None = None,
    config: Path | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
    trace: Path | None = None,
    leaving: bool = False,
) -> AsyncIterator[Engine]:
    """Open the engine of a root directory; what dead processes held is reclaimed first.

    `root` and `run` default to SCOW_ROOT and SCOW_RUN, else /var/lib/scow and /run/scow; `config` is read after the
    system's and the user's files. `trace`: a Chrome trace of everything this engine did is written there at the end.
    `leaving`: the process ends right after; the database is left to the kernel, since closing it writes it to the disk.
    Raises Denied (not root), Invalid (the configuration), Exhausted, Unsupported, Corrupt.
    """
    settings = read_settings(config, log_level, log_format)
    core = open_core(Paths.of(root, run), settings, config)
    mark = core.events.mark()
    try:
        reclaim(core)
        yield Engine(core)
    finally:
        if not leaving:
            core.database.close()
        if trace is not None:
            write_trace(trace, core.events.since_mark(mark), core.events.command)


def _overridden(below: tuple[str, ...], above: tuple[str, ...]) -> tuple[str, ...]:
    """Variables over others; an entry without `=` removes."""
    merged: dict[str, str] = {}
    for entry in (*below, *above):
        key, equals, value = entry.partition("=")
        if equals:
            merged[key] = value
        else:
            merged.pop(key, None)
    return tuple(f"{key}={value}" for key, value in merged.items())


def _discard_with_own_connection(core: Core, container: Container) -> None:
    """SQLite connections belong to one thread; removing a large writable layer belongs into another one."""
    own = Database(core.paths.database)
    try:
        discard(replace(core, database=own), container)
    finally:
        own.close()
