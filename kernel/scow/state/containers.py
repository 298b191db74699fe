"""Containers as rows: what each was created with, and its state. Changes of status go through the lifecycle table."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import msgspec

from scow.errors import Exists, Invalid, NotFound
from scow.lifecycle import Happening, step
from scow.model.container import Container, ContainerSpec, ContainerState, Status
from scow.state.database import Database

_spec: Final = msgspec.json.Decoder(ContainerSpec)
_state: Final = msgspec.json.Decoder(ContainerState)
_encode: Final = msgspec.json.Encoder().encode
_COLUMNS: Final = "spec, state"


def insert(database: Database, spec: ContainerSpec) -> Container:
    """Record a new container. Raises Exists when its name is taken."""
    container = Container(spec, ContainerState())
    with database.write() as connection:
        try:
            connection.execute(
                "INSERT INTO containers VALUES (?,?,?,?,?,?)",
                (spec.id, spec.name, Status.CREATED.value, spec.created, _encode(spec), _encode(container.state)),
            )
        except sqlite3.IntegrityError:
            holder = connection.execute("SELECT id FROM containers WHERE name=?", (spec.name,)).fetchone()
            raise Exists(
                f"the container name {spec.name!r} is in use by container {holder[0][:12] if holder else '?'}",
                hint=f"remove it (`scow rm {spec.name}`) or choose another name",
            ) from None
    return container


def find(database: Database, reference: str) -> Container:
    """By full ID, by name, by an unambiguous beginning of the ID: in this order. Raises NotFound, Invalid."""
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM containers WHERE id=? OR name=? ORDER BY id=? DESC LIMIT 1",
            (reference.removeprefix("/"),) * 3,
        ).fetchall()
        if not rows and reference and set(reference) <= set("0123456789abcdef"):
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM containers WHERE id >= ? AND id < ? LIMIT 2", (reference, reference + "g")
            ).fetchall()
    if len(rows) > 1:
        raise Invalid(f"container ID {reference!r} is ambiguous: several begin so")
    if not rows:
        raise NotFound(f"no such container: {reference}", hint="`scow ps -a` lists all of them")
    return _container(rows[0])


def listing(database: Database, statuses: Iterable[Status] | None = None) -> list[Container]:
    """All containers (of the given statuses), newest first."""
    query = f"SELECT {_COLUMNS} FROM containers"
    wanted = [status.value for status in statuses] if statuses is not None else []
    if statuses is not None:
        query += f" WHERE status IN ({','.join('?' * len(wanted))})"
    with database.read() as connection:
        rows = connection.execute(query + " ORDER BY created DESC", wanted).fetchall()
    return [_container(row) for row in rows]


def change(
    database: Database,
    container_id: str,
    happening: Happening,
    edit: Callable[[ContainerState], ContainerState] = lambda state: state,
) -> Container:
    """Something happened to a container: step its status and edit its state, in one transaction.

    Raises Conflict when that can't happen in its status, NotFound when it is gone.
    """
    with database.write() as connection:
        row = connection.execute(f"SELECT {_COLUMNS} FROM containers WHERE id=?", (container_id,)).fetchone()
        if row is None:
            raise NotFound(f"no such container: {container_id}")
        before = _container(row)
        state = replace(edit(before.state), status=step(before.state.status, happening, before.spec.name))
        connection.execute(
            "UPDATE containers SET status=?, state=? WHERE id=?", (state.status.value, _encode(state), container_id)
        )
    return Container(before.spec, state)


def edit_state(database: Database, container_id: str, edit: Callable[[ContainerState], ContainerState]) -> None:
    """Change facts of a container's state without a change of status. Not an error when it is gone."""
    with database.write() as connection:
        row = connection.execute(f"SELECT {_COLUMNS} FROM containers WHERE id=?", (container_id,)).fetchone()
        if row is not None:
            state = edit(_container(row).state)
            connection.execute("UPDATE containers SET state=? WHERE id=?", (_encode(state), container_id))


def delete(database: Database, container_id: str) -> None:
    """Forget a container. Not an error when it is gone."""
    with database.write() as connection:
        connection.execute("DELETE FROM containers WHERE id=?", (container_id,))


def _container(row: tuple[bytes, bytes]) -> Container:
    return Container(_spec.decode(row[0]), _state.decode(row[1]))
