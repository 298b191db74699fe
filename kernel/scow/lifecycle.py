"""A container's life as a table: status × happening → status. Every change of status goes through `step`.

The diagram in docs/lifecycle.md is made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from scow.errors import Conflict
from scow.model.container import Status


class Happening(Enum):
    """What can happen to a container; the value is the verb for messages."""

    START = "start"
    FAIL = "fail to start"
    EXIT = "exit"
    PAUSE = "pause"
    RESUME = "unpause"
    REMOVE = "remove"
    #: A forced removal, or the end of a container that was run with --rm.
    DISCARD = "discard"


_S, _H = Status, Happening
TRANSITIONS: Final[Mapping[Status, Mapping[Happening, Status]]] = {
    _S.CREATED: {_H.START: _S.RUNNING, _H.FAIL: _S.CREATED, _H.REMOVE: _S.REMOVING, _H.DISCARD: _S.REMOVING},
    _S.RUNNING: {_H.EXIT: _S.EXITED, _H.PAUSE: _S.PAUSED, _H.START: _S.RUNNING, _H.DISCARD: _S.REMOVING},
    _S.PAUSED: {_H.RESUME: _S.RUNNING, _H.EXIT: _S.EXITED, _H.DISCARD: _S.REMOVING},
    _S.EXITED: {_H.START: _S.RUNNING, _H.FAIL: _S.EXITED, _H.EXIT: _S.EXITED, _H.REMOVE: _S.REMOVING,
                _H.DISCARD: _S.REMOVING},
    _S.REMOVING: {_H.REMOVE: _S.REMOVING, _H.DISCARD: _S.REMOVING},
    _S.DEAD: {_H.REMOVE: _S.REMOVING, _H.DISCARD: _S.REMOVING},
}  # fmt: skip


def step(status: Status, happening: Happening, name: str) -> Status:
    """The status after `happening`. Raises Conflict when it can't happen in this one; `name` is for the message."""
    try:
        return TRANSITIONS[status][happening]
    except KeyError:
        hint = "stop it first, or use -f" if happening is Happening.REMOVE else None
        raise Conflict(f"cannot {happening.value} container {name}: it is {status.value}", hint=hint) from None
