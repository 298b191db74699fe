"""A fake engine and a way to run commands against it, with everything that is written kept."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from scow.api import (
    Container,
    ContainerSpec,
    ContainerState,
    Descriptor,
    Digest,
    ExitStatus,
    ImageConfig,
    Isolation,
    Manifest,
    NotFound,
    Platform,
    ProcessSpec,
    Status,
)
from scow.engine.types import Event, ImageInfo, Output
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._main import main

NOW = 1_700_000_000.0


def make_container(number: int = 1, name: str = "web", **changes: Any) -> Container:
    """A running container; `changes` go to its state, `spec` to its specification."""
    spec = ContainerSpec(
        id=f"{number:x}" * 64,
        name=name,
        image="nginx",
        image_id="sha256:" + "d" * 64,
        manifest="sha256:" + "e" * 64,
        layers=(),
        storage="overlay",
        network="bridge",
        runtime="namespaces",
        process=ProcessSpec(args=("nginx", "-g", "daemon off;"), env=("A=1",)),
        isolation=Isolation(hostname="h"),
        created=NOW - 120 - number,
    )
    spec = replace(spec, **changes.pop("spec", {}))
    state = ContainerState(status=Status.RUNNING, pid=42, started=NOW - 3)
    return Container(spec, replace(state, **changes))


def make_image(names: tuple[str, ...] = (), digests: tuple[str, ...] = ()) -> ImageInfo:
    """A local image of three weeks."""
    digest = Digest.of(b"x")
    return ImageInfo(
        id=digest,
        manifest_digest=digest,
        names=names,
        repo_digests=digests,
        created=NOW - 86400 * 21,
        pulled=NOW,
        size=187_654_321,
        labels=(("a", "1"),),
        manifest=Manifest("application/json", Descriptor("a/b", digest, 1), (), {}),
        config=ImageConfig(Platform("linux", "amd64"), (digest,), env=("A=1",), labels=(("a", "1"),), cmd=("nginx",)),
    )


class FakeSession:
    """Says its script; `live` takes over where a test wants a conversation."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.sent = b""
        self.eof = trio.Event()
        self.signals: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.changed = trio.Event()

    async def output(self) -> AsyncIterator[Output]:
        for piece in self.engine.script:
            yield piece
        if self.engine.live is not None:
            async with aclosing(self.engine.live(self)) as pieces:
                async for piece in pieces:
                    yield piece

    async def send(self, data: bytes) -> None:
        self.sent += data
        self._news()

    async def send_eof(self) -> None:
        self.eof.set()

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))
        self._news()

    async def signal(self, number: int) -> None:
        self.signals.append(number)
        self._news()

    async def wait(self) -> ExitStatus:
        return self.engine.status

    def _news(self) -> None:
        old, self.changed = self.changed, trio.Event()
        old.set()


class FakeEngine:
    """Keeps what it was asked; gives what a test put in."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.settings: dict[str, Any] = {}
        self.all: list[Container] = []
        self.images_: list[Any] = []
        self.logged: list[Output] = []
        self.events_: list[Event] = []
        self.script: list[Output] = []
        self.status = ExitStatus(code=0)
        self.live: Callable[[FakeSession], AsyncGenerator[Output, None]] | None = None
        self.errors: dict[str, Exception] = {}
        self.news: list[Any] = []
        self.request: Any = None
        self.session: FakeSession | None = None

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[FakeEngine]:
        self.settings = settings
        yield self

    def _did(self, *call: Any) -> None:
        self.calls.append(call)
        error = next((self.errors[each] for each in call[:2] if isinstance(each, str) and each in self.errors), None)
        if error is not None:
            raise error

    def transports(self) -> frozenset[str]:
        return frozenset({"host", "oci"})

    async def tags(self, name: str) -> tuple[str, ...]:
        return ("1", "2")

    async def create(self, request: Any, *, progress: Any = None, warn: Any = None) -> Container:
        self._did("create")
        self.request = request
        for piece in self.news:
            progress(piece)
        return make_container(1, request.name or "some_name", status=Status.CREATED)

    async def pull(self, name: str, *, platform: Any = None, storage: Any = None, progress: Any = None) -> Any:
        self._did("pull", name, platform, storage)
        for piece in self.news:
            progress(piece)
        return self.images_[0]

    async def images(self) -> list[Any]:
        self._did("images")
        return self.images_

    async def inspect_image(self, name: str) -> Any:
        self._did("inspect_image", name)
        for image in self.images_:
            if name in image.names:
                return image
        raise NotFound(f"no such image: {name}")

    async def containers(self, *, all: bool = False) -> list[Container]:  # noqa: A002
        self._did("containers", all)
        return [each for each in self.all if all or each.state.status is Status.RUNNING]

    async def inspect(self, name: str) -> Container:
        self._did("inspect", name)
        for each in self.all:
            if each.spec.name == name or each.spec.id.startswith(name):
                return each
        raise NotFound(f"no such container: {name}")

    async def start(self, name: str) -> None:
        self._did("start", name)

    async def stop(self, name: str, *, timeout: float | None = None) -> None:
        self._did("stop", name, timeout)

    async def kill(self, name: str, signal: int | str = "SIGKILL") -> None:
        self._did("kill", name, signal)

    async def pause(self, name: str) -> None:
        self._did("pause", name)

    async def unpause(self, name: str) -> None:
        self._did("unpause", name)

    async def remove(self, name: str, *, force: bool = False) -> None:
        self._did("remove", name, force)

    async def wait(self, name: str) -> int:
        self._did("wait", name)
        return 7

    @asynccontextmanager
    async def attach(self, name: str, **how: Any) -> AsyncIterator[FakeSession]:
        self._did("attach", name, how)
        self.session = FakeSession(self)
        yield self.session

    @asynccontextmanager
    async def exec(self, name: str, process: Any, **how: Any) -> AsyncIterator[FakeSession]:
        self._did("exec", name, process, how)
        self.session = FakeSession(self)
        yield self.session

    @asynccontextmanager
    async def log_output(self, name: str, **how: Any) -> AsyncIterator[AsyncIterator[Output]]:
        self._did("log_output", name, how)
        yield _each(self.logged)

    @asynccontextmanager
    async def events(self, **how: Any) -> AsyncIterator[AsyncIterator[Event]]:
        self._did("events", how)
        yield _each(self.events_)

    def plugins(self) -> list[Any]:
        return self.news

    async def info(self) -> Any:
        return self.news[0]


async def _each(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Runner:
    """Runs a command with files for its descriptors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = FakeEngine()
        self.environ: dict[str, str] = {}

    def __call__(self, *words: str, stdin: bytes = b"") -> Result:
        paths = [self.directory / name for name in ("stdin", "stdout", "stderr")]
        paths[0].write_bytes(stdin)
        opened = [os.open(paths[0], os.O_RDONLY)]
        opened += [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for path in paths[1:]]
        try:
            code = main(list(words), self.cli(*opened))
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return Result(code, paths[1].read_text(), paths[2].read_text())

    def cli(self, stdin: int, stdout: int, stderr: int) -> Cli:
        return Cli(
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            environ=self.environ,
            opener=self.engine.open,
            clock=lambda: NOW,
        )


@pytest.fixture
def scow(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture
def container() -> Callable[..., Container]:
    return make_container


@pytest.fixture
def image() -> Callable[..., ImageInfo]:
    return make_image
