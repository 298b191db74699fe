"""The solver: stages in parallel as far as they need each other, each step from the cache or done now."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import trio

from scow.api import (
    Conflict,
    Corrupt,
    Digest,
    Invalid,
    NoCommand,
    NotExecutable,
    NotFound,
    Platform,
    ScowError,
    chain_ids,
    check_layers,
)
from scow.api.layers import TarWriter
from scow.engine.builders import BuildEvent, BuildRequest
from scow.engine.building import Base, BuildCache, Layer, Place, Record, Stack, Workbench
from scow_plugins.builder import _archive, _remote
from scow_plugins.builder._cache import Key, explain, packed
from scow_plugins.builder._cachedoc import Noted, layer_of
from scow_plugins.builder._caches import Imported, open_caches
from scow_plugins.builder._contexts import cloned, commit_of, ignore_of
from scow_plugins.builder._fetching import Tally, fetching
from scow_plugins.builder._gitref import GitRef, parse_git
from scow_plugins.builder._ignore import Ignore, read_patterns
from scow_plugins.builder._layout import Layout, owner_of
from scow_plugins.builder._modes import Mode
from scow_plugins.builder._once import alone
from scow_plugins.builder._plan import Plan, first_error, image_of, origins, places_among
from scow_plugins.builder._run import run_key, run_step
from scow_plugins.builder._select import Source, at_once, choose, cleaned, digest_of, is_pattern
from scow_plugins.builder._shell import shell_before
from scow_plugins.builder._source import Statement, located
from scow_plugins.builder._steps import CopyOp, Origin, PlannedStage, PlannedStep, RunOp, WorkdirOp
from scow_plugins.builder._tree import Index, Tree

#: Files whose digests are kept one by one, so that `explain` can name them.
_EXPLAINED: Final = 20_000
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_COMMENT: Final = "buildkit.dockerfile.v0"


@dataclass(slots=True)
class Solved:
    """A stage that is done. `history` is the configuration's; `created` of its newest step, in seconds."""

    stack: Stack = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    #: The number of its newest step; 0: none was shown.
    last: int = 0


class Solver:
    """Solves one plan."""

    def __init__(
        self,
        bench: Workbench,
        request: BuildRequest,
        plan: Plan,
        listener: Callable[[BuildEvent], None],
        cache: BuildCache,
        tally: Tally,
    ) -> None:
        self.bench = bench
        self.request = request
        self.plan = plan
        self.tell = listener
        self.cache = cache
        self.tally = tally
        #: What this build has met, for caches that others take.
        self.noted: list[Noted] = []
        self.memos: dict[str, str] = {}
        self._said: set[str] = set()
        self.imported = Imported()
        self.limiter = trio.CapacityLimiter(max(os.cpu_count() or 1, 2))
        self._bases: dict[tuple[str, Platform], Base] = {}
        self._fetching = trio.Lock()
        self._solved: dict[int, Solved] = {}
        self._done = {index: trio.Event() for index in plan.stages}
        self._scopes = {index: trio.CancelScope() for index in plan.stages}
        #: Before these a shell is wanted.
        self.breaks: tuple[Statement, ...] = ()
        #: The user can talk to one shell at a time.
        self.shell_lock = trio.Lock()
        self._contexts: dict[str, tuple[Tree, trio.Lock]] = {}
        self._tree_keys: dict[CopyOp, str] = {}
        #: What was found in the cache, by key; noted there in the end.
        self._reused: dict[str, tuple[Key, Record, Place]] = {}
        epoch = request.build_args.get("SOURCE_DATE_EPOCH", "")
        if epoch and not (epoch.isascii() and epoch.isdigit()):
            raise Invalid(f"SOURCE_DATE_EPOCH {epoch!r} is not a number of seconds")
        self.epoch = int(epoch) if epoch else None

    async def run(self) -> Solved:
        """Solve all stages; gives the target's. Raises the first failure, after the others were stopped."""
        total = sum(step.op is not None for stage in self.plan.stages.values() for step in stage.steps)
        self.tell(BuildEvent("plan", 0, total=total))
        async with AsyncExitStack() as stack:
            await self._open_contexts(stack)
            self.imported = await open_caches(self)
            try:
                async with trio.open_nursery() as nursery:
                    for stage in self.plan.stages.values():
                        nursery.start_soon(self._scoped, stage)
            except BaseExceptionGroup as group:
                raise first_error(group) from None
            finally:
                self._note_reused()
        return self._solved[self.plan.target]

    def _note_reused(self) -> None:
        """Say what was used. What somebody has pruned meanwhile is noted again: its layer stays while we build."""
        for value in self.cache.touch({value: place for value, (_, _, place) in self._reused.items()}):
            self._keep(*self._reused[value])

    async def base(self, name: str, platform: Platform | None = None) -> Base:
        """An image, local from now on."""
        key = (name, platform or self.request.platform)
        async with self._fetching:
            if key not in self._bases:
                place = name in places_among(self.request.contexts)
                with fetching(self.tell, self.tally, name) as report:
                    self._bases[key] = await self.bench.base(
                        name, key[1], pull=self.request.pull, place=place, report=report, warn=self.note
                    )
            return self._bases[key]

    def take_bases(self, bases: dict[tuple[str, Platform], Base]) -> None:
        """Images that the plan has fetched already."""
        self._bases.update(bases)

    async def _open_contexts(self, stack: AsyncExitStack) -> None:
        for name, path, patterns in _places(self.request):
            try:
                fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise NotFound(f"context {path} can't be opened: {error.strerror}") from None
            stack.callback(os.close, fd)
            # What came for this build only is never met again.
            lasting = not self.bench.owns(path)
            index = Index(self.bench.state_dir / "index" / _index_name(path) if lasting else None)
            shown = f"the context {name}" if name else "the build context"
            tree = Tree(fd, shown, ignore=Ignore(read_patterns(patterns)), index=index)
            tree.check = trio.from_thread.check_cancelled
            stack.callback(tree.close)
            self._contexts[name] = (tree, trio.Lock())

    def stop_others(self, step: PlannedStep) -> None:
        """Stop all stages but the one of a step that failed."""
        for stage in self.plan.stages.values():
            if not any(each is step for each in stage.steps):
                self._scopes[stage.index].cancel()

    async def _scoped(self, stage: PlannedStage) -> None:
        with self._scopes[stage.index]:
            await self._stage(stage)

    async def _stage(self, stage: PlannedStage) -> None:
        if stage.base >= 0:
            await self._done[stage.base].wait()
        solved = await self._begin(stage)
        total = sum(step.op is not None for step in stage.steps)
        # All but WORKDIR surely make one.
        makers = sum(not isinstance(step.op, WorkdirOp) for step in stage.steps if step.op is not None)
        check_layers(len(solved.stack) + makers)
        number = 0
        for step in stage.steps:
            for origin in origins(step):
                if origin.kind == "stage":
                    await self._done[origin.stage].wait()
            if any(each is step.said.at for each in self.breaks):
                await shell_before(self, step, solved.stack)
            if step.op is not None:
                number += 1
                await self._step(stage, step, solved, number, total)
            elif step.created_by:
                self._note(solved, step, solved.created, empty=True)
        self._solved[stage.index] = solved
        self._done[stage.index].set()

    async def _begin(self, stage: PlannedStage) -> Solved:
        if stage.base >= 0:
            below = self._solved[stage.base]
            return Solved(below.stack, list(below.history), below.raw, below.created, below.last)
        if stage.image in ("", "scratch"):
            platform = stage.platform
            raw: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
            if platform.variant:
                raw["variant"] = platform.variant
            solved = Solved(raw=raw, created=0.0 if self.epoch is None else self.epoch)
            if stage.context:
                solved.stack = (await self._context_layer(shown_of(Origin("named", stage.context), "")),)
                solved.history.append({"created": rfc3339(solved.created), "created_by": f"FROM {stage.context}"})
            return solved
        base = await self.base(stage.image, stage.platform)
        history = list(base.config.get("history") or ())
        said = sum(1 for line in history if not line.get("empty_layer"))
        # Images made by hand often have no history; each layer gets its line.
        history += [{"created_by": ""} for _ in range(len(base.stack) - said)]
        return Solved(base.stack, history, base.config, _seconds(base.config.get("created")))

    def _note(self, solved: Solved, step: PlannedStep, created: float, *, empty: bool) -> None:
        moment = self.epoch if self.epoch is not None else created
        line: dict[str, Any] = {
            "created": rfc3339(moment),
            "created_by": step.created_by,
            "comment": _COMMENT,
        }
        if empty:
            line["empty_layer"] = True
        solved.history.append(line)
        solved.created = max(solved.created, moment)

    async def _step(self, stage: PlannedStage, step: PlannedStep, solved: Solved, number: int, total: int) -> None:
        self.tally.steps += 1
        identity = self.tally.number()
        title = f"[{stage.name} {number}/{total}] {step.title}"
        began = time.monotonic()
        below = [solved.last, *(self._solved[each.stage].last for each in origins(step) if each.kind == "stage")]
        self.tell(BuildEvent("start", identity, title, stage.name, inputs=tuple(filter(None, dict.fromkeys(below)))))
        solved.last = identity
        try:
            made, created, cached, why = await self._solve(stage, step, solved.stack, identity)
        except ScowError as error:
            took = time.monotonic() - began
            self.tell(BuildEvent("failed", identity, title, stage.name, seconds=took, why=error.message))
            raise _placed(error, step) from None
        if made is not None:
            solved.stack = (*solved.stack, made)
        self._note(solved, step, created or solved.created, empty=made is None)
        self.tally.cached += cached
        kind = "cached" if cached else "done"
        self.tell(
            BuildEvent(kind, identity, title, stage.name, seconds=time.monotonic() - began, why=why)  # type: ignore[arg-type]
        )

    async def _solve(
        self, stage: PlannedStage, step: PlannedStep, below: Stack, identity: int
    ) -> tuple[Layer | None, float, bool, str]:
        """The step's layer (None: it changes nothing), when it was made, whether it was there, why it wasn't."""
        op = step.op
        if isinstance(op, WorkdirOp) and await self._is_directory(below, op.path):
            return None, 0.0, True, ""
        copying: Copying | None = None
        async with AsyncExitStack() as stack:
            if isinstance(op, RunOp):
                key = await run_key(self, op, below)
                work: Callable[[], Awaitable[Layer]] = partial(run_step, self, step, op, below, identity)
            elif isinstance(op, CopyOp):
                copying = await self._prepare_copy(stack, op, below)
                key = copying.key
                work = partial(self._copy, op, below, copying)
            else:
                assert isinstance(op, WorkdirOp)
                owned = {"owner": op.owner} if op.owner else {}
                key = Key("workdir", parent=chain_of(below), path=op.path, epoch=self.epoch, **owned)
                work = partial(self._make_directory, below, op)
            used = not self.request.no_cache and stage.name not in self.request.no_cache_filter
            where = self.request.context_name or self.request.context
            slot = f"{where} {stage.name} {step.said.at.place()}"
            files = copying.digests() if copying is not None else {}
            titled = (f"[{stage.name}] {step.title}", slot)
            record = await self._known(key, below, titled) if used else None
            if record is not None:
                self.noted.append(Noted(key.value, record))
                return layer_of(record), record.created, True, ""
            if used:
                waiting = partial(self.note, f"{titled[0]} is done by another build: waiting for it")
                await stack.enter_async_context(alone(self.bench.state_dir / "steps", key.value, waiting))
                record = await self._known(key, below, titled) if self.cache.find(key.value) is not None else None
                if record is not None:
                    self.noted.append(Noted(key.value, record))
                    return layer_of(record), record.created, True, ""
            why = explain(self.cache, key, slot, files) if used else "the cache isn't used"
            layer = await work()
            record = Record(*_columns(layer), time.time())
            self._keep(key, record, place_of(below, layer, *titled), files)
        self.noted.append(Noted(key.value, record))
        return layer, record.created, False, why

    async def _known(self, key: Key, below: Stack, titled: tuple[str, str]) -> Record | None:
        """The layer of a key, on top of its stack: made here before, or somewhere else."""
        record = self.cache.find(key.value)
        if record is not None and await self.bench.again(below, layer_of(record)):
            place = place_of(below, layer_of(record), *titled)
            self._reused[key.value] = (key, record, place)
            return record
        record = await self.imported.bring(self, key.value, below)
        if record is not None:
            self._keep(key, record, place_of(below, layer_of(record), *titled))
        return record

    def _keep(self, key: Key, record: Record, place: Place, files: Mapping[str, str] = _NOTHING) -> None:
        self.cache.add(key.value, record, place, json.dumps(key.kept()).encode(), packed(files))

    def _memo(self, key: Key) -> str | None:
        value = self.cache.memo(key.value) or self.imported.memo(key.value)
        if value is not None:
            self.memos[key.value] = value
        return value

    def _remember(self, key: Key, value: str) -> None:
        self.cache.remember(key.value, value)
        self.memos[key.value] = value

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self.tell(BuildEvent("note", 0, title=text))

    def note_once(self, texts: Iterable[str]) -> None:
        """What the user should know, but not at every step again."""
        for text in texts:
            if text not in self._said:
                self._said.add(text)
                self.note(text)

    @contextmanager
    def showing(self, title: str) -> Iterator[None]:
        """Show work that is no step."""
        identity = self.tally.number()
        began = time.monotonic()
        self.tell(BuildEvent("start", identity, title))
        try:
            yield
        except BaseException as error:
            why = error.message if isinstance(error, ScowError) else "given up"
            self.tell(BuildEvent("failed", identity, title, seconds=time.monotonic() - began, why=why))
            raise
        self.tell(BuildEvent("done", identity, title, seconds=time.monotonic() - began))

    # WORKDIR

    async def _is_directory(self, below: Stack, path: str) -> bool:
        if path == "/":
            return True
        key = Key("is-directory", parent=chain_of(below), path=path)
        known = self._memo(key)
        if known is None:
            async with self.looking(below) as tree:
                place = Layout(TarWriter(lambda _: None), tree, owner=None, mode=None, mtime=0).settle(path)
                node = tree.lstat(place) if place else tree.find("")
            if node is not None and not node.is_directory:
                raise Invalid(f"the working directory {path} is no directory in the image")
            known = "yes" if node is not None else "no"
            self._remember(key, known)
        return known == "yes"

    async def _make_directory(self, below: Stack, op: WorkdirOp) -> Layer:
        async with self.looking(below) as tree:
            moment = self.epoch if self.epoch is not None else int(tree.find("").status.st_mtime)
            owner = owner_of(op.owner, tree) if op.owner else (0, 0)

            def write(writer: TarWriter) -> None:
                layout = Layout(writer, tree, owner=owner, mode=None, mtime=moment)
                layout.directory(layout.settle(op.path))

            return await self.bench.layer(below, write, self.epoch)

    # COPY and ADD

    @asynccontextmanager
    async def looking(self, stack: Stack) -> AsyncIterator[Tree]:
        """The tree that a stack makes."""
        async with self.bench.view(stack) as fd:
            tree = Tree(fd, "the image")
            try:
                yield tree
            finally:
                tree.close()

    async def _prepare_copy(self, stack: AsyncExitStack, op: CopyOp, below: Stack) -> Copying:
        mode = Mode.parse(op.chmod) if op.chmod else None
        found = Copying(mode=mode, fetched=[], key=Key("copy"))
        parts: dict[str, Any] = {}
        if op.sources:
            parts["files"] = await self._choose(op, mode, found)
        for url in op.urls:
            if op.checksum:
                parts["checksum"] = _checksum(op.checksum)
            else:
                fetched = await self._fetch(url)
                stack.callback(os.close, fetched.fd)
                found.fetched.append(fetched)
        if op.repositories:
            parts["repositories"] = [await self._resolved(op, text, found) for text in op.repositories]
        parts["urls"] = [[each.name, each.sha256] for each in found.fetched] or list(op.urls)
        parts["inline"] = [[file.name, hashlib.sha256(file.content).hexdigest()] for file in op.files]
        found.key = Key(
            "add" if op.add else "copy",
            parent="" if op.link else chain_of(below),
            # By the last part only, as with BuildKit: the same files from another directory are the same.
            sources=[posixpath.basename(cleaned(source)) for source in op.sources],
            target=op.target,
            owner=op.chown,
            mode=op.chmod,
            parents=op.parents,
            unpack=op.unpack,
            epoch=self.epoch,
            **parts,
        )
        return found

    async def _choose(self, op: CopyOp, mode: Mode | None, found: Copying) -> str:
        """A digest of the files that are meant; for the context the files themselves, too."""
        if op.origin.kind in ("context", "named"):
            tree, lock = self._context(op.origin)
            async with lock:
                if at_once(tree, op.sources):
                    found.sources, digest = _choose_and_digest(tree, op, mode)
                else:
                    found.sources, digest = await trio.to_thread.run_sync(_choose_and_digest, tree, op, mode)
                return digest
        stack = await self.stack_of(op.origin)
        memo = Key(
            "choose", tree=chain_of(stack), sources=op.sources, exclude=op.exclude, parents=op.parents, mode=op.chmod
        )
        known = self._memo(memo)
        if known is None:
            async with self.looking(stack) as tree:
                tree.name = str(op.origin)
                chosen = await trio.to_thread.run_sync(_choose_all, tree, op)
                known = digest_of(chosen, mode, owners=not op.chown)
            self._remember(memo, known)
        return known

    def _context(self, origin: Origin) -> tuple[Tree, trio.Lock]:
        found = self._contexts.get(origin.name if origin.kind == "named" else "")
        if found is None:
            raise NotFound("there is no build context", hint="give a directory: scow build -f FILE DIRECTORY")
        return found

    async def stack_of(self, origin: Origin, source: str = "") -> Stack:
        """The layers of a stage, an image, nothing, or a context (or what of it is meant) made into one layer."""
        if origin.kind == "stage":
            return self._solved[origin.stage].stack
        if origin.kind == "image":
            return (await self.base(origin.name)).stack
        if origin.kind == "scratch":
            return ()
        return (await self._context_layer(shown_of(origin, source)),)

    async def tree_key(self, origin: Origin, source: str = "") -> str:
        """What of a tree is meant, as a digest without times, which differ from machine to machine.

        All of a stage or an image is known by its layers.
        """
        op = shown_of(origin, source)
        if origin.kind not in ("context", "named") and op.sources == (".",):
            return chain_of(await self.stack_of(origin))
        if op not in self._tree_keys:
            async with AsyncExitStack() as stack:
                copying = await self._prepare_copy(stack, op, ())
            self._tree_keys[op] = copying.key.value
        return self._tree_keys[op]

    async def _context_layer(self, op: CopyOp) -> Layer:
        """A context, or a part of it, as a layer: what a bind mount of it shows, without what it leaves out."""
        async with AsyncExitStack() as stack:
            copying = await self._prepare_copy(stack, op, ())
            titled = (f"[{op.origin}] as a layer, for a mount", "")
            record = await self._known(copying.key, (), titled)
            if record is not None:
                return layer_of(record)
            layer = await self._copy(op, (), copying)
        self._keep(copying.key, Record(*_columns(layer), time.time()), place_of((), layer, *titled))
        return layer

    async def _fetch(self, url: str) -> _remote.Fetched:
        return await trio.to_thread.run_sync(_remote.fetch, url, self.bench.state_dir, trio.from_thread.check_cancelled)

    async def _resolved(self, op: CopyOp, text: str, found: Copying) -> list[Any]:
        """What counts about a repository: a commit says it all."""
        source = parse_git(text)
        if op.checksum:
            source = replace(source, checksum=op.checksum)
        keep = op.keep_git_dir or bool(source.keep)
        commit = await commit_of(self.bench, self.request, source)
        found.repositories.append((source, commit, keep))
        return [commit, source.subdir, source.submodules, source.shown if keep else ""]

    async def _cloned(self, stack: AsyncExitStack, op: CopyOp, copying: Copying) -> list[tuple[Tree, Source]]:
        """The repositories' files."""
        found = []
        for source, commit, keep in copying.repositories:
            place, _ = await cloned(stack, self.bench, self.request, source, keep=keep, commit=commit)
            fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            tree = Tree(fd, source.shown)
            stack.callback(tree.close)
            tree.check = trio.from_thread.check_cancelled
            (chosen,) = await trio.to_thread.run_sync(partial(choose, tree, ".", parents=False, exclude=op.exclude))
            found.append((tree, chosen))
        return found

    async def _copy(self, op: CopyOp, below: Stack, copying: Copying) -> Layer:
        async with AsyncExitStack() as stack:
            tree = None
            if op.sources and op.origin.kind in ("context", "named"):
                tree, lock = self._context(op.origin)
                await stack.enter_async_context(lock)
            elif op.sources:
                tree = await stack.enter_async_context(self.looking(await self.stack_of(op.origin)))
                tree.check = trio.from_thread.check_cancelled
                copying.sources = await trio.to_thread.run_sync(_choose_all, tree, op)
            if op.urls and op.checksum:
                fetched = await self._fetch(op.urls[0])
                stack.callback(os.close, fetched.fd)
                if fetched.sha256 != _checksum(op.checksum):
                    raise Corrupt(f"{op.urls[0]} has the checksum sha256:{fetched.sha256}, not {op.checksum}")
                copying.fetched = [fetched]
            clones = await self._cloned(stack, op, copying)
            under = await stack.enter_async_context(self.looking(() if op.link else below))
            from_context = op.origin.kind in ("context", "named") or not op.sources
            owner = owner_of(op.chown, under) if op.chown else (0, 0) if from_context else None

            def write(writer: TarWriter) -> None:
                _Writing(op, copying, tree, clones, under, owner, self.epoch or 0).write(writer)

            return await self.bench.layer(below, write, self.epoch)


@dataclass(slots=True)
class Copying:
    """A COPY on its way: its key, and what was found out for it."""

    mode: Mode | None
    fetched: list[_remote.Fetched]
    key: Key
    sources: tuple[Source, ...] = ()
    #: What ADD takes out of git: the reference, its commit, whether git's own files come along.
    repositories: list[tuple[GitRef, str, bool]] = field(default_factory=list)

    def digests(self) -> dict[str, str]:
        """Each file's digest, for `explain`; none where there are too many to keep."""
        if sum(len(source.files) for source in self.sources) > _EXPLAINED:
            return {}
        return {
            each.node.path: hashlib.sha256(f"{each.digest} {each.node.status.st_mode:o}".encode()).hexdigest()[:12]
            for source in self.sources
            for each in source.files
        }


class _Writing:
    """Writes one COPY's layer, in a worker thread."""

    def __init__(
        self,
        op: CopyOp,
        copying: Copying,
        tree: Tree | None,
        clones: list[tuple[Tree, Source]],
        below: Tree,
        owner: tuple[int, int] | None,
        mtime: int,
    ) -> None:
        self._op = op
        self._clones = clones
        self._copying = copying
        self._tree = tree
        self._below = below
        self._owner = owner
        self._chown = owner if op.chown else None
        newest = [
            each.node.status.st_mtime
            for source in (*copying.sources, *(source for _, source in clones))
            for each in source.files[:1]
        ]
        self._mtime = mtime or int(max(newest, default=0))

    def write(self, writer: TarWriter) -> None:
        op = self._op
        layout = Layout(writer, self._below, owner=self._owner, mode=self._copying.mode, mtime=self._mtime)
        for source in self._copying.sources:
            assert self._tree is not None
            if op.add and op.unpack is not False and self._is_archive(source):
                _archive.unpack(
                    self._tree.content(source.files[0].node), self._archive_layout(writer), op.target, self._chown
                )
            else:
                layout.copy(self._tree, source, op.target, parents=op.parents)
        for tree, source in self._clones:
            layout.copy(tree, source, op.target, parents=False)
        for file in op.files:
            layout.file(file.name, file.content, op.target, 0o644, self._mtime)
        for fetched in self._copying.fetched:
            if op.unpack:
                _archive.unpack(fetched.pieces(), self._archive_layout(writer), op.target, self._chown)
            else:
                name, when = fetched.name, fetched.mtime
                layout.stream(name, fetched.pieces(), fetched.size, op.target, 0o600, when)

    def _archive_layout(self, writer: TarWriter) -> Layout:
        """An archive is on its own: it may say of a directory what an earlier source has said otherwise.

        --chmod isn't about what comes out of it.
        """
        return Layout(writer, self._below, owner=self._owner, mode=None, mtime=self._mtime)

    def _is_archive(self, source: Source) -> bool:
        if source.is_directory or len(source.files) != 1 or not source.files[0].node.is_regular:
            return False
        assert self._tree is not None
        return _archive.is_archive(self._tree.content(source.files[0].node))


def shown_of(origin: Origin, source: str) -> CopyOp:
    """What a bind mount shows, as a copy of it: what else is there doesn't count, and isn't made a layer."""
    path = posixpath.normpath("/" + source).strip("/")
    # A name that a copy takes for a pattern is found in the whole.
    named = path != "" and not is_pattern(path)
    return CopyOp(origin, (path,), "/", parents=True) if named else CopyOp(origin, (".",), "/")


def _places(request: BuildRequest) -> Iterator[tuple[str, Path, bytes]]:
    """The contexts that are directories, with their ignore files' content."""
    if request.context is not None:
        yield "", request.context, request.ignore or b""
    for name, place in request.contexts.items():
        if image_of(place) is None:
            yield name, Path(place), ignore_of(Path(place))


def _index_name(path: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def _choose_and_digest(tree: Tree, op: CopyOp, mode: Mode | None) -> tuple[tuple[Source, ...], str]:
    sources = _choose_all(tree, op)
    return sources, digest_of(sources, mode, owners=False)


def _choose_all(tree: Tree, op: CopyOp) -> tuple[Source, ...]:
    return tuple(
        source for pattern in op.sources for source in choose(tree, pattern, parents=op.parents, exclude=op.exclude)
    )


def _checksum(text: str) -> str:
    try:
        digest = Digest.parse(text)
    except ScowError as error:
        raise Invalid(f"invalid checksum {text!r}: {error.message}") from None
    if digest.algorithm != "sha256":
        raise Invalid(f"invalid checksum {text!r}: only sha256 is supported")
    return digest.hex


def _columns(layer: Layer) -> tuple[str, str, int, str]:
    blob = layer.descriptor
    return str(layer.diff_id), str(blob.digest), blob.size, blob.media_type


def chain_of(stack: Stack) -> str:
    """What a stack is, as a digest: the same layers, the same text; empty for none."""
    return str(chain_ids(tuple(layer.diff_id for layer in stack))[-1]) if stack else ""


def place_of(below: Stack, layer: Layer, title: str, slot: str) -> Place:
    """Where a layer is put, for the cache."""
    return Place(chain_of((*below, layer)), chain_of(below), title, slot)


def rfc3339(moment: float) -> str:
    """Seconds since the epoch as JSON has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(moment)))


def _seconds(text: object) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _placed(error: ScowError, step: PlannedStep) -> ScowError:
    """An error with the file, the line and the line's text; once."""
    if "\n" in error.message and " | " in error.message:
        return error
    place = step.said.at.place(0, len(step.said.at.keyword))
    # The codes 126 and 127 are those of a container's command, not of a build.
    kind = Conflict if isinstance(error, NoCommand | NotExecutable) else type(error)
    return kind(located(place, error.message), hint=error.hint)


__all__ = ["Solved", "Solver", "chain_of", "rfc3339"]
