"""Every error that crosses a border inside scow, classified by what the caller should do next.

    ScowError
    ├── Invalid        the request is wrong as written: change it
    ├── NotFound       there is no such thing
    ├── Exists         the name, address or port is taken
    ├── Conflict       the thing is in the wrong state for this
    ├── Denied         credentials are missing or not enough
    ├── Unsupported    this machine or this plugin can't do that
    ├── Unavailable    try again later, or elsewhere
    ├── Corrupt        bytes are not what their digest or format says
    ├── Timeout        it took longer than allowed
    ├── Exhausted      disk, addresses, processes or memory have run out
    ├── NotExecutable  the container's command exists but can't be executed
    ├── NoCommand      the container's command doesn't exist
    └── Internal       scow or a plugin broke its own contract

Plugins raise only these. A foreign exception that crosses a stage is wrapped as `Internal` with the plugin's
name. Messages are lower case, have no full stop, and name the thing; the hint says the way out.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Final, NamedTuple, final

#: Characters of a message that are shown.
_LONGEST: Final = 2000


class Kind(Enum):
    """What the caller should do about an error; the value is the word used on the wire."""

    INVALID = "invalid"
    NOT_FOUND = "not-found"
    EXISTS = "exists"
    CONFLICT = "conflict"
    DENIED = "denied"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    CORRUPT = "corrupt"
    TIMEOUT = "timeout"
    EXHAUSTED = "exhausted"
    NOT_EXECUTABLE = "not-executable"
    NO_COMMAND = "no-command"
    INTERNAL = "internal"


class Answer(NamedTuple):
    """How front-ends answer a kind: a command's exit code, `run`'s exit code, an HTTP status."""

    exit: int
    run_exit: int
    http: int


#: One table for all front-ends. `run` uses Docker's 125 (engine), 126 (can't execute), 127 (no such command).
ANSWERS: Final[dict[Kind, Answer]] = {
    Kind.INVALID: Answer(2, 125, 400),
    Kind.NOT_FOUND: Answer(1, 125, 404),
    Kind.EXISTS: Answer(1, 125, 409),
    Kind.CONFLICT: Answer(1, 125, 409),
    Kind.DENIED: Answer(1, 125, 403),
    Kind.UNSUPPORTED: Answer(1, 125, 501),
    Kind.UNAVAILABLE: Answer(1, 125, 503),
    Kind.CORRUPT: Answer(1, 125, 500),
    Kind.TIMEOUT: Answer(1, 125, 504),
    Kind.EXHAUSTED: Answer(1, 125, 507),
    Kind.NOT_EXECUTABLE: Answer(126, 126, 400),
    Kind.NO_COMMAND: Answer(127, 127, 400),
    Kind.INTERNAL: Answer(1, 125, 500),
}


class ScowError(Exception):
    """Base of all errors; never raised itself.

    `message` names the thing that failed; `hint` (optional) is the way out, in words a user can act on.
    """

    kind: ClassVar[Kind]

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        if type(self) is ScowError:
            raise TypeError("raise one of the kinds, not ScowError itself")
        message = _bounded(message)
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is None else _bounded(hint)


def _bounded(text: str) -> str:
    """Messages quote what strangers wrote, which may be of any length."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 300]} … {text[-290:]}"


@final
class Invalid(ScowError):
    """The request is wrong as written (bad reference, unknown key, impossible flag)."""

    kind = Kind.INVALID


@final
class NotFound(ScowError):
    """There is no such image, container, tag, plugin or file."""

    kind = Kind.NOT_FOUND


@final
class Exists(ScowError):
    """The name, address or port is taken already."""

    kind = Kind.EXISTS


@final
class Conflict(ScowError):
    """The thing is in a state that doesn't allow this (a running container can't be removed)."""

    kind = Kind.CONFLICT


@final
class Denied(ScowError):
    """Credentials are missing or not enough, or the kernel refuses because of missing privileges."""

    kind = Kind.DENIED


@final
class Unsupported(ScowError):
    """This machine, kernel or plugin can't do that."""

    kind = Kind.UNSUPPORTED


@final
class Unavailable(ScowError):
    """The other side doesn't answer now; trying again later or elsewhere may help.

    `retry_after` is in seconds, where the other side said so.
    """

    kind = Kind.UNAVAILABLE

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


@final
class Corrupt(ScowError):
    """Bytes are not what their digest, size or format says."""

    kind = Kind.CORRUPT


@final
class Timeout(ScowError):
    """It took longer than allowed."""

    kind = Kind.TIMEOUT


@final
class Exhausted(ScowError):
    """Disk, addresses, processes or memory have run out."""

    kind = Kind.EXHAUSTED


@final
class NotExecutable(ScowError):
    """The container's command exists but can't be executed (Docker's exit code 126)."""

    kind = Kind.NOT_EXECUTABLE


@final
class NoCommand(ScowError):
    """The container's command doesn't exist (Docker's exit code 127)."""

    kind = Kind.NO_COMMAND


@final
class Internal(ScowError):
    """scow or a plugin broke its own contract; a bug."""

    kind = Kind.INTERNAL


_CLASSES: Final[dict[Kind, type[ScowError]]] = {cls.kind: cls for cls in ScowError.__subclasses__()}


def error_of(kind: str, message: str, hint: str | None = None) -> ScowError:
    """The error that another process described as (`kind`, `message`, `hint`); unknown kinds become Internal."""
    try:
        cls = _CLASSES[Kind(kind)]
    except ValueError:
        cls = Internal
    return cls(message, hint=hint)
