"""Typed calls to the hooks. Nothing else in the kernel touches pluggy's callers.

Every call is told as an event with its plugin, start, end and outcome. What a plugin raises beside ScowErrors is
wrapped as Internal under the plugin's name; cancellation passes untouched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

from scow.errors import Internal, NotFound, ScowError, Unavailable, Unsupported
from scow.events import EventLog
from scow.model.descriptor import Descriptor
from scow.model.fetching import Resolved, Sink, Source
from scow.model.network import Endpoint, NetworkRequest
from scow.model.platform import Platform
from scow.model.process import AdoptRequest, ContainerProcess, ExecRequest
from scow.model.reference import Reference
from scow.model.storage import MountRequest, Rootfs, Snapshot, UnpackRequest
from scow.plugins import Registry

T = TypeVar("T")


class Stages:
    """The six stages of one engine."""

    def __init__(self, registry: Registry, events: EventLog) -> None:
        self._registry = registry
        self._events = events

    async def resolve(self, reference: Reference, platform: Platform) -> Resolved:
        """The manifest that a reference names. Raises as the hook spec says."""
        offers = self._offers("resolve", reference=reference, platform=platform)
        if not offers:
            raise Unsupported(f"no plugin resolves {reference}", hint=f"asked: {self._asked('resolve')}")
        return await self._first("resolve", str(reference), offers, lambda offer: offer(), Resolved)

    async def fetch(self, source: Source, descriptor: Descriptor, sink: Sink) -> None:
        """A blob's bytes into the sink. Raises as the hook spec says."""
        offers = self._offers("fetch", source=source, descriptor=descriptor)
        if not offers:
            raise Unsupported(f"no plugin fetches from {source.location}", hint=f"asked: {self._asked('fetch')}")
        layer = descriptor.digest.short
        await self._first("fetch", str(descriptor.digest), offers, lambda offer: offer(sink), None, layer=layer)

    async def unpack(self, request: UnpackRequest) -> Snapshot:
        """A layer's snapshot. Raises as the hook spec says."""
        run = self._claim("unpack", request)
        if not callable(run):
            raise self._broken("unpack", run, "an async function")
        plugin = self._registry.origin(run)
        subject = str(request.chain_id)
        with (
            self._events.span("unpack", subject, plugin, layer=request.layer.digest.short),
            self._wrapped(plugin, "unpack"),
        ):
            snapshot = await run()
        if not isinstance(snapshot, Snapshot):
            raise self._broken("unpack", snapshot, "a Snapshot")
        return snapshot

    def mount(self, request: MountRequest) -> AbstractAsyncContextManager[Rootfs]:
        """A container's root file system, held."""
        return self._held("mount", request, Rootfs)

    def network(self, request: NetworkRequest) -> AbstractAsyncContextManager[Endpoint]:
        """A container's endpoint, held."""
        return self._held("network", request, Endpoint)

    def exec(self, request: ExecRequest) -> AbstractAsyncContextManager[ContainerProcess]:
        """A container's first process, held."""
        return self._held("exec", request, None)

    def can_rest(self, drivers: Mapping[str, str]) -> bool:
        """Whether these drivers' plugins (by stage) can do without a supervisor's tasks while a container runs.

        Each says so by `rests = True`, and the one of exec has `adopt`; a wrapper around a stage wants to be left in
        order.
        """
        for stage, driver in drivers.items():
            try:
                plugin = self._registry.get(stage, driver)
            except NotFound:
                return False
            if not getattr(plugin.instance, "rests", False) or self._registry.wrapped(stage):
                return False
            if stage == "exec" and not hasattr(plugin.instance, "adopt"):
                return False
        return True

    def adopt(self, request: AdoptRequest) -> ContainerProcess:
        """A container's running first process, which another supervisor has started. Raises Internal, Unsupported."""
        with self._wrapped(request.driver, "exec"):
            process = self._registry.get("exec", request.driver).instance.adopt(request)
        return cast(ContainerProcess, process)

    @asynccontextmanager
    async def _held(self, stage: str, request: Any, gives: type | None) -> AsyncIterator[Any]:
        """Enter what a plugin holds; its own failures on the way in and out are told apart from the body's."""
        held = self._claim(stage, request)
        if not isinstance(held, AbstractAsyncContextManager):
            raise self._broken(stage, held, "an async context manager")
        # A driver may hold something that is made of the kernel's own helpers.
        plugin = self._registry.origin(held)
        plugin = request.driver if plugin == "?" else plugin
        with self._events.span(stage, request.container, plugin), self._wrapped(plugin, stage):
            value = await held.__aenter__()
        if gives is not None and not isinstance(value, gives):
            await held.__aexit__(None, None, None)
            raise self._broken(stage, value, f"a {gives.__name__}")
        try:
            yield value
        except BaseException as error:
            with self._wrapped(plugin, stage, passing=error):
                if not await held.__aexit__(type(error), error, error.__traceback__):
                    raise
        else:
            with self._events.span(f"un{stage}", request.container, plugin), self._wrapped(plugin, stage):
                await held.__aexit__(None, None, None)

    def _offers(self, stage: str, **arguments: Any) -> list[Any]:
        hook = self._registry.hook(stage)
        with self._wrapped("?", stage):
            return list(hook(**arguments))

    def _claim(self, stage: str, request: Any) -> Any:
        hook = self._registry.hook(stage)
        with self._wrapped(request.driver, stage):
            claim = hook(request=request)
        if claim is None:
            raise Unsupported(
                f"no plugin claims the {stage} of {request.driver!r}", hint=f"asked: {self._asked(stage)}"
            )
        return claim

    async def _first(
        self,
        stage: str,
        subject: str,
        offers: list[Any],
        start: Callable[[Any], Awaitable[T]],
        gives: type | None,
        **facts: Any,
    ) -> T:
        """The first offer that succeeds. Only "not found" and "unavailable" pass on to the next."""
        misses: list[ScowError] = []
        for offer in offers:
            plugin = self._registry.origin(offer)
            if not callable(offer):
                raise self._broken(stage, offer, "an async function")
            try:
                with self._events.span(stage, subject, plugin, **facts), self._wrapped(plugin, stage):
                    result = await start(offer)
            except (NotFound, Unavailable) as miss:
                misses.append(miss)
                continue
            if gives is not None and not isinstance(result, gives):
                raise self._broken(stage, result, f"a {gives.__name__}")
            return result
        raise _best(misses)

    @contextmanager
    def _wrapped(self, plugin: str, stage: str, passing: BaseException | None = None) -> Iterator[None]:
        try:
            yield
        except ScowError:
            raise
        except BaseException as error:
            if error is passing or not isinstance(error, Exception | BaseExceptionGroup):
                raise
            if isinstance(error, BaseExceptionGroup):
                raise _unwrapped(error, plugin, stage) from error
            raise Internal(
                f"plugin {plugin!r} failed in {stage}: {type(error).__name__}: {error}",
                hint="this is a bug in the plugin; --log-level debug shows where",
            ) from error

    def _broken(self, stage: str, got: object, wanted: str) -> Internal:
        plugin = self._registry.origin(got)
        name = plugin if plugin != "?" else self._asked(stage)
        return Internal(f"plugin {name} broke its contract: {stage} gave {type(got).__name__}, not {wanted}")

    def _asked(self, stage: str) -> str:
        return ", ".join(self._registry.names(stage)) or "nobody"


def _best(misses: list[ScowError]) -> ScowError:
    """Of several misses the one that says most: an outage hides whether the thing is there."""
    return next((miss for miss in misses if isinstance(miss, Unavailable)), misses[0])


def _unwrapped(group: BaseExceptionGroup[BaseException], plugin: str, stage: str) -> BaseException:
    """The one ScowError inside a nursery's group; else the group itself, or Internal."""
    ours, rest = group.split(ScowError)
    if ours is not None:
        leaf: BaseException = ours
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        return leaf
    if rest is not None and rest.subgroup(Exception) is None:
        return rest  # cancellation, keyboard interrupt
    return Internal(f"plugin {plugin!r} failed in {stage}: {group!r}")
