"""What was built before: a step's key, and the layer that it made. In SQLite, shared by all builds of an engine.

A record is only a hint: whoever uses it looks whether the layer is still there. Losing the file costs time, no more.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS layers (
    key TEXT PRIMARY KEY, layer TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    slot TEXT NOT NULL, parts TEXT NOT NULL, files BLOB NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS layers_by_slot ON layers (slot, created);
CREATE TABLE IF NOT EXISTS memos (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
#: The version of what goes into keys; another one means that nothing is found.
_EPOCH: Final = "3"
#: Files that `explain` names.
_SHOWN: Final = 5
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """A layer that a step has made: diff ID, blob digest, size in bytes, media type; when."""

    layer: str
    digest: str
    size: int
    media_type: str
    created: float


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


class Cache:
    """One connection, for one thread. What goes wrong with the file is a miss."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        for attempt in (1, 2):
            connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            try:
                connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _SCHEMA)
                return connection
            except sqlite3.DatabaseError:
                connection.close()
                if attempt == 2:
                    raise
                # Nothing in it is needed.
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise AssertionError

    def close(self) -> None:
        self._connection.close()

    def find(self, key: Key) -> Record | None:
        """The layer that this key has made."""
        try:
            row = self._connection.execute(
                "SELECT layer, digest, size, media_type, created FROM layers WHERE key=?", (key.value,)
            ).fetchone()
            if row is not None:
                self._connection.execute("UPDATE layers SET used=? WHERE key=?", (time.time(), key.value))
        except sqlite3.DatabaseError:
            return None
        return Record(*row) if row else None

    def add(self, key: Key, slot: str, record: Record, files: Mapping[str, str] = _NOTHING) -> None:
        """Note a layer. `slot` is the step's place in its file; `files` what it has copied, for `explain`."""
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO layers VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    key.value,
                    record.layer,
                    record.digest,
                    record.size,
                    record.media_type,
                    slot,
                    json.dumps(key.kept()),
                    zlib.compress(json.dumps(dict(files)).encode(), 1) if files else b"",
                    record.created,
                    time.time(),
                ),
            )
        except sqlite3.DatabaseError:
            return

    def memo(self, key: Key) -> str | None:
        """A value that depends on nothing but its key."""
        try:
            row = self._connection.execute("SELECT value FROM memos WHERE key=?", (key.value,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        return str(row[0]) if row else None

    def remember(self, key: Key, value: str) -> None:
        try:
            self._connection.execute("INSERT OR REPLACE INTO memos VALUES (?,?)", (key.value, value))
        except sqlite3.DatabaseError:
            return

    def explain(self, key: Key, slot: str, files: Mapping[str, str] = _NOTHING) -> str:
        """Why a key was not found, compared with what was last built at its place."""
        try:
            row = self._connection.execute(
                "SELECT parts, files FROM layers WHERE slot=? ORDER BY used DESC LIMIT 1", (slot,)
            ).fetchone()
        except sqlite3.DatabaseError:
            row = None
        if row is None:
            return "it was never built"
        text = differences(json.loads(row[0]), key.kept())
        before = json.loads(zlib.decompress(row[1])) if row[1] else {}
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
