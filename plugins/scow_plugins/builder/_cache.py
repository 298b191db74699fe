"""A step's key: what its outcome depends on; and why it was not found, in words."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from scow.engine.building import BuildCache

#: The version of what goes into keys; another one means that nothing is found.
_EPOCH: Final = "3"
#: Files that `explain` names.
_SHOWN: Final = 5
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Key:
    """What a step's outcome depends on, part by part; `value` is the digest of it all."""

    def __init__(self, kind: str, **parts: Any) -> None:
        self.parts: dict[str, Any] = {"kind": kind, **parts}

    @property
    def value(self) -> str:
        text = json.dumps([_EPOCH, self.parts], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def kept(self) -> dict[str, str]:
        """Each part as a digest, for `explain`; nothing of what it says."""
        return {
            name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
            for name, part in self.parts.items()
        }


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
    "target": "the destination",
    "owner": "--chown",
    "mode": "--chmod",
    "path": "the directory",
    "network": "the network",
}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which parts have changed, in words."""
    names = [_WORDS.get(name, name) for name in {**before, **now} if before.get(name) != now.get(name)]
    return "changed: " + ", ".join(names) if names else "its layer is gone"
