"""A layer's image as a mounted directory: from the file itself since Linux 6.12, before through a loop device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from scow.api import Corrupt, NotFound, Snapshot, SnapshotForm, Unsupported
from scow.api.layers import detached, open_directory
from scow.api.linux import create_mount, loop_device

_DAMAGED: Final = frozenset({errno.EUCLEAN, errno.EINVAL, errno.EIO, errno.EBADMSG})


@contextmanager
def open_layer(layer: Snapshot) -> Iterator[int]:
    """The root of a layer, of ours or one that is a directory. Raises Unsupported, NotFound, Corrupt, OSError."""
    if layer.form is SnapshotForm.DIRECTORY:
        with open_directory(layer) as fd:
            yield fd
        return
    with detached(_mounted(layer)) as fd:
        yield fd


def _mounted(layer: Snapshot) -> int:
    again = "remove the image and pull it again"
    try:
        image = os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"layer {layer.chain_id} isn't where it was: {layer.path}", hint=again) from None
    try:
        return mount_image(image)
    except OSError as error:
        if error.errno not in _DAMAGED:
            raise
        raise Corrupt(f"layer {layer.chain_id} can't be mounted: {error.strerror}", hint=again) from None
    finally:
        os.close(image)


def mount_image(image: int, *, loop: bool = False) -> int:
    """A detached mount of an open image; `loop` leaves the file-backed way out. Raises Unsupported, OSError."""
    # By descriptor: fsconfig(2) takes at most 255 bytes, and a path can be longer.
    if not loop:
        try:
            return create_mount("erofs", [("source", f"/proc/self/fd/{image}"), ("ro", None)])
        except OSError as error:
            # ENOTBLK: this kernel mounts block devices only.
            if error.errno not in (errno.ENOTBLK, errno.EOPNOTSUPP):
                raise _explained(error) from None
    try:
        with loop_device(image) as device:
            return create_mount("erofs", [("source", device), ("ro", None)])
    except OSError as error:
        raise _explained(error) from None


def _explained(error: OSError) -> Exception:
    if error.errno == errno.ENODEV:
        return Unsupported("this kernel has no EROFS", hint="load the module `erofs`, or try --storage overlay")
    return error
