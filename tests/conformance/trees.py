"""Random layers, and trees with all that can be known of them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from hypothesis import strategies as st

from scow.testing.layers import (
    Member,
    device,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    read_tree,
    symlink,
    whiteout,
)

LINKS_AND_NODES = (tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
DIRECTORY = tarfile.DIRTYPE


def everything(root: Path) -> dict[str, object]:
    """A tree with its extended attributes, and the root itself."""
    found: dict[str, object] = {
        path: (node, _xattrs(root / path)) for path, node in read_tree(root).items() if not path.startswith("/")
    }
    status = root.stat()
    found["."] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, _xattrs(root))
    return found


def _xattrs(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


NAME = st.sampled_from(["a", "b", "c"])
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
MODE = st.sampled_from([0o755, 0o4711, 0o1777, 0o000])
NOTE = st.sampled_from([{}, {"SCHILY.xattr.user.note": "yes"}, {"SCHILY.xattr.trusted.overlay.opaque": "y"}])
DATA = st.sampled_from([b"", b"x", b"y" * 4096, b"z" * 9000])
TARGET = st.one_of(PATH, PATH.map("../{}".format), PATH.map("/{}".format), st.just(".."))
MEMBER: st.SearchStrategy[Member] = st.one_of(
    st.builds(lambda path, data, mode, note: file(path, data, mode, pax_headers=note), PATH, DATA, MODE, NOTE),
    st.builds(lambda path, mode, note: directory(path, mode, uid=3, pax_headers=note), PATH, MODE, NOTE),
    st.builds(symlink, PATH, TARGET),
    st.builds(hardlink, PATH, PATH),
    st.builds(fifo, PATH),
    st.builds(device, PATH, st.just(1), st.integers(3, 9)),
    st.builds(whiteout, PATH),
    st.builds(opaque, st.one_of(PATH, st.just(""))),
)
LAYERS = st.lists(st.lists(MEMBER, max_size=8), min_size=1, max_size=3)
