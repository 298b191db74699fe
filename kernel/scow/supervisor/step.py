"""One step of a build: mount, network, exec, once; what was written stays in the scratch directory.

A supervisor without a record: nobody else can attach, no restart, no log. It ends with whoever asked for it: when
the channel closes, the process is killed. What comes over the channel is the program's input, if it has any.
"""

from __future__ import annotations

import os
import select
import shutil
import stat
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from scow.aio import cleanup
from scow.engine.core import Core
from scow.engine.images import find_snapshot
from scow.errors import Conflict, Invalid, NotFound
from scow.model.digest import Digest
from scow.model.network import NetworkRequest
from scow.model.process import BindMount, ContainerProcess, ExecRequest, ExitStatus, Stdio
from scow.model.storage import MountRequest, Snapshot
from scow.state.journal import JournalFile
from scow.supervisor.control import control, failure, start_pumps
from scow.supervisor.etc import write_etc
from scow.supervisor.frames import Decoder, Frame, Stream
from scow.supervisor.hub import Client, Hub, Pipes
from scow.supervisor.protocol import LayerView, StepFile, StepFolder, StepRequest
from scow.sys.mounts import MountFlag, attach_mount, mount, umount
from scow.sys.paths import Resolve, open_beneath

#: How long output may still come after the last process has ended, in seconds.
_DRAIN: Final = 2.0
_CHUNK: Final = 64 * 1024
_IN_ROOT: Final = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS


async def supervise_step(core: Core, request: StepRequest, channel: trio.SocketStream) -> None:
    """Run the step; whoever holds the channel gets its output and its end, or why it could not start."""
    client = Client(channel)
    rundir = core.paths.rundir(request.spec.id)
    step = _Step(core, request, rundir, client)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step.listen, channel)
            nursery.start_soon(_until_gone, channel, nursery.cancel_scope)
            try:
                status = await step.run()
                answer: dict[str, object] = {
                    "exited": {"code": status.code, "signal": status.signal, "oom_killed": status.oom_killed}
                }
            except Exception as error:  # noqa: BLE001 - told to the one who asked
                answer = {"failed": failure(error)}
            with cleanup(2, "tell the builder"):
                await client.tell(**answer)
            nursery.cancel_scope.cancel()
    finally:
        step.close()
        shutil.rmtree(rundir, ignore_errors=True)


async def _until_gone(channel: trio.SocketStream, scope: trio.CancelScope) -> None:
    """The end of the builder is the step's, also while there is input that nobody reads: EPOLLRDHUP (epoll_ctl(2))."""
    with select.epoll() as gone:
        gone.register(channel.socket.fileno(), select.EPOLLRDHUP)
        await trio.lowlevel.wait_readable(gone.fileno())
    scope.cancel()


class _Step:
    def __init__(self, core: Core, request: StepRequest, rundir: Path, client: Client) -> None:
        self._core = core
        self._request = request
        self._spec = request.spec
        self._rundir = rundir
        self._client = client
        self._journal = JournalFile(rundir)
        self._hub = Hub()
        self._process: ContainerProcess | None = None

    async def listen(self, channel: trio.SocketStream) -> None:
        """Input, sizes and signals. Waits where the program doesn't read."""
        decoder = Decoder()
        try:
            while data := await channel.receive_some(_CHUNK):
                for frame in decoder.feed(data):
                    await self._take(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _take(self, frame: Frame) -> None:
        if self._process is None:
            return
        if frame.stream is Stream.STDIN:
            await self._hub.feed(frame)
        elif frame.stream is Stream.CONTROL:
            control(self._process, frame.control())

    def close(self) -> None:
        self._journal.close()

    async def run(self) -> ExitStatus:
        """Enter the stages, wait for the process, leave them. Raises as they do."""
        hub = self._hub
        hub.attach(self._client)
        async with AsyncExitStack() as stack:
            process, pipes = await self._enter(stack)
            self._process = process
            try:
                async with trio.open_nursery() as pumps:
                    start_pumps(pumps, hub, pipes, process, stdin=self._request.stdin)
                    await self._client.tell(started={"pid": process.pid})
                    status = await process.wait()
                    pumps.cancel_scope.deadline = trio.current_time() + _DRAIN
            finally:
                self._process = None
                with cleanup(1, "close standard input"):
                    await hub.end_stdin()
        return status

    async def _enter(self, stack: AsyncExitStack) -> tuple[ContainerProcess, Pipes | None]:
        core, spec = self._core, self._spec
        scratch = Path(self._request.scratch)
        layers = _snapshots(core, spec.storage, spec.layers)
        rootfs = await stack.enter_async_context(core.stages.mount(self._mount(layers, scratch, "mount")))
        views = [await self._view(stack, number, view) for number, view in enumerate(self._request.views)]
        files = [self._file(stack, number, file) for number, file in enumerate(self._request.files)]
        folders = [self._folder(stack, number, folder) for number, folder in enumerate(self._request.folders)]
        endpoint = await stack.enter_async_context(
            core.stages.network(
                NetworkRequest(
                    spec.network,
                    spec.id,
                    spec.name,
                    spec.isolation.hostname,
                    self._journal.bound("network", spec.network),
                    nameservers=spec.nameservers,
                    search=spec.search,
                    dns_options=spec.dns_options,
                )
            )
        )
        pipes = None if spec.process.tty else Pipes(stdin=self._request.stdin)
        request = ExecRequest(
            driver=spec.runtime,
            container=spec.id,
            process=spec.process,
            isolation=replace(spec.isolation, mounts=(*spec.isolation.mounts, *views, *folders, *files)),
            rootfs=rootfs,
            endpoint=endpoint,
            stdio=None if pipes is None else Stdio(pipes.stdin, pipes.stdout, pipes.stderr),
            journal=self._journal.bound("exec", spec.runtime),
            rundir=str(self._rundir),
            etc=write_etc(self._rundir, spec, endpoint),
        )
        try:
            return await stack.enter_async_context(core.stages.exec(request)), pipes
        except BaseException:
            if pipes is not None:
                pipes.close_all()
            raise

    def _mount(self, layers: tuple[Snapshot, ...], scratch: Path, stage: str) -> MountRequest:
        try:
            # Its place is the build's: without one, the build has been killed, and cleaned up behind.
            scratch.mkdir(exist_ok=True, mode=0o700)
        except FileNotFoundError:
            raise Conflict("the build has ended before its step could begin") from None
        journal = self._journal.bound(stage, self._spec.storage)
        return MountRequest(self._spec.storage, self._spec.id, layers, scratch, journal, volatile=True)

    async def _view(self, stack: AsyncExitStack, number: int, view: LayerView) -> BindMount:
        """Another tree's directory or file: its links are followed within that tree, never on the host."""
        scratch = Path(self._request.scratch).with_name(f"view-{number}")
        layers = _snapshots(self._core, self._spec.storage, view.layers)
        tree = await stack.enter_async_context(self._core.stages.mount(self._mount(layers, scratch, "mount")))
        place = self._rundir / f"view-{number}"
        place.mkdir(mode=0o700)
        attach_mount(tree.fd, str(place))
        stack.callback(umount, str(place), detach=True)
        fd = _inside(place, view.source)
        try:
            # What was found is shown by its real name in this process's own mount table.
            source = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return BindMount(source, view.target, read_only=view.read_only)

    def _folder(self, stack: AsyncExitStack, number: int, folder: StepFolder) -> BindMount:
        """A path in a directory that other steps may be changing: what was found is mounted, not what has its name."""
        if not folder.source.strip("/."):
            return BindMount(folder.path, folder.target, read_only=folder.read_only)
        place = self._rundir / f"folder-{number}"
        fd = _inside(Path(folder.path), folder.source)
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                place.mkdir(mode=0o700)
            else:
                place.touch(mode=0o600)
            mount(f"/proc/self/fd/{fd}", str(place), "", MountFlag.BIND)
        finally:
            os.close(fd)
        stack.callback(umount, str(place), detach=True)
        return BindMount(str(place), folder.target, read_only=folder.read_only)

    def _file(self, stack: AsyncExitStack, number: int, file: StepFile) -> BindMount:
        """A small file that exists for this step only, in memory (the run directory is)."""
        directory = self._rundir / "files"
        if not directory.exists():
            directory.mkdir(mode=0o700)
            # Not /run's own file system, which may be a disk where somebody has set it up so.
            mount("tmpfs", str(directory), "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=700,size=16m")
            stack.callback(umount, str(directory), detach=True)
        path = directory / str(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(file.content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, file.uid, file.gid)
            os.fchmod(fd, file.mode)
        finally:
            os.close(fd)
        return BindMount(str(path), file.target, read_only=True)


def _inside(place: Path, source: str) -> int:
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(root, source.lstrip("/"), os.O_PATH, resolve=_IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"the mount source {source!r} is not there") from None
    except OSError as error:
        raise Invalid(f"the mount source {source!r} can't be used: {error.strerror}") from None
    finally:
        os.close(root)


def _snapshots(core: Core, driver: str, layers: tuple[str, ...]) -> tuple[Snapshot, ...]:
    found = []
    for text in layers:
        snapshot = find_snapshot(core, driver, Digest.parse(text))
        if snapshot is None:
            raise NotFound(f"layer {text} is not unpacked any more")
        found.append(snapshot)
    return tuple(found)
