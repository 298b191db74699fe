"""What a cache says in a registry or a directory: which key made which layer. Pure; written here, read from strangers.

It stands in the configuration of an image whose layers are those of the cache, under one name, so that every registry
takes it, and so that an image itself can carry its own (inline). Keys are digests; nothing of what went into them is
there, least of all a secret.

    "io.scow.build.cache": {"version": 1,
        "records": [[KEY, NUMBER OF THE LAYER, SECONDS SINCE THE EPOCH], …], "memos": [[KEY, VALUE], …]}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from scow.api import Corrupt, Descriptor, Digest, NotFound
from scow.engine.building import Layer, Record

NAME: Final = "io.scow.build.cache"
VERSION: Final = 1
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_VALUE: Final = re.compile(r"yes|no|[0-9a-f]{64}")
_MOST: Final = 200_000


class _Document(msgspec.Struct):
    version: int
    records: list[tuple[str, int, float]]
    memos: list[tuple[str, str]] = []


@dataclass(frozen=True, slots=True)
class Noted:
    """A step of this build that has a layer: its key, and what it made."""

    key: str
    record: Record


@dataclass(frozen=True, slots=True)
class Known:
    """What a cache knows: records by key, and values that depend on nothing but their key."""

    records: Mapping[str, Record]
    memos: Mapping[str, str]


def write(noted: Sequence[Noted], memos: Mapping[str, str], layers: Sequence[Layer]) -> dict[str, Any]:
    """What is noted of those layers, as JSON; keys in order, so that the same build says the same."""
    places = {str(layer.diff_id): number for number, layer in reversed(list(enumerate(layers)))}
    records = {
        each.key: [each.key, places[each.record.layer], int(each.record.created)]
        for each in noted
        if each.record.layer in places
    }
    return {
        "version": VERSION,
        "records": [records[key] for key in sorted(records)],
        "memos": [[key, value] for key, value in sorted(memos.items()) if _VALUE.fullmatch(value)],
    }


def read(config: Mapping[str, Any], layers: Sequence[Layer], shown: str) -> Known:
    """What an image's configuration says of a cache. Raises NotFound (it is none), Corrupt."""
    if NAME not in config:
        raise NotFound(f"{shown} has no cache", hint="build it with --cache-to")
    try:
        document = msgspec.convert(config[NAME], _Document)
    except msgspec.ValidationError as error:
        raise Corrupt(f"the cache of {shown} is not valid: {error}") from None
    if document.version != VERSION:
        raise NotFound(f"the cache of {shown} has version {document.version}, not {VERSION}")
    if len(document.records) + len(document.memos) > _MOST:
        raise Corrupt(f"the cache of {shown} has more than {_MOST} entries")
    records = {}
    for key, number, created in document.records:
        if not _KEY.fullmatch(key) or not 0 <= number < len(layers) or not (math.isfinite(created) and created >= 0):
            raise Corrupt(f"the cache of {shown} has an entry that can't be: {key[:80]!a}")
        layer = layers[number]
        blob = layer.descriptor
        # No year that a calendar doesn't have.
        records[key] = Record(
            str(layer.diff_id), str(blob.digest), blob.size, blob.media_type, min(created, 253_402_300_799.0)
        )
    for key, value in document.memos:
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise Corrupt(f"the cache of {shown} has an entry that can't be: {key[:80]!a}")
    return Known(records, dict(document.memos))


def layer_of(record: Record) -> Layer:
    """A layer as a cache has it."""
    digest = Digest.parse(record.digest)
    return Layer(Descriptor(record.media_type, digest, record.size), Digest.parse(record.layer))
