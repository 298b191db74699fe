"""A step's key: what its outcome depends on; and why it was not found, in words."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from scow.engine.building import BuildCache

#: The version of what goes into keys; another one means that nothing is found.
_EPOCH: Final = "4"
#: Files that `explain` names.
_SHOWN: Final = 5
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Key:
    """What a step's outcome depends on, part by part; `value` is the digest of it all."""

    def __init__(self, kind: str, **parts: Any) -> None:
        self.parts: dict[str, Any] = {"kind": kind, **parts}

    @cached_property
    def value(self) -> str:
        text = json.dumps([_EPOCH, self.parts], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def kept(self) -> dict[str, str]:
        """Each part as a digest, for `explain`, variables and mounts also one by one; nothing of what they say."""
        return {
            name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
            for name, part in (*self.parts.items(), *self._pieces())
        }

    def _pieces(self) -> Iterator[tuple[str, Any]]:
        for text in self.parts.get("env", ()):
            name, _, value = text.partition("=")
            yield f"env {name}", value
        for mount in self.parts.get("mounts", ()):
            yield f"mounts {mount['target'] or mount.get('env', '')}", mount


def packed(files: Mapping[str, str]) -> bytes:
    """Files' digests, as they are kept."""
    return zlib.compress(json.dumps(dict(files)).encode(), 1) if files else b""


def explain(cache: BuildCache, key: Key, slot: str, files: Mapping[str, str] = _NOTHING) -> str:
    """Why a key was not found, compared with what was last built at its place."""
    last = cache.last(slot)
    if last is None:
        return "it was never built"
    text = differences(json.loads(last[0] or b"{}"), key.kept())
    before = json.loads(zlib.decompress(last[1])) if last[1] else {}
    if before and files:
        names = sorted(name for name in {**before, **files} if before.get(name) != files.get(name))
        shown = ", ".join(name or "." for name in names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
        text += f" ({shown})" if names else ""
    return text


_WORDS: Final = {
    "parent": "what it is built on",
    "args": "the command",
    "env": "the environment",
    "cwd": "the working directory",
    "user": "the user",
    "mounts": "a mount",
    "files": "the copied files",
    "sources": "the sources' names",
    "target": "the destination",
    "owner": "--chown",
    "mode": "--chmod",
    "path": "the directory",
    "network": "the network",
    "epoch": "SOURCE_DATE_EPOCH",
}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which parts have changed, in words."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    names = [_WORDS.get(name, name) + _pieces_of(name, changed, before) for name in changed if " " not in name]
    return "changed: " + ", ".join(names) if names else "its layer is gone"


def _pieces_of(part: str, changed: Sequence[str], before: Mapping[str, str]) -> str:
    """Which variables, which mounts; nothing where what was kept doesn't say."""
    start = part + " "
    if not any(name.startswith(start) for name in before):
        return ""
    names = [name.removeprefix(start) for name in changed if name.startswith(start)]
    more = " …" if len(names) > _SHOWN else ""
    return f" ({', '.join(names[:_SHOWN])}{more})" if names else ""
