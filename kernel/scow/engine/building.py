"""What a builder works with: images as stacks of layers, steps run on top of them, layers and images made.

A builder is a plugin of the group `scow.build`; it sees nothing of the engine but this module. The kernel knows stacks,
steps and layers, and nothing of Dockerfiles.

    async with engine.workbench() as bench:
        base = await bench.base("debian", platform)
        async with bench.step(base.stack, step) as running:
            async for output in running.output(): ...
            status = await running.wait()
            layer = await running.layer()
        image = await bench.save((*base.stack, layer), config, ["name"])
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import trio

from scow.aio import cleanup
from scow.content.store import disk_errors
from scow.content.stored import StoredBlob
from scow.engine import images, publish
from scow.engine.core import Core
from scow.engine.garbage import bringing_in, in_thread, sweep
from scow.engine.layering import Layer, write_layer
from scow.engine.lookup import newer
from scow.engine.names import new_id
from scow.engine.netwarnings import network_warnings
from scow.engine.rootfs import MADE, NoJournal, told
from scow.engine.session import Conversation, conversing
from scow.engine.shipping import Composed, Remote, as_oci, compose, fetch_layer, lay_out, look, pack, send
from scow.engine.spawn import spawn_supervisor
from scow.engine.types import ImageInfo, Output, Progress
from scow.errors import Internal, Invalid, NotFound, ScowError, Unsupported
from scow.layers.removal import delete
from scow.layers.writer import TarWriter, write_changes
from scow.model.container import ContainerSpec
from scow.model.descriptor import HOST_LAYER, OCI_MANIFEST
from scow.model.digest import Digest, chain_ids
from scow.model.image import CONFIG_MAX
from scow.model.platform import Platform
from scow.model.process import ExitStatus, Isolation, Mount, ProcessSpec, Resources
from scow.model.reference import Named, Reference, parse_named, parse_reference
from scow.model.storage import Change, MountRequest, Snapshot, SnapshotStore, UnpackRequest
from scow.state import cachemounts
from scow.state import images as rows
from scow.state.buildcache import BuildCache, Place, Record
from scow.state.liveness import is_owned, take
from scow.supervisor.protocol import LayerView, StepFile, StepFolder, StepRequest, SuperviseRequest

__all__ = [
    "Base",
    "BuildCache",
    "Composed",
    "ImageInfo",
    "Layer",
    "LayerView",
    "Output",
    "Place",
    "Progress",
    "Record",
    "Remote",
    "Report",
    "RunningStep",
    "Stack",
    "Step",
    "StepFile",
    "StepFolder",
    "StepView",
    "TarWriter",
    "Workbench",
    "cachemounts",
    "compose",
    "open_workbench",
]

#: How long a build waits for the steps of one that was killed, in seconds; else the next one cleans up.
_PATIENCE: Final = 5.0
#: In a build's directory: what it is about to make, a line for each.
_MADE: Final = "made"
#: Layers, lowest first.
Stack = tuple[Layer, ...]
Report = Callable[[Progress], None]
#: IDs are at least as long as those that `images` shows.
_SHORT_ID: Final = 12
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Base:
    """An image to build on. `config` is its whole configuration, as JSON has it."""

    name: str
    digest: Digest
    platform: Platform
    stack: Stack
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepView:
    """Another stack's file or directory that a step sees."""

    stack: Stack
    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """A program to run on top of a stack. `network` is a plugin's name; empty: the engine's own choice."""

    process: ProcessSpec
    network: str = ""
    hostname: str = "buildkitsandbox"
    mounts: tuple[Mount, ...] = ()
    views: tuple[StepView, ...] = ()
    files: tuple[StepFile, ...] = ()
    folders: tuple[StepFolder, ...] = ()
    privileged: bool = False
    resources: Resources = field(default_factory=Resources)
    extra_hosts: tuple[tuple[str, str], ...] = ()
    #: Whether it has an input: `RunningStep.session` gives it.
    stdin: bool = False


class RunningStep:
    """A step that runs. `output` and `wait` as in a session; `layer` and `after` when it has ended."""

    def __init__(
        self, bench: Workbench, stack: Stack, step: Step, scratch: Path, session: Conversation, step_id: str
    ) -> None:
        self._bench = bench
        self._stack = stack
        self._step = step
        self._scratch = scratch
        self._session = session
        self._id = step_id

    @property
    def session(self) -> Conversation:
        """The conversation itself: input, the terminal's size, signals (`scow.engine.Session`)."""
        return self._session

    def output(self) -> AsyncIterator[Output]:
        """What it writes, until it ends."""
        return self._session.output()

    async def wait(self) -> ExitStatus:
        """Its end. Raises what kept it from starting."""
        return await self._session.wait()

    async def layer(self, clamp: int | None = None) -> Layer:
        """What it wrote as a layer; `clamp`: no file is newer than that, in seconds. Raises OSError, Exhausted."""
        return await self._bench.commit(self._stack, self._scratch, self._step, clamp)

    @asynccontextmanager
    async def after(self, step: Step) -> AsyncIterator[RunningStep]:
        """Run another program on the files that this one, which has ended, has left. What it writes comes on top."""
        await self._bench.gone(self._id)  # one mount of a scratch directory at a time
        async with self._bench.run(self._stack, step, self._scratch) as running:
            yield running


class Workbench:
    """The engine's means for one build; see the module."""

    def __init__(self, core: Core, work: Path, storage: str, runtime: str) -> None:
        self._core = core
        self._work = work
        self.storage = storage
        self._runtime = runtime
        #: What the cache has named until now.
        self._replaced: list[tuple[rows.Kind, Digest]] = []
        #: Whether layers were made, fetched or unpacked for this build.
        self.grown = False
        #: Where a builder keeps what it will want again; survives reboots.
        self.state_dir = core.paths.build

    def rundir(self, step_id: str) -> Path:
        """Where the supervisor of a step lives."""
        return self._core.paths.rundir(step_id)

    def cache(self) -> BuildCache:
        """What was built before. To be closed."""
        return BuildCache(self._core.paths.build_cache, self._note_replaced)

    def _note_replaced(self, digest: str, layer: str) -> None:
        self._replaced += [("blob", Digest.parse(digest)), ("layer", Digest.parse(layer))]
        for kind, each in self._replaced[-2:]:
            self._announce(kind, each)

    def _announce(self, kind: rows.Kind, digest: Digest) -> None:
        """Write down what is about to be made, or named no more: garbage, should we fail, unless somebody needs it."""
        with disk_errors(self._core.paths.root):
            fd = os.open(self._work / _MADE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{kind} {digest}\n".encode())
            finally:
                os.close(fd)

    def note_garbage(self, *, failed: bool) -> None:
        """Let the next sweep look at what was replaced in the cache and, after a failure, at all that was made."""
        garbage = _made(self._work) if failed else self._replaced
        if garbage:
            # On a disk that is full to the last block it stays a leftover.
            with suppress(ScowError):
                rows.forget(self._core.database, (), (), garbage)

    def check_name(self, name: str) -> str:
        """The full form of a name that a built image may have. Raises Invalid."""
        reference = parse_reference(name, self._core.registry.transports())
        if not isinstance(reference, Named):
            raise Invalid(f"{name!r} can't be a tag: it names a place, not a repository")
        if reference.digest is not None:
            raise Invalid(f"{name!r} can't be a tag: it has a digest", hint="write name:tag")
        return str(reference)

    async def base(
        self,
        name: str,
        platform: Platform,
        *,
        pull: bool | None = None,
        place: bool = False,
        report: Report = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> Base:
        """A local image, fetched if it isn't here. Raises as `pull`; Unsupported (`host:`).

        `pull` true: fetched anyway; false: never while it is here; None: a registry's tag is looked up, and where that
        fails the local image is taken, with a warning.

        `place`: the name may be that of a place on this machine (`oci:DIR`), which is always looked at anew. What
        stands in a file that may be a stranger's must not be one.
        """
        core = self._core
        if name.partition(":")[0] in core.registry.transports() and ":" in name:
            pull = place
            name = name if place else str(parse_named(name))
        elif len(name) < _SHORT_ID and set(name) <= _HEX:
            name = str(parse_named(name))  # `cafe` is a name, whatever IDs may begin so
        row = None if pull else images.find(core, name)
        if row is not None and images.config_of(core, row).platform.rank(platform) is None:
            row = None
        if row is not None and pull is None and await newer(core, name, platform, row, warn):
            row = None
        if row is None:
            info = await images.pull(core, name, platform, report, self.storage)
            row = rows.image_by_id(core.database, info.manifest_digest.hex)
            if row is None:
                raise NotFound(f"image {name} was removed while it was pulled")
        manifest, config = images.manifest_of(core, row), images.config_of(core, row)
        if any(layer.media_type == HOST_LAYER for layer in manifest.layers):
            raise Unsupported(f"{name} can't be built on: it is this machine itself")
        await images.unpack_stored(core, manifest, config, self.storage)
        stack = tuple(
            Layer(as_oci(blob), diff_id) for blob, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
        )
        raw = msgspec.json.decode(core.content.read(row.config, CONFIG_MAX), type=dict[str, Any])
        rows.touch(core.database, row.manifest)
        return Base(name, row.manifest, config.platform, stack, raw)

    def local_config(self, name: str) -> dict[str, Any] | None:
        """A local image's configuration, as JSON has it; None when the image isn't here."""
        try:
            row = images.find(self._core, name)
            if row is None:
                return None
            return msgspec.json.decode(self._core.content.read(row.config, CONFIG_MAX), type=dict[str, Any])
        except ScowError:
            return None

    async def again(self, stack: Stack, layer: Layer) -> bool:
        """Put a layer that was made before on top of a stack; false when it isn't here any more."""
        if not self._core.content.has(layer.descriptor):
            return False
        await self._unpack(stack, layer)
        return True

    @asynccontextmanager
    async def directory(self) -> AsyncIterator[Path]:
        """An empty directory on a disk, gone when the block ends."""
        place = self._place("directory")
        try:
            (content := place / "content").mkdir(mode=0o700)
            yield content
        finally:
            with cleanup(30, "remove a build's directory"):
                await trio.to_thread.run_sync(self._discard, place)

    def owns(self, path: Path) -> bool:
        """Whether a path lies in a directory that goes with the build."""
        return path.is_relative_to(self._work)

    @asynccontextmanager
    async def view(self, stack: Stack) -> AsyncIterator[int]:
        """A descriptor of the root directory that a stack makes, for looking. Raises as `mount`."""
        place = self._place("look")
        try:
            request = MountRequest(
                self.storage, place.name, self._snapshots(stack), place / "scratch", NoJournal(), volatile=True
            )
            request.scratch.mkdir(mode=0o700)
            async with self._core.stages.mount(request) as rootfs:
                yield rootfs.fd
        finally:
            with cleanup(30, "remove a view"):
                await trio.to_thread.run_sync(self._discard, place)

    async def layer(self, stack: Stack, write: Callable[[TarWriter], None], clamp: int | None = None) -> Layer:
        """A new layer on top of a stack, of what `write` puts into an archive, in a worker thread; unpacked.

        Raises what `write` raises, Exhausted, Corrupt.
        """
        layer = await trio.to_thread.run_sync(write_layer, self._core, write, clamp, partial(self._announce, "blob"))
        await self._unpack(stack, layer)
        return layer

    async def commit(self, stack: Stack, scratch: Path, step: Step, clamp: int | None) -> Layer:
        """What a step wrote in its scratch directory as a layer."""
        store = self._store()
        below = self._snapshots(stack)
        targets = [mount.target for mount in (*step.mounts, *step.folders)]
        targets += [view.target for view in step.views] + [file.target for file in step.files]
        made = set(_with_parents(targets))

        def write(writer: TarWriter) -> None:
            with store.changes(below, scratch) as written:
                if written.root >= 0:
                    write_changes(writer, written.root, _told(written.changes, made))

        return await self.layer(stack, write, clamp)

    @asynccontextmanager
    async def step(self, stack: Stack, step: Step) -> AsyncIterator[RunningStep]:
        """Run a program; left early, it is killed. What it wrote is gone when the block ends, unless made a layer."""
        place = self._place("step")
        try:
            async with self.run(stack, step, place / "scratch") as running:
                yield running
        finally:
            with cleanup(60, "remove a step"):
                await trio.to_thread.run_sync(self._discard, place)

    @asynccontextmanager
    async def run(self, stack: Stack, step: Step, scratch: Path) -> AsyncIterator[RunningStep]:
        """Run a program with a scratch directory, which stays; left early, the program is killed."""
        spec = self._spec(new_id(), stack, step)
        views = tuple(LayerView(_names(view.stack), view.source, view.target, view.read_only) for view in step.views)
        request = SuperviseRequest(
            root=str(self._core.paths.root),
            run=str(self._core.paths.run),
            config=self._core.config_file,
            settings=self._core.config,
            container=spec.id,
            command=self._core.events.command,
            step=StepRequest(spec, str(scratch), views, step.files, step.folders, step.stdin),
        )
        try:
            async with conversing(await spawn_supervisor(request)) as session:
                await session.started()
                yield RunningStep(self, stack, step, scratch, session, spec.id)
        finally:
            with cleanup(60, "end a step"):
                # When it was cut off, its supervisor still unmounts.
                await self.gone(spec.id)

    async def save(
        self,
        stack: Stack,
        config: dict[str, Any],
        names: Sequence[str],
        *,
        created: float | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> ImageInfo:
        """Record an image; its names point at it from now on. Raises Exhausted, Invalid (a name)."""
        core = self._core
        full = [self.check_name(name) for name in names]
        image = compose(stack, config, annotations)
        for document in (image.config, image.manifest):
            self._announce("blob", document.descriptor.digest)
            core.content.put(document)
        digest = image.manifest.descriptor.digest
        above = image.config.descriptor.digest
        size = sum(layer.descriptor.size for layer in stack)
        row = rows.ImageRow(digest, above, digest, OCI_MANIFEST, size, created or time.time())
        for name in full or ("",):
            rows.save_image(core.database, row, name or None, None)
        images.write_index(core)
        core.events.emit("image", "build", str(row.config), name=names[0] if names else "")
        return images.info(core, digest)

    async def push(self, name: str) -> Digest:
        """Send a saved image to the registry that its name says; gives the digest there. Raises as `publish`."""
        return (await publish.push(self._core, name, None, lambda _: None)).digest

    async def send(self, image: Composed, place: str, names: Sequence[str] = ()) -> None:
        """Write an image to a place that a reference says (`oci-archive:FILE`, a registry's name), under these names.

        Without names, under the one that the place has. Raises Invalid, NotFound, Denied, Unavailable, Exhausted.
        """
        transports = self._core.registry.transports()
        reference = parse_reference(place, transports)
        wanted = [parse_reference(name, transports) for name in names]
        await send(self._core, image, reference, wanted or ([reference] if _says_a_name(reference) else []))

    async def look(self, name: str, platform: Platform) -> Remote:
        """An image that lies elsewhere: what it says. Raises as `pull`."""
        return await look(self._core, parse_reference(name, self._core.registry.transports()), platform)

    async def take(self, remote: Remote, layer: Layer) -> None:
        """One layer of an image that lies elsewhere, into the store; checked. Raises as `pull`."""
        self._announce("blob", layer.descriptor.digest)
        await fetch_layer(self._core, remote.source, layer)

    async def lay_out(self, stack: Stack, target: Path) -> None:
        """The files that a stack makes, in a directory; all belong to us there. Raises Invalid, Denied, Exhausted."""
        async with self.view(stack) as root:
            await lay_out(root, target)

    async def pack(self, stack: Stack, target: Path) -> None:
        """The files that a stack makes, as a tar archive. Raises Invalid, NotFound, Exhausted."""
        async with self.view(stack) as root:
            await pack(root, target)

    def warnings(self, step: Step) -> tuple[str, ...]:
        """What on this machine will keep a step from the network that it asks for. Raises as the stage `network`."""
        return network_warnings(self._core, self._core.registry.pick("network", step.network).name)

    def _spec(self, step_id: str, stack: Stack, step: Step) -> ContainerSpec:
        network = self._core.registry.pick("network", step.network).name
        return ContainerSpec(
            id=step_id,
            name=f"build-{step_id[:12]}",
            image="",
            image_id="",
            manifest="",
            layers=_names(stack),
            storage=self.storage,
            network=network,
            runtime=self._runtime,
            process=step.process,
            isolation=Isolation(
                hostname=step.hostname,
                privileged=step.privileged,
                seccomp="unconfined" if step.privileged else "default",
                mounts=step.mounts,
                resources=step.resources,
            ),
            created=time.time(),
            extra_hosts=step.extra_hosts,
        )

    async def gone(self, step_id: str) -> None:
        """Until a step's supervisor has given everything back."""
        rundir = self._core.paths.rundir(step_id)
        # A directory that another process removes gives no notice of it.
        while rundir.exists():  # noqa: ASYNC110
            await trio.sleep(0.002)

    def _place(self, kind: str) -> Path:
        place = self._work / new_id()
        place.mkdir(mode=0o700)
        return place

    def _discard(self, place: Path) -> None:
        store = self._store()
        for scratch in place.iterdir():
            store.erase(scratch)
        shutil.rmtree(place, ignore_errors=True)

    def _store(self) -> SnapshotStore:
        store = self._core.registry.get("mount", self.storage).instance
        if store is None or not hasattr(store, "changes"):
            raise Internal(f"the storage plugin {self.storage} can't say what a step has changed")
        return cast(SnapshotStore, store)

    def _find(self, chain_id: Digest) -> Snapshot | None:
        return images.find_snapshot(self._core, self.storage, chain_id)

    def _snapshots(self, stack: Stack) -> tuple[Snapshot, ...]:
        found = []
        for chain_id in chain_ids(tuple(layer.diff_id for layer in stack)):
            snapshot = self._find(chain_id)
            if snapshot is None:
                raise NotFound(f"layer {chain_id} was removed during the build", hint="build again")
            found.append(snapshot)
        return tuple(found)

    async def _unpack(self, stack: Stack, layer: Layer) -> None:
        chain_id = chain((*stack, layer))
        if self._find(chain_id) is None:
            self.grown = True
            self._announce("layer", chain_id)
            blob = StoredBlob(layer.descriptor, self._core.content.blob(layer.descriptor.digest))
            below = self._snapshots(stack)
            await self._core.stages.unpack(
                UnpackRequest(self.storage, layer.descriptor, layer.diff_id, chain_id, below, blob)
            )


@asynccontextmanager
async def open_workbench(
    core: Core, storage: str | None = None, runtime: str | None = None
) -> AsyncIterator[Workbench]:
    """A workbench for one build; nothing that it makes is swept meanwhile, and nothing else of it stays."""
    driver = core.registry.pick("mount", storage or "").name
    process = core.registry.pick("exec", runtime or "").name
    base = core.paths.build / "work"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = base / new_id()
    lock = take(work)
    if lock is None:
        raise Internal(f"{work} belongs to somebody else")
    bench = Workbench(core, work, driver, process)
    try:
        if len(os.listdir(base)) > 1:
            await _clean_up(core, bench, base)
        async with bringing_in(core):
            failed = True
            try:
                yield bench
                failed = False
            finally:
                bench.note_garbage(failed=failed)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


async def _clean_up(core: Core, bench: Workbench, base: Path) -> None:
    """After builds that were killed."""
    dead, garbage = await trio.to_thread.run_sync(_sweep, bench, base)
    if dead:
        rows.forget(core.database, (), (), garbage)
        await in_thread(core, sweep, patience=0)


def _sweep(bench: Workbench, base: Path) -> tuple[bool, list[tuple[rows.Kind, Digest]]]:
    """Remove what builds that were killed have left; gives whether there were any, and what they had made."""
    dead, garbage = False, []
    for work in base.iterdir():
        if not (work / "lock").exists() and not any(work.iterdir()):
            # It is just being made, and will be again; or whoever made it was killed right then.
            with suppress(OSError):
                work.rmdir()
            continue
        lock = take(work)
        if lock is None:
            continue
        try:
            if not _ended(bench, work):
                continue
            dead = True
            garbage += _made(work)
            # A step that is only now being started finds no place any more.
            work = work.rename(base / new_id())
            for place in work.iterdir():
                if place.is_dir():
                    bench._discard(place)
            shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(lock)
    with suppress(OSError):
        for path in cachemounts.leftovers(base.parent / "caches"):
            delete(path)
    return dead, garbage


def _ended(bench: Workbench, work: Path) -> bool:
    """Whether the steps of a killed build have ended: their supervisors notice it, and take a moment to unmount."""
    deadline = time.monotonic() + _PATIENCE
    rundirs = [bench.rundir(place.name) for place in work.iterdir() if place.is_dir()]
    while any(is_owned(rundir) for rundir in rundirs):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _made(work: Path) -> list[tuple[rows.Kind, Digest]]:
    """What a build was about to make. A line may be half written."""
    found: list[tuple[rows.Kind, Digest]] = []
    with suppress(OSError):
        for line in (work / _MADE).read_text(errors="replace").splitlines():
            kind, _, text = line.partition(" ")
            with suppress(ScowError):
                found.append(("blob" if kind == "blob" else "layer", Digest.parse(text)))
    return found


def chain(stack: Stack) -> Digest:
    """The chain ID of a stack that isn't empty."""
    return chain_ids(tuple(layer.diff_id for layer in stack))[-1]


def _names(stack: Stack) -> tuple[str, ...]:
    return tuple(str(each) for each in chain_ids(tuple(layer.diff_id for layer in stack)))


def _with_parents(targets: Iterable[str]) -> Iterable[bytes]:
    """Places where something was mounted, and the directories above them: made for it if they weren't there."""
    for target in targets:
        path = os.fsencode(os.path.normpath(target).lstrip("/"))
        while path:
            yield path
            path = path.rpartition(b"/")[0]


def _told(changes: Iterable[Change], made: set[bytes]) -> list[Change]:
    """The changes of a step; directories that were made for its mounts go when nothing else is in them."""
    return told(changes, MADE | made | {b"etc"}, ())


def _says_a_name(reference: Reference) -> bool:
    """Whether what is sent there gets a name by that: `oci:DIR:TAG`, a registry's name."""
    return isinstance(reference, Named) or ":" in reference.rest
