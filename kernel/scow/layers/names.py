"""Names in archives: made relative to the root, or refused. Pure; everything is bytes, as in the kernel."""

from __future__ import annotations

from typing import Final

from scow.errors import Corrupt

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
#: Files that aufs kept for itself; they mean nothing to anybody else (docker skips them, too).
AUFS: Final = b".wh..wh."
#: Among them files whose other names are hard links to here (docker's archive/diff.go, WhiteoutLinkDir).
AUFS_LINKS: Final = b".wh..wh.plnk"


def show(name: bytes) -> str:
    """A name for a message: printable, and no longer than a line."""
    text = ascii(name.decode("utf-8", "surrogateescape")) if not name.isascii() else repr(name.decode())
    return text if len(text) <= 120 else text[:117] + "…'"


def beneath(name: bytes) -> bytes:
    """`name` as a path relative to the root: no empty, `.` or `..` components; b"" is the root itself.

    As docker and tar do, a leading slash is dropped and `a/../b` is `b`. What climbs out of the root is Corrupt.
    """
    if b"/." not in name and b"//" not in name and name[:1] not in b"/.":
        return name.removesuffix(b"/")
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        parts = _climb(parts, name)
    return b"/".join(parts)


def _climb(parts: list[bytes], name: bytes) -> list[bytes]:
    done: list[bytes] = []
    for part in parts:
        if part != b"..":
            done.append(part)
        elif done:
            done.pop()
        else:
            raise Corrupt(f"layer contains {show(name)}, which climbs out of the root directory")
    return done


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory and the last component."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def is_within(path: bytes, directory: bytes) -> bool:
    """Whether `path` is `directory` or lies beneath it."""
    return path == directory or not directory or path.startswith(directory + b"/")


def hidden_name(name: bytes) -> bytes:
    """What the whiteout `name` (`.wh.x`) hides. Raises Corrupt for one that hides nothing or the directory itself."""
    target = name[len(WHITEOUT) :]
    if target in (b"", b".", b".."):
        raise Corrupt(f"layer contains the whiteout {show(name)}, which names nothing")
    return target


def is_linked(directory: bytes, name: bytes, kind: bytes) -> bool:
    """Whether an entry is a file that aufs kept for its hard links."""
    return directory == AUFS_LINKS and kind == b"0" and not name.startswith(WHITEOUT)
