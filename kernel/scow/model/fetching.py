"""What resolve gives and fetch takes: a manifest with its source, and the sink that a blob is written into.

Below: what else the instance of a resolve plugin may be able to do, as `SnapshotStore` is for storage plugins. These
are no stages, and nobody must have them; the engine asks for the methods by name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, runtime_checkable

from scow.model.descriptor import Descriptor, Document
from scow.model.reference import Reference


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image's blobs come from: the plugin that can fetch them, and a place in that plugin's own words."""

    plugin: str
    location: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A reference made exact. `indexes` are those passed on the way to the manifest, outermost first."""

    reference: Reference
    manifest: Document
    source: Source
    indexes: tuple[Document, ...] = ()

    @property
    def root(self) -> Descriptor:
        """What the name itself points at: the outermost index, or the manifest where there is none."""
        return (self.indexes[0] if self.indexes else self.manifest).descriptor


class Sink(Protocol):
    """Takes a blob's bytes; made by the kernel, which checks them, keeps them, and hands them to unpack meanwhile."""

    @property
    def offset(self) -> int:
        """How many bytes are there already: the next write goes here. More than 0 when a fetch was cut off."""
        ...

    async def write(self, data: bytes) -> None:
        """Append. Raises Corrupt when there are more bytes than the descriptor says, Exhausted on a full disk."""
        ...

    async def restart(self) -> None:
        """Forget what is there, for a sender that can't go on at `offset`."""
        ...


class Destination(Protocol):
    """A place that an image goes out to, open. Blobs come first, manifests after what they name.

    One that has an attribute `oci_only` which is true gets OCI's documents, whatever the image has here.
    """

    async def blob(
        self,
        descriptor: Descriptor,
        open_blob: Callable[[], BinaryIO],
        origins: tuple[str, ...],
        report: Callable[[int], None],
    ) -> Literal["exists", "mounted", "pushed"]:
        """Make a blob be there; says how that came. Several may be sent at once.

        `open_blob` opens its bytes anew each time; `origins` are repositories (`domain/path`) that may have the blob
        already, on the same registry; `report` is told how many bytes are sent. Raises Denied, Unavailable, NotFound
        (no such repository), Corrupt, Exhausted.
        """
        ...

    async def manifest(self, document: Document, name: Reference | None) -> None:
        """Put a manifest or an index, under its digest, and under `name` when that isn't None. Raises as `blob`."""
        ...


@runtime_checkable
class Publisher(Protocol):
    """A resolve plugin that images can be sent to."""

    def publish(self, reference: Reference) -> AbstractAsyncContextManager[Destination] | None:
        """Claim a reference as a place to send images to: None, or what has not started yet.

        Leaving it makes complete what was sent (an archive gets its name then); left by an exception, nothing is.
        """
        ...


@runtime_checkable
class Accounts(Protocol):
    """A resolve plugin that knows logins."""

    async def login(self, server: str, username: str, password: str) -> str:
        """Check a login with the server, then keep it; says where. An empty server is the default one.

        Raises Denied (wrong name or password), Unavailable, Invalid (no server's name).
        """
        ...

    async def logout(self, server: str) -> bool:
        """Forget a login; false when there was none. Raises Invalid."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """One line of a search's result."""

    name: str
    description: str
    stars: int
    official: bool
    automated: bool = False


@runtime_checkable
class Catalog(Protocol):
    """A resolve plugin that knows more names than the one it is asked for."""

    async def search(self, term: str, limit: int) -> tuple[Found, ...]:
        """Images whose names or descriptions fit `term`, the best first. Raises Unavailable, Invalid."""
        ...

    async def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the reference's repository. Raises as resolve."""
        ...


@dataclass(frozen=True, slots=True)
class Contained:
    """An image in an archive: a reference that resolves to it, and the names that it bore where it comes from."""

    reference: Reference
    names: tuple[str, ...]


@runtime_checkable
class Archive(Protocol):
    """A resolve plugin that reads files which hold images."""

    def contents(self, path: Path) -> tuple[Contained, ...] | None:
        """The images in a file, in order; None when it isn't of this plugin's kind. Blocks shortly; raises Corrupt."""
        ...
