"""What happens, told to whoever listens: a file in the run directory that every process of an engine appends to.

Hooks decide, events tell. One event is one line of JSON, written with one write(2) to a descriptor in append mode,
so that processes never mix their lines. Followers wait with inotify. The file is turned over at 8 MiB.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import trio

from scow.errors import ScowError
from scow.model.container import ContainerSpec
from scow.model.event import Event
from scow.sys.inotify import Watch

_TURN_OVER: Final = 8 * 1024 * 1024
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Event)


class Mark(NamedTuple):
    """A place in one of an event log's files."""

    inode: int
    size: int


class EventLog:
    """Appends to and reads from one engine's event file."""

    def __init__(self, path: Path, command: str = "") -> None:
        self.path = path
        #: Which command caused the events; shared with the supervisors that it starts, for --trace.
        self.command = command

    def emit_container(self, action: str, spec: ContainerSpec, /, **facts: Any) -> None:
        """Tell of a container: its labels are attributes, and what scow says of it goes before them (as Docker)."""
        self.emit(
            "container", action, spec.id, **{**dict(spec.labels), "name": spec.name, "image": spec.image, **facts}
        )

    def emit(self, kind: str, action: str, subject: str, /, **attributes: Any) -> None:
        """Tell that something happened. Never fails: an engine without a writable run directory still works."""
        attributes["command"] = self.command
        attributes["pid"] = os.getpid()
        try:
            line = _encoder.encode(Event(time.time(), kind, action, subject, attributes)) + b"\n"
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, line)
                # Another process may have put it away meanwhile, and a fresh one lies there.
                if os.fstat(fd).st_size > _TURN_OVER and os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    os.replace(self.path, self.path.with_suffix(".old.jsonl"))
            finally:
                os.close(fd)
        except (OSError, ValueError, TypeError):
            pass

    @contextmanager
    def span(self, stage: str, subject: str, plugin: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Tell the start and the end of a stage; the body may add facts to the dictionary it gets."""
        started = time.time()
        more: dict[str, Any] = {"plugin": plugin, **facts}
        self.emit("stage", stage, subject, phase="start", **more)
        outcome = "cancelled"
        try:
            yield more
            outcome = "ok"
        except ScowError as error:
            outcome = error.kind.value
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            facts_now = {"started": started, "ended": time.time(), "outcome": outcome}
            self.emit("stage", stage, subject, phase="end", **more, **facts_now)

    def mark(self) -> Mark:
        """Where the file ends now, for `since_mark`."""
        try:
            found = self.path.stat()
        except OSError:
            return Mark(0, 0)
        return Mark(found.st_ino, found.st_size)

    def since_mark(self, mark: Mark) -> list[Event]:
        """The events that came after a mark (all there are when the file was turned over twice meanwhile)."""
        events: list[Event] = []
        for path in (self.path.with_suffix(".old.jsonl"), self.path):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == mark.inode:
                    events.clear()
                    file.seek(mark.size)
                events += [event for line in file if (event := _event(line)) is not None]
        return events

    def past(self) -> Iterator[Event]:
        """All events that are still known, oldest first."""
        yield from self._read(self.path.with_suffix(".old.jsonl"))
        yield from self._read(self.path)

    @staticmethod
    def _read(path: Path) -> Iterator[Event]:
        try:
            with path.open("rb") as file:
                for line in file:
                    if (event := _event(line)) is not None:
                        yield event
        except OSError:
            return

    @asynccontextmanager
    async def follow(
        self, *, since: float | None, until: float | None, follow: bool = True
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Events from `since` (None: from now) to `until` (None: for ever), as they come."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(fd)
        with Watch(self.path.parent) as watch:
            async with aclosing(self._stream(watch, since, until, follow)) as stream:
                yield stream

    async def _stream(
        self, watch: Watch, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[Event, None]:
        start = time.time() if since is None else since
        file: BinaryIO = self.path.open("rb")
        try:
            if since is None:
                file.seek(0, os.SEEK_END)
            else:
                for old in self._read(self.path.with_suffix(".old.jsonl")):
                    if old.time >= start:
                        yield old
            rest = b""
            while True:
                rest += file.read()
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    event = _event(line)
                    if event is None or event.time < start:
                        continue
                    if until is not None and event.time > until:
                        return
                    yield event
                if (newer := self._turned_over(file)) is not None:
                    rest = rest if newer is file else b""
                    file = newer
                    continue
                if not follow or (until is not None and time.time() >= until):
                    return
                timeout = 3600.0 if until is None else max(0.0, until - time.time())
                with trio.move_on_after(timeout):
                    await watch.changed()
        finally:
            file.close()

    def _turned_over(self, file: BinaryIO) -> BinaryIO | None:
        """The file to read on in when this one was put away: itself until it is read to its end; else None."""
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                return None
            if file.peek(1):  # type: ignore[attr-defined]
                return file
            newer = self.path.open("rb")
        except FileNotFoundError:
            return None
        file.close()
        return newer


def _event(line: bytes) -> Event | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def matches(event: Event, wanted: Mapping[str, str]) -> bool:
    """Whether an event has all the wanted attributes."""
    return all(event.attributes.get(key) == value for key, value in wanted.items())
