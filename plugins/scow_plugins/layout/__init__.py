"""Images in directories and archives: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`.

One class under three names: each is a transport, and the name it was registered under says which. The path ends at the
first colon, as with skopeo.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from scow.api import (
    Contained,
    Descriptor,
    Destination,
    FetchRun,
    Invalid,
    Located,
    Platform,
    PluginContext,
    Reference,
    Resolved,
    ResolveRun,
    Sink,
    Source,
    hookimpl,
)


class Plugin:
    """resolve and fetch; beside them `Publisher` and `Archive`."""

    def __init__(self, context: PluginContext) -> None:
        for key in context.settings:
            raise Invalid(f"configuration: plugins.{context.name} has no key {key!r}", hint="it has none at all")
        self._name = context.name

    @hookimpl
    def resolve(self, reference: Reference, platform: Platform) -> ResolveRun | None:
        """Claim references of this transport."""
        if not isinstance(reference, Located) or reference.transport != self._name:
            return None

        async def run() -> Resolved:
            from ._resolve import resolve_image

            return await resolve_image(reference, platform)

        return run

    @hookimpl
    def fetch(self, source: Source, descriptor: Descriptor) -> FetchRun | None:
        """Claim the blobs of what `resolve` found."""
        if source.plugin != self._name:
            return None

        async def run(sink: Sink) -> None:
            from ._fetch import fetch_blob

            await fetch_blob(source, descriptor, sink)

        return run

    def publish(self, reference: Reference) -> AbstractAsyncContextManager[Destination] | None:
        """Claim references of this transport as places to write to."""
        if not isinstance(reference, Located) or reference.transport != self._name:
            return None
        from ._publish import publish

        return publish(reference)

    def contents(self, path: Path) -> tuple[Contained, ...] | None:
        """The images in a file of this transport's format. Raises Corrupt."""
        if self._name == "oci":
            return None
        from ._contents import contents

        return contents(self._name, path)
