"""Images made without root: an archive in, a file out, looked over by fsck.erofs where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scow.layers.erofs.apply import write_image
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.model.digest import Digest
from scow.testing.layers import BytesBlob

from .fsck import complaints

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(archive, lower=directory, limits=…) -> the image's path."""

    def build(data: bytes, *, lower: Path | None = None, limits: Limits | None = None, name: str = "image") -> Path:
        path = tmp_path / name
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        below = LowerTree.of(lower) if lower is not None else None
        digest = Digest.of(data)
        try:
            write_image(
                BytesBlob(data),
                digest,
                digest,
                fd,
                lower=below,
                check=lambda: None,
                limits=limits or Limits(),
                eager=False,
            )
        finally:
            os.close(fd)
            if below is not None:
                below.close()
        assert complaints(path, "--extract") == ""
        return path

    return build
