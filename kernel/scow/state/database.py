"""The state database: names, images, containers, in SQLite with write-ahead log (sqlite.org/wal.html).

Any number of processes have it open at once. `user_version` is the schema's version; each migration is one
transaction. Durability is synchronous=NORMAL: a power cut may lose the last transactions, never the database.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scow.errors import Corrupt, Exhausted, Internal, Unavailable, Unsupported
from scow.state.reserve import give_reserve
from scow.sys.private import make_file

#: Index n takes the schema from version n to n + 1. Never edit one that was released: append.
MIGRATIONS: Final = (
    """
    CREATE TABLE images (
        manifest TEXT PRIMARY KEY,
        config TEXT NOT NULL,
        root TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        pulled REAL NOT NULL,
        last_used REAL NOT NULL
    ) STRICT;
    CREATE INDEX images_by_config ON images (config);
    CREATE TABLE names (
        name TEXT PRIMARY KEY,
        manifest TEXT NOT NULL REFERENCES images (manifest),
        updated REAL NOT NULL
    ) STRICT;
    CREATE TABLE digests (
        name TEXT PRIMARY KEY,
        manifest TEXT NOT NULL REFERENCES images (manifest)
    ) STRICT;
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL,
        created REAL NOT NULL,
        spec BLOB NOT NULL,
        state BLOB NOT NULL
    ) STRICT;
    CREATE INDEX containers_by_status ON containers (status);
    """,
    """
    CREATE TABLE garbage (
        kind TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (kind, digest)
    ) STRICT;
    """,
    """
    ALTER TABLE images ADD COLUMN facts BLOB;
    """,
)


class Database:
    """One connection; used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        give_reserve(self._path.parent)
        with _database_errors(self._path):
            _make(self._path)  # the journal and the shared memory get its mode (sqlite.org/wal.html)
            self._connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            self._resting = False
            try:
                self._prepare()
                self._opened = os.stat(self._path)
            except BaseException:
                self._connection.close()
                raise

    def is_current(self) -> bool:
        """Whether the open file is still the one that lies at the path."""
        try:
            return not self._resting and os.path.samestat(self._opened, os.stat(self._path))
        except OSError:
            return False

    def rest(self) -> None:
        """Close the connection until it is needed again, for a process that will wait for hours."""
        self._connection.close()
        self._resting = True

    def _wake(self) -> None:
        if self._resting:
            self._open()

    def _prepare(self) -> None:
        self._connection.executescript("PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-512;")
        version = self._version()
        if version < len(MIGRATIONS):
            self._migrate()
        elif version > len(MIGRATIONS):
            raise Unsupported(
                f"{self._path} was written by a newer scow (schema {version}, this one knows {len(MIGRATIONS)})",
                hint="use that version, or another directory with --root",
            )

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries."""
        self._wake()
        with _database_errors(self._path):
            yield self._connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that takes the write lock at once; committed at the end, rolled back by an exception."""
        self._wake()
        give_reserve(self._path.parent)
        with _database_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already; a COMMIT that failed has not.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been quicker.
            for version in range(self._version(), len(MIGRATIONS)):
                for statement in MIGRATIONS[version].split(";"):
                    if statement.strip():
                        self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={version + 1}")
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _make(path: Path) -> None:
    try:
        make_file(path)
    except OSError as error:
        kind = Exhausted if error.errno in (errno.ENOSPC, errno.EDQUOT) else Internal
        raise kind(f"{path} can't be made: {error.strerror}") from error


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            raise Exhausted(f"the disk that holds {path} is full", hint="make room, then try again") from error
        if "locked" in text or "busy" in text:
            raise Unavailable(f"{path} was locked by another command for too long") from error
        raise Internal(f"{path}: {text}") from error
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{path}: {error}", hint="move it away: images are found again by pulling") from error
