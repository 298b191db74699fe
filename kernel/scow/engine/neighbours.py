"""What resolve plugins can do beside resolving: finds the one that has a method, and holds it to the errors' law."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

from scow.engine.core import Core
from scow.errors import Internal, ScowError, Unsupported
from scow.model.fetching import Accounts, Archive, Catalog, Destination, Publisher
from scow.model.reference import Reference


def _instances(core: Core) -> Iterator[tuple[str, object]]:
    """Resolve plugins by name, in the order in which they are asked."""
    for name in core.registry.names("resolve"):
        yield name, core.registry.get("resolve", name).instance


def archives(core: Core) -> Iterator[tuple[str, Archive]]:
    """The plugins that read files with images."""
    return ((name, each) for name, each in _instances(core) if isinstance(each, Archive))


def accounts(core: Core, doing: str) -> tuple[str, Accounts]:
    """The first plugin that knows logins. Raises Unsupported: no plugin can be `doing`."""
    for name, each in _instances(core):
        if isinstance(each, Accounts):
            return name, each
    raise _nobody(core, doing)


def catalog(core: Core, doing: str) -> tuple[str, Catalog]:
    """The first plugin that knows names. Raises Unsupported."""
    for name, each in _instances(core):
        if isinstance(each, Catalog):
            return name, each
    raise _nobody(core, doing)


def _nobody(core: Core, doing: str) -> Unsupported:
    asked = ", ".join(core.registry.names("resolve")) or "nobody"
    return Unsupported(f"no plugin can {doing}", hint=f"asked: {asked}")


@contextmanager
def held_to_errors(plugin: str, doing: str) -> Iterator[None]:
    """What a plugin raises beside ScowErrors is a bug of its, and told under its name."""
    try:
        yield
    except ScowError:
        raise
    except Exception as error:
        raise Internal(
            f"plugin {plugin!r} failed in {doing}: {type(error).__name__}: {error}",
            hint="this is a bug in the plugin; --log-level debug shows where",
        ) from error


@asynccontextmanager
async def destination(core: Core, reference: Reference) -> AsyncIterator[tuple[str, Destination]]:
    """The place that a reference names, open to take images in, and its plugin. Raises Unsupported, and as it does."""
    plugin, held = _claimed(core, reference)
    with held_to_errors(plugin, "publish"):
        place = await held.__aenter__()
    try:
        yield plugin, place
    except BaseException as error:
        if not await held.__aexit__(type(error), error, error.__traceback__):
            raise
    else:
        with held_to_errors(plugin, "publish"):
            await held.__aexit__(None, None, None)


def _claimed(core: Core, reference: Reference) -> tuple[str, AbstractAsyncContextManager[Destination]]:
    for name, publisher in _instances(core):
        if not isinstance(publisher, Publisher):
            continue
        with held_to_errors(name, "publish"):
            held = publisher.publish(reference)
        if held is not None:
            return name, held
    raise Unsupported(f"no plugin takes images in at {reference}", hint="a registry does, or oci:DIRECTORY:TAG")
