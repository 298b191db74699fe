"""fuse-overlayfs as a child process that serves one detached mount and lives exactly as long as it.

The mount is ours: `/dev/fuse` is opened here, the file system is made with it by fsopen(2), and the program gets the
open device as its mount point (`/dev/fd/N`, libfuse 3.3). So it stands in no mount table and pins no namespace. When
its last descriptor or copy goes, also by our own kill -9, the kernel ends the session and the program leaves; when
the program dies first, the kernel cuts the connection (ENOTCONN) and nobody waits for an answer.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scow.api import Snapshot, SnapshotForm, Unsupported
from scow.api.linux import create_mount

#: By this variable, with a random value, a process is known as the one that a journal speaks of.
TOKEN: Final = "SCOW_MOUNT"
#: How long the program may take to leave when its mount has gone, in seconds: what it holds back is written then.
FAREWELL: Final = 10.0
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MISSING: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Stack:
    """What is to be stacked. `lowers` (topmost first) lie in `base`; `upper` and `work` are both there or not."""

    base: Path
    lowers: tuple[Path, ...]
    upper: Path | None = None
    work: Path | None = None


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running fuse-overlayfs. `root` is the mount's descriptor; give it back with `close`, and end with `kill`."""

    root: int
    process: subprocess.Popen[bytes]
    _said: int

    def close(self) -> None:
        """Give the mount back; the program leaves by itself."""
        os.close(self.root)

    def kill(self) -> None:
        """End it, if it hasn't. A process that only waits for its device can always be killed."""
        self.process.kill()
        self.process.wait()
        os.close(self._said)

    def leave(self) -> None:
        """Give the mount back and wait for the program's end. Blocks."""
        self.close()
        try:
            self.process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def words(self) -> str:
        """The last line of what the program has said."""
        lines = os.pread(self._said, 4096, 0).decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("fuse-overlayfs: ") if lines else ""


def stack_of(layers: Sequence[Snapshot]) -> Stack:
    """Of layers, lowest first, at least one. Raises Unsupported for those of other drivers."""
    base = layers[-1].path.parent.parent
    for layer in layers:
        if layer.driver == "host":
            raise Unsupported(
                "host: can't be had through fuse-overlayfs: it would show what is mounted on the machine",
                hint="host: needs --storage overlay or erofs",
            )
        if layer.form is not SnapshotForm.DIRECTORY or layer.path.parent.parent != base:
            raise Unsupported(f"layer {layer.chain_id} of the driver {layer.driver} is none of fuse-overlayfs' own")
    return Stack(base, tuple(layer.path for layer in reversed(layers)))


def start(
    program: str, stack: Stack, *, token: str = "", options: Sequence[str] = (), keep: Sequence[int] = ()
) -> Daemon:
    """Mount and serve; the program has answered when this returns. It inherits the descriptors `keep`.

    Raises Unsupported (no program, no device, what the program says), OSError.
    """
    path = shutil.which(program)
    if path is None:
        raise Unsupported(f"there is no program {program}", hint="install fuse-overlayfs")
    if stack.upper is not None and ":" in os.path.realpath(stack.upper):
        # It resolves the name that it is given, and takes what it gets for a list.
        raise Unsupported(f"fuse-overlayfs can't write below a path with a colon: {stack.upper}")
    daemon = _serve(path, stack, token, options, keep)
    try:
        # The first question is answered when the program serves, or has ended.
        os.stat(f"/proc/self/fd/{daemon.root}/.")
    except BaseException as error:
        words = daemon.words()
        daemon.close()
        daemon.kill()
        if isinstance(error, OSError):
            raise Unsupported(f"fuse-overlayfs doesn't start: {words or error.strerror}") from None
        raise
    return daemon


def _serve(program: str, stack: Stack, token: str, options: Sequence[str], keep: Sequence[int]) -> Daemon:
    with ExitStack() as undo:
        said = os.memfd_create("fuse-overlayfs", os.MFD_CLOEXEC)
        undo.callback(os.close, said)
        device = _open_device()
        try:
            root = _mount(device)
            undo.callback(os.close, root)
            process = _spawn(program, stack, device, token, options, keep, said)
        finally:
            # From here on the program alone has it: should it die, the kernel notices.
            os.close(device)
        undo.pop_all()
        return Daemon(root, process, said)


def _open_device() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "load the module `fuse`" if error.errno in _MISSING else "scow must be allowed to use the device"
        raise Unsupported(f"/dev/fuse can't be opened: {error.strerror}", hint=hint) from None


def _mount(device: int) -> int:
    """fuse(4): all users may use it, and the kernel checks owners and modes as it does everywhere."""
    options = [
        ("source", "fuse-overlayfs"),
        ("subtype", "fuse-overlayfs"),
        ("fd", str(device)),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
        ("allow_other", None),
        ("default_permissions", None),
    ]
    try:
        return create_mount("fuse", options)
    except OSError as error:
        hint = "load the module `fuse`" if error.errno == errno.ENODEV else "FUSE mounts need root (CAP_SYS_ADMIN)"
        raise Unsupported(f"FUSE can't be mounted: {error.strerror}", hint=hint) from None


def _spawn(
    program: str, stack: Stack, device: int, token: str, options: Sequence[str], keep: Sequence[int], said: int
) -> subprocess.Popen[bytes]:
    """The program splits its options at `,` and layers at `:`, which a path may have in it.

    So the writable layer goes by descriptor. Layers lie in one directory, under names that have neither; relative to
    it there is room for hundreds of them.
    """
    with _opened(stack.upper, stack.work) as (upper, work):
        words = ["lowerdir=" + ":".join(_name(stack, path) for path in stack.lowers), *options]
        if stack.upper is not None:
            words += [f"upperdir=/proc/self/fd/{upper}", f"workdir=/proc/self/fd/{work}"]
        return subprocess.Popen(
            [program, "-f", "-o", ",".join(words), f"/dev/fd/{device}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=stack.base,
            # Nothing of ours steers it (FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT), and its home is nobody's.
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", TOKEN: token},
            pass_fds=(device, *(fd for fd in (upper, work) if fd >= 0), *keep),
            # A terminal's Ctrl-C is for us: what we hold must last until we leave it.
            start_new_session=True,
        )


def _name(stack: Stack, path: Path) -> str:
    return os.fspath(path.relative_to(stack.base))


@contextmanager
def _opened(*paths: Path | None) -> Iterator[list[int]]:
    fds: list[int] = []
    try:
        for path in paths:
            fds.append(-1 if path is None else os.open(path, _DIRECTORY))
        yield fds
    finally:
        for fd in fds:
            if fd >= 0:
                os.close(fd)
