"""From a transport's reference to a manifest. What was found is looked up again when a blob is fetched."""

from __future__ import annotations

import trio

from scow.api import Descriptor, Digest, Located, NotFound, Platform, Resolved, Source

from . import _docker, _layout
from ._files import Files, Span, open_files
from ._place import Place, parse_place


async def resolve_image(reference: Located, platform: Platform) -> Resolved:
    """See the hook. Raises Invalid, NotFound, Denied, Unsupported, Corrupt."""
    place = parse_place(reference)
    chosen = await trio.to_thread.run_sync(_chosen, place, platform)
    location = f"{reference.rest} for {platform}"
    return Resolved(reference, chosen.manifest, Source(reference.transport, location), chosen.indexes)


def _chosen(place: Place, platform: Platform) -> _layout.Chosen:
    files = open_files(place.path, directory=place.transport == "oci")
    if place.transport == "docker-archive":
        item = _docker.select(_docker.items_of(files, place), place)
        return _docker.image_of(files, item, place, platform).chosen
    entries = _layout.entries_of(files, place)
    if (digest := place.digest) is None:
        entry = _layout.select(entries, place, platform)
    elif files.find(_layout.blob_name(digest)) is None:
        raise NotFound(f"{place} holds no such image")
    else:
        # Also one that no name leads to, as the image for one platform in an index.
        entry = Descriptor("", digest, 0)
    return _layout.descend(files, entry, place, platform)


def find_blob(source: Source, digest: Digest) -> Span | None:
    """Where a blob of a resolved image lies; None when it isn't there. Raises as `resolve_image`."""
    rest, _, platform = source.location.rpartition(" for ")
    place = parse_place(Located(source.plugin, rest))
    files = open_files(place.path, directory=place.transport == "oci")
    found = files.find(_layout.blob_name(digest))
    if found is not None or place.transport != "docker-archive":
        return found
    return _docker_blob(files, place, Platform.parse(platform), digest)


def _docker_blob(files: Files, place: Place, platform: Platform, digest: Digest) -> Span | None:
    item = _docker.select(_docker.items_of(files, place), place)
    return _docker.image_of(files, item, place, platform).blobs.get(digest)
