"""What builders have built before: a step's key, and the layer that it made. In SQLite, shared by all builds.

A record is only a hint: whoever uses it looks whether the layer is still there. Losing the file costs time, no more.
But as long as a record is there, its layer stays (`scow.engine.marking`), until somebody collects (`buildgarbage`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scow.sys.private import make_file

#: The version of the tables; a file with another one is begun anew.
_VERSION: Final = 4
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS layers (
    key TEXT PRIMARY KEY, layer TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    chain TEXT NOT NULL, parent TEXT NOT NULL, title TEXT NOT NULL, slot TEXT NOT NULL, parts BLOB NOT NULL,
    files BLOB NOT NULL, created REAL NOT NULL, used REAL NOT NULL, uses INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS layers_by_slot ON layers (slot, used);
CREATE TABLE IF NOT EXISTS memos (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
PRAGMA user_version={_VERSION};
"""
_ATTEMPTS: Final = 20
#: What passes when somebody else has done his work.
_PASSING: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: Memos that are kept; they are small, and found out again.
_MEMOS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Record:
    """A layer that a step has made: diff ID, blob digest, size in bytes, media type; when."""

    layer: str
    digest: str
    size: int
    media_type: str
    created: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record's layer was last put: the chain IDs of the stack with it and below it (empty: on nothing)."""

    chain: str
    parent: str
    #: What was built there, in a line; and the step's place in its file.
    title: str = ""
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as collectors see it. Times in seconds since the epoch."""

    key: str
    digest: str
    chain: str
    parent: str
    title: str
    created: float
    used: float
    uses: int


class BuildCache:
    """One connection, for one thread. What goes wrong with the file is a miss."""

    def __init__(self, path: Path, replaced: Callable[[str, str], None] = lambda digest, chain: None) -> None:
        """`replaced` is told the digest and chain ID of a layer that a record is going to name no more."""
        self._replaced = replaced
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        for attempt in range(_ATTEMPTS):
            with suppress(OSError):
                make_file(path)
            connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            try:
                _prepare(connection)
                return connection
            except sqlite3.DatabaseError as error:
                connection.close()
                if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _PASSING:
                    # Somebody else is just making it.
                    time.sleep(0.01 * (attempt + 1))
                    continue
                # Nothing in it is needed.
                for suffix in ("", "-wal", "-shm"):
                    with suppress(OSError):
                        path.with_name(path.name + suffix).unlink(missing_ok=True)
        # It can't be kept (a full disk): then it serves this build only.
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _prepare(connection)
        return connection

    def close(self) -> None:
        self._connection.close()

    def find(self, key: str) -> Record | None:
        """The layer that this key has made."""
        try:
            row = self._connection.execute(
                "SELECT layer, digest, size, media_type, created FROM layers WHERE key=?", (key,)
            ).fetchone()
        except sqlite3.DatabaseError:
            return None
        return Record(*row) if row else None

    def touch(self, places: Mapping[str, Place]) -> list[str]:
        """Records are used now, by key, there; gives the keys of those that are gone."""
        gone = []
        with suppress(sqlite3.DatabaseError):
            # One transaction for all of a build: each costs more than what is written in it.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                gone = [key for key, place in places.items() if not self._touch(key, place)]
            finally:
                self._connection.execute("COMMIT")
        return gone

    def _touch(self, key: str, place: Place) -> bool:
        self._tell_replaced(key, place.chain, None)
        done = self._connection.execute(
            "UPDATE layers SET used=?, uses=uses+1, chain=?, parent=? WHERE key=?",
            (time.time(), place.chain, place.parent, key),
        )
        return bool(done.rowcount)

    def add(self, key: str, record: Record, place: Place, parts: bytes = b"", files: bytes = b"") -> None:
        """Note a layer. `parts` and `files` are the builder's own, given back by `last`."""
        with suppress(sqlite3.DatabaseError):
            self._tell_replaced(key, place.chain, record.digest)
            self._connection.execute(
                "INSERT OR REPLACE INTO layers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,1)",
                (
                    key,
                    record.layer,
                    record.digest,
                    record.size,
                    record.media_type,
                    place.chain,
                    place.parent,
                    place.title,
                    place.slot,
                    parts,
                    files,
                    record.created,
                    time.time(),
                ),
            )

    def _tell_replaced(self, key: str, chain: str, digest: str | None) -> None:
        row = self._connection.execute("SELECT digest, chain FROM layers WHERE key=?", (key,)).fetchone()
        if row is not None and (row[1] != chain or digest not in (None, row[0])):
            self._replaced(row[0], row[1])

    def memo(self, key: str) -> str | None:
        """A value that depends on nothing but its key."""
        try:
            row = self._connection.execute("SELECT value FROM memos WHERE key=?", (key,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        return str(row[0]) if row else None

    def remember(self, key: str, value: str) -> None:
        with suppress(sqlite3.DatabaseError):
            self._connection.execute("INSERT OR REPLACE INTO memos VALUES (?,?)", (key, value))

    def last(self, slot: str) -> tuple[bytes, bytes] | None:
        """What was last built at a place: its `parts` and `files`."""
        try:
            row = self._connection.execute(
                "SELECT parts, files FROM layers WHERE slot=? ORDER BY used DESC LIMIT 1", (slot,)
            ).fetchone()
        except sqlite3.DatabaseError:
            return None
        return (row[0], row[1]) if row else None

    def entries(self) -> list[Entry]:
        """All records, the longest unused first."""
        try:
            rows = self._connection.execute(
                "SELECT key, digest, chain, parent, title, created, used, uses FROM layers ORDER BY used"
            ).fetchall()
        except sqlite3.DatabaseError:
            return []
        return [Entry(*row) for row in rows]

    def bytes(self) -> int:
        """What the layers of all records take as archives; quick."""
        try:
            (total,) = self._connection.execute(
                "SELECT total(size) FROM (SELECT DISTINCT digest, size FROM layers)"
            ).fetchone()
        except sqlite3.DatabaseError:
            return 0
        return int(total)

    def forget(self, entries: Iterable[Entry]) -> list[Entry]:
        """Drop records that nobody has used since they were listed; gives those that were dropped."""
        gone = []
        with suppress(sqlite3.DatabaseError):
            self._connection.execute("BEGIN IMMEDIATE")
            for entry in entries:
                done = self._connection.execute("DELETE FROM layers WHERE key=? AND used=?", (entry.key, entry.used))
                if done.rowcount:
                    gone.append(entry)
            self._connection.execute(
                "DELETE FROM memos WHERE rowid <= (SELECT max(rowid) FROM memos) - ?",
                (_MEMOS,),
            )
            self._connection.execute("COMMIT")
        return gone


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise sqlite3.DatabaseError("an older version's file")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    connection.execute("PRAGMA synchronous=OFF")


def kept(path: Path) -> list[tuple[str, str]]:
    """Digest and chain ID of every record's layer; empty when there is no such file, or none that can be read."""
    if not path.exists():
        return []
    with suppress(sqlite3.DatabaseError):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=10)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == _VERSION:
                return connection.execute("SELECT DISTINCT digest, chain FROM layers").fetchall()
        finally:
            connection.close()
    return []
