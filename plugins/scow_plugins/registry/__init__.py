"""Images from Docker Hub and every other OCI registry: the claims; the work is in the modules beside this one.

Nothing but `scow.api` and the settings is imported here; what opens sockets comes in after a claim said yes.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from scow.api import (
    Descriptor,
    Destination,
    FetchRun,
    Found,
    Named,
    Platform,
    PluginContext,
    ProbeResult,
    Reference,
    Resolved,
    ResolveRun,
    Sink,
    Source,
    Unsupported,
    hookimpl,
)

from ._settings import read_settings

if TYPE_CHECKING:
    from ._puller import Puller

NAME = "registry"


class Plugin:
    """Claims names in registries, and the blobs of what it resolved itself."""

    def __init__(self, context: PluginContext) -> None:
        """Raises Invalid when the configuration's `registries` can't be read."""
        self._settings = read_settings(context.settings)
        self._working: Puller | None = None

    def probe(self) -> ProbeResult | None:
        """It needs nothing of the machine; whether a registry answers is only known when it is asked."""
        return None

    @hookimpl
    def resolve(self, reference: Reference, platform: Platform) -> ResolveRun | None:
        """Claim every `Named` reference."""
        if not isinstance(reference, Named):
            return None

        async def run() -> Resolved:
            return await self._puller().resolve(reference, platform)

        return run

    @hookimpl
    def fetch(self, source: Source, descriptor: Descriptor) -> FetchRun | None:
        """Claim the blobs of sources that `resolve` of this plugin made."""
        if source.plugin != NAME:
            return None

        async def run(sink: Sink) -> None:
            await self._puller().fetch(source.location, descriptor, sink)

        return run

    def publish(self, reference: Reference) -> AbstractAsyncContextManager[Destination] | None:
        """Claim every `Named` reference as a place to push to."""
        if not isinstance(reference, Named):
            return None
        return self._puller().publish(reference)

    async def login(self, server: str, username: str, password: str) -> str:
        """See `Accounts`: the registry is asked before anything is kept."""
        return await self._puller().login(server, username, password)

    async def logout(self, server: str) -> bool:
        """See `Accounts`; nobody is asked."""
        from ._accounts import forget_login, server_name

        return await forget_login(server_name(server))

    async def search(self, term: str, limit: int) -> tuple[Found, ...]:
        """See `Catalog`: Docker Hub's search, or that of the registry before the first slash."""
        return await self._puller().search(term, limit)

    async def tags(self, reference: Reference) -> tuple[str, ...]:
        """See `Catalog`."""
        if not isinstance(reference, Named):
            raise Unsupported(f"{reference} has no list of tags")
        return await self._puller().tags(reference)

    def _puller(self) -> Puller:
        if self._working is None:
            from ._puller import Puller

            self._working = Puller(self._settings)
        return self._working
