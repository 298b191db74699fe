"""The six stages. Who has read this file from top to bottom has read the engine.

    reference --resolve--> manifest --fetch--> blobs --unpack--> snapshots --mount--> rootfs
              --network--> endpoint --exec--> process

The law, "claim, then run": an implementation is a plain `def`, quick, without I/O. It looks at the request and
returns None (not mine) or something that has not started yet: an async function (resolve, fetch, unpack) or an
async context manager (mount, network, exec). The kernel awaits or enters it. `async def` implementations are
refused at registration: under firstresult a coroutine that would have declined hides every other plugin.

resolve and fetch collect all offers, in order; NotFound and Unavailable pass on to the next one, everything else
ends the search. The others are firstresult. Wrappers (`wrapper=True`) receive what has not started yet and may
return another around it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pluggy

from scow.model.descriptor import Descriptor
from scow.model.fetching import Resolved, Sink, Source
from scow.model.network import Endpoint, NetworkRequest
from scow.model.platform import Platform
from scow.model.process import ContainerProcess, ExecRequest
from scow.model.reference import Reference
from scow.model.storage import MountRequest, Rootfs, Snapshot, UnpackRequest

hookspec = pluggy.HookspecMarker("scow")
hookimpl = pluggy.HookimplMarker("scow")

ResolveRun: TypeAlias = Callable[[], Awaitable[Resolved]]
FetchRun: TypeAlias = Callable[[Sink], Awaitable[None]]
UnpackRun: TypeAlias = Callable[[], Awaitable[Snapshot]]
MountHeld: TypeAlias = AbstractAsyncContextManager[Rootfs]
NetworkHeld: TypeAlias = AbstractAsyncContextManager[Endpoint]
ExecHeld: TypeAlias = AbstractAsyncContextManager[ContainerProcess]


@hookspec
def resolve(reference: Reference, platform: Platform) -> ResolveRun | None:
    """Claim the question which image a reference names on a platform.

    Awaiting the run gives the manifest's exact bytes (and those of the indexes above it), checked against the
    digest when the reference has one, and the source of its blobs. Raises NotFound (no such image), Unavailable
    (no answer), Denied, Unsupported (an artifact, no such platform), Corrupt.
    """


@hookspec
def fetch(source: Source, descriptor: Descriptor) -> FetchRun | None:
    """Claim a blob of a source.

    Awaiting the run writes the blob's bytes into the sink, from `sink.offset` on; the sink checks size and digest.
    Raises NotFound, Unavailable (the next offer is asked, and goes on where this one stopped), Denied, Corrupt.
    """


@hookspec(firstresult=True)
def unpack(request: UnpackRequest) -> UnpackRun | None:
    """Claim a layer.

    Awaiting the run gives a committed snapshot: complete, read-only, under its chain ID's name, made at once by
    rename or not at all. The uncompressed bytes' digest must be the diff ID. A snapshot that is there already
    isn't made again. Cancelled or failed, it leaves nothing. Raises Corrupt, Exhausted, Unsupported.
    """


@hookspec(firstresult=True)
def mount(request: MountRequest) -> MountHeld | None:
    """Claim a container's root file system.

    Entering gives the complete tree with the writable layer on top; leaving undoes every mount, also when
    cancelled, and keeps what was written in `request.scratch`. Raises Unsupported, Exhausted, Conflict.
    """


@hookspec(firstresult=True)
def network(request: NetworkRequest) -> NetworkHeld | None:
    """Claim a container's place on a network.

    Entering gives an endpoint that is up: addresses, routes, published ports. Leaving undoes it, also when
    cancelled. What outlives a process is journalled first. Raises Exists (a port is taken), Exhausted (no free
    address), Unsupported.
    """


@hookspec(firstresult=True)
def exec(request: ExecRequest) -> ExecHeld | None:  # noqa: A001 - the stage's name
    """Claim a container's first process.

    Entering gives the running process: execve(2) has succeeded. Leaving kills every process of the container and
    waits for their end, also when cancelled. Raises NoCommand, NotExecutable, NotFound (no such user), Unsupported.
    """
