"""Images and the names that point at them. An image never changes: a name is a pointer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from scow.errors import Invalid, NotFound
from scow.model.digest import Digest
from scow.state.database import Database


class Facts(msgspec.Struct, frozen=True):
    """What lists of images show, so that no image has to be opened for them."""

    #: Seconds since the epoch.
    created: float
    #: Bytes that the layers take unpacked.
    size: int
    labels: tuple[tuple[str, str], ...] = ()


_facts: Final = msgspec.json.Decoder(Facts)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as the database has it. `root` is what its name pointed at: an index, or the manifest itself.

    `size` is what its layers take as they are transferred. `facts` are noted when the image is first looked at.
    """

    manifest: Digest
    config: Digest
    root: Digest
    media_type: str
    size: int
    pulled: float
    facts: Facts | None = None


#: What may be left on disk by nobody's wish: a blob of the content store, or a layer that storage plugins unpacked.
Kind: TypeAlias = Literal["blob", "layer"]


def save_image(database: Database, image: ImageRow, name: str | None, digest_name: str | None) -> None:
    """Record an image and point a name at it (if any), in one transaction.

    `digest_name` is `repository@sha256:…` when the image came from a registry.
    """
    now = time.time()
    with database.write() as connection:
        connection.execute(
            "INSERT INTO images (manifest, config, root, media_type, size, pulled, last_used) VALUES (?,?,?,?,?,?,?) "
            "ON CONFLICT (manifest) DO UPDATE SET last_used=excluded.last_used",
            (str(image.manifest), str(image.config), str(image.root), image.media_type, image.size, image.pulled, now),
        )
        if name is not None:
            connection.execute(
                "INSERT INTO names VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET manifest=excluded.manifest, "
                "updated=excluded.updated",
                (name, str(image.manifest), now),
            )
        if digest_name:
            connection.execute("INSERT OR REPLACE INTO digests VALUES (?,?)", (digest_name, str(image.manifest)))


def point(database: Database, name: str, manifest: Digest) -> None:
    """Let a name point at an image, whatever it pointed at. Raises NotFound when the image is gone."""
    with database.write() as connection:
        if connection.execute("SELECT 1 FROM images WHERE manifest=?", (str(manifest),)).fetchone() is None:
            raise NotFound(f"no such image: {manifest}")
        connection.execute(
            "INSERT INTO names VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET manifest=excluded.manifest, "
            "updated=excluded.updated",
            (name, str(manifest), time.time()),
        )


def forget(
    database: Database, names: Iterable[str], manifests: Iterable[Digest], garbage: Iterable[tuple[Kind, Digest]]
) -> None:
    """Take names away, and images with all their names, in one transaction.

    `garbage` is what those images consist of: it is noted in the same transaction, so that a sweep finds what nobody
    else needs, even if we are killed now.
    """
    with database.write() as connection:
        for name in names:
            connection.execute("DELETE FROM names WHERE name=?", (name,))
            connection.execute("DELETE FROM digests WHERE name=?", (name,))
        for manifest in map(str, manifests):
            for table in ("names", "digests", "images"):
                connection.execute(f"DELETE FROM {table} WHERE manifest=?", (manifest,))
        connection.executemany(
            "INSERT OR IGNORE INTO garbage VALUES (?,?)", [(kind, str(digest)) for kind, digest in garbage]
        )


def garbage(database: Database) -> list[tuple[Kind, Digest]]:
    """What removed images consisted of and no sweep has looked at yet."""
    with database.read() as connection:
        found = connection.execute("SELECT kind, digest FROM garbage").fetchall()
    return [(kind, Digest.parse(digest)) for kind, digest in found]


def swept(database: Database, done: Iterable[tuple[Kind, Digest]]) -> None:
    """A sweep has removed these, or found that somebody needs them."""
    with database.write() as connection:
        connection.executemany(
            "DELETE FROM garbage WHERE kind=? AND digest=?", [(kind, str(digest)) for kind, digest in done]
        )


def note_facts(database: Database, facts: Iterable[tuple[Digest, Facts]]) -> None:
    """Keep what lists show of images, by manifest digest. Not an error when one is gone."""
    with database.write() as connection:
        connection.executemany(
            "UPDATE images SET facts=? WHERE manifest=?",
            [(msgspec.json.encode(each), str(manifest)) for manifest, each in facts],
        )


def touch(database: Database, manifest: Digest) -> None:
    """An image is used now. Not an error when it is gone."""
    with database.write() as connection:
        connection.execute("UPDATE images SET last_used=? WHERE manifest=?", (time.time(), str(manifest)))


def last_uses(database: Database) -> dict[str, float]:
    """When each image was last used, by manifest digest."""
    with database.read() as connection:
        return dict(connection.execute("SELECT manifest, last_used FROM images").fetchall())


def images_of_id(database: Database, config: Digest) -> list[ImageRow]:
    """All images of one ID: the same configuration in manifests that differ, the newest first."""
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM images WHERE config=? ORDER BY pulled DESC", (str(config),)
        ).fetchall()
    return [_row(row) for row in rows]


def image_by_name(database: Database, name: str) -> ImageRow | None:
    """The image that a full name (`docker.io/library/nginx:latest`) or `repository@digest` points at."""
    with database.read() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM images WHERE manifest IN "
            "(SELECT manifest FROM names WHERE name=? UNION SELECT manifest FROM digests WHERE name=?)",
            (name, name),
        ).fetchone()
    return _row(row) if row else None


def image_by_id(database: Database, prefix: str) -> ImageRow | None:
    """The image whose ID begins with hex digits. Raises Invalid when several do."""
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM images WHERE config LIKE ? OR manifest LIKE ? ORDER BY pulled DESC",
            (f"%:{prefix}%",) * 2,
        ).fetchall()
    if len({row[1] for row in rows}) > 1:
        raise Invalid(f"image ID {prefix!r} is ambiguous: {len(rows)} images begin so")
    return _row(rows[0]) if rows else None


def all_images(database: Database) -> list[ImageRow]:
    """Every image, newest first."""
    with database.read() as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM images ORDER BY pulled DESC").fetchall()
    return [_row(row) for row in rows]


def newest_image(database: Database) -> ImageRow | None:
    """The image that was used last."""
    with database.read() as connection:
        found = connection.execute(f"SELECT {_COLUMNS} FROM images ORDER BY last_used DESC LIMIT 1").fetchone()
    return _row(found) if found else None


def names_of(database: Database) -> dict[str, tuple[list[str], list[str]]]:
    """For each manifest digest: the names and the `repository@digest` names that point at it."""
    names: dict[str, tuple[list[str], list[str]]] = {}
    with database.read() as connection:
        for name, manifest in connection.execute("SELECT name, manifest FROM names ORDER BY name"):
            names.setdefault(manifest, ([], []))[0].append(name)
        for name, manifest in connection.execute("SELECT name, manifest FROM digests ORDER BY name"):
            names.setdefault(manifest, ([], []))[1].append(name)
    return names


_COLUMNS = "manifest, config, root, media_type, size, pulled, facts"


def _row(row: tuple[str, str, str, str, int, float, bytes | None]) -> ImageRow:
    manifest, config, root, media_type, size, pulled, facts = row
    parsed = Digest.parse(manifest)
    return ImageRow(
        parsed,
        Digest.parse(config),
        parsed if root == manifest else Digest.parse(root),
        media_type,
        size,
        pulled,
        _facts.decode(facts) if facts is not None else None,
    )
