"""overlayfs through the mount API of Linux 5.2: detached, without a page limit for options, with real error messages.

Layers are named `/proc/self/fd/N`: fsconfig(2) takes at most 255 bytes a string, and a path can be longer.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from scow.errors import Conflict, Exhausted, ScowError, Unsupported
from scow.model.image import check_layers
from scow.model.storage import Snapshot, SnapshotForm
from scow.sys.mounts import attach_mount, clone_mount, create_mount, mount, umount

_ROOT: Final = Path("/")
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

#: Said explicitly, whatever the kernel's configuration or module parameters have as their default: `index` binds an
#: upper layer to the very inodes of its lowers and refuses it after a copy; `metacopy` and `redirect_dir` make upper
#: layers that mean nothing by themselves and, in layers of strangers, lead to files of the stranger's choice.
#: `xino` gives the tree one device number although its layers are file systems of their own: `du -x` and `tar
#: --one-file-system` would leave out files otherwise. Where inode numbers have no bits to spare it has no effect.
SAFE: Final = (("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "on"))

Options: TypeAlias = list[tuple[str, str | None]]
#: Gives a descriptor of a layer's root directory, good within the block.
Opener: TypeAlias = Callable[[Snapshot], AbstractContextManager[int]]


@contextmanager
def open_directory(layer: Snapshot) -> Iterator[int]:
    """The root of a layer that is a directory. Raises Unsupported for a file, OSError."""
    if layer.form is not SnapshotForm.DIRECTORY:
        raise Unsupported(f"layer {layer.chain_id} of the driver {layer.driver} is a file, not a directory")
    fd = os.open(layer.path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def merged_view(layers: Sequence[Snapshot], opener: Opener = open_directory) -> int:
    """A read-only view of some layers (lowest first), as a descriptor that holds it. Raises ScowError, OSError."""
    if len(layers) == 1:
        with opener(layers[0]) as fd:
            return os.dup(fd)
    with opened(reversed(layers), opener) as lowers:
        return overlay(lowers, [])


@contextmanager
def opened(layers: Iterable[Snapshot], opener: Opener = open_directory) -> Iterator[list[str]]:
    """Short names of lower layers (topmost first), valid within the block."""
    with ExitStack() as stack:
        layers = list(layers)
        names = []
        for layer in layers:
            fd = stack.enter_context(opener(layer))
            # Layers that lie within another one are refused (ELOOP), and within `/` they all do.
            if layer.path == _ROOT and len(layers) > 1:
                fd = stack.enter_context(_wrapped(fd))
            names.append(short_name(fd))
        yield names


def short_name(fd: int) -> str:
    """A path for what a descriptor holds, whatever its real one is."""
    return f"/proc/self/fd/{fd}"


@contextmanager
def _wrapped(fd: int) -> Iterator[int]:
    """A directory as the root of a file system of its own: an overlay of it and of an empty tmpfs."""
    with detached(create_mount("tmpfs", [])) as empty:
        whole = overlay([short_name(fd), short_name(empty)], [])
    with detached(whole) as root:
        yield root


@contextmanager
def detached(fd: int, *, attach: bool | None = None) -> Iterator[int]:
    """Hold a detached mount in a form that overlayfs takes as a layer; closes the descriptor in the end.

    Before Linux 6.15 it must stand in the mount table meanwhile (`attach`; None decides by the kernel). Raises OSError.
    """
    try:
        if attach is None:
            attach = kernel_version() < (6, 15)
        if not attach:
            yield fd
            return
        target = tempfile.mkdtemp(prefix="scow-layer-")
        try:
            attach_mount(fd, target)
            try:
                yield fd
            finally:
                umount(target, detach=True)
        finally:
            os.rmdir(target)
    finally:
        os.close(fd)


def kernel_version() -> tuple[int, ...]:
    """(major, minor) of the running kernel."""
    release = os.uname().release.split("-")[0].split(".")
    return tuple(int(part) for part in release[:2] if part.isdigit())


def overlay(lowers: Sequence[str], options: Options) -> int:
    """A detached overlay of `lowers` (topmost first); `options` name the writable layer. Raises ScowError."""
    check_layers(len(lowers))
    options = [*options, *SAFE]
    try:
        try:
            return create_mount("overlay", [*(("lowerdir+", name) for name in lowers), *options])
        except OSError as error:
            if error.errno != errno.EINVAL or _knows_lowerdir_plus():
                raise
        return _classic(lowers, options)
    except OSError as error:
        raise explained(error) from error


def _knows_lowerdir_plus() -> bool:
    """`lowerdir+` came with Linux 6.5; before, it is an unknown parameter (EINVAL)."""
    return kernel_version() >= (6, 5)


def _classic(lowers: Sequence[str], options: Options) -> int:
    """mount(2), whose options must fit one page; then a detached copy, and the mount itself goes away again."""
    words = ["lowerdir=" + ":".join(lowers), *(key if value is None else f"{key}={value}" for key, value in options)]
    text = ",".join(words)
    if len(text) >= os.sysconf("SC_PAGESIZE"):
        raise Unsupported(
            f"the image has {len(lowers)} layers, too many for this kernel's overlayfs",
            hint="Linux 6.5 and newer can; or try --storage native",
        )
    target = tempfile.mkdtemp(prefix="scow-overlay-")
    try:
        mount("overlay", target, "overlay", data=text)
        try:
            return clone_mount(target)
        finally:
            umount(target, detach=True)
    finally:
        os.rmdir(target)


def explained(error: OSError) -> ScowError:
    """What a failed overlay mount means for the user."""
    said = f"overlayfs: {error.strerror}"
    native = "try --storage native"
    match error.errno:
        case errno.ENODEV:
            return Unsupported("this kernel has no overlayfs", hint=f"load the module `overlay`, or {native}")
        case errno.EINVAL:
            return Unsupported(
                said, hint=f"the file system of scow's state directory may not be fit for a writable layer; {native}"
            )
        case errno.ELOOP:
            return Unsupported(f"{said}: layers lie within each other", hint=native)
        case errno.EBUSY:
            return Conflict(f"{said}: the writable layer is mounted already", hint="stop the container that uses it")
        case errno.ENOSPC | errno.ENOMEM | errno.EDQUOT:
            return Exhausted(said, hint="free some space where scow keeps its state")
        case errno.EPERM | errno.EACCES:
            return Unsupported(said, hint="overlay mounts need root (CAP_SYS_ADMIN)")
    return Unsupported(said, hint=native)
