"""cp and export: files out of and into a container, as tar streams, by descriptors that no link leads away from.

A path is resolved as if the container's root were `/` (openat2(2)): links and `..` end there. What comes in is
unpacked by the same code that unpacks layers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from scow.engine.mounted import NOTHING, Mounted
from scow.errors import Corrupt, Denied, Exhausted, Invalid, NotFound, ScowError, Unsupported
from scow.layers.extract import Extractor, translated
from scow.layers.limits import Limits
from scow.layers.tar import Entry, TarReader
from scow.layers.tree import Tree
from scow.layers.writer import TarWriter, write_tree
from scow.sys.paths import open_beneath

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_LINKS_MAX: Final = 40
_PIECE: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Found:
    """What a path stands for: `name` in the directory `parent` (b"" for that directory itself)."""

    parent: int
    name: bytes
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class Place:
    """A tree that a root descriptor stands for. Close it to close what `find` has opened.

    `mounted` is what isn't there but would be, were the container running.
    """

    def __init__(self, root: int, mounted: Mounted = NOTHING) -> None:
        self._root = root
        self._mounted = mounted
        self._opened: list[int] = []

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._opened:
            os.close(fd)

    def find(self, path: str, *, follow: bool) -> Found:
        """What is at `path`; a link itself, unless `follow` or a slash behind it. Raises NotFound, Invalid."""
        if "\0" in path:
            raise Invalid(f"{path!r} contains a zero byte")
        raw = os.fsencode(path)
        follow = follow or raw.endswith((b"/", b"/."))
        for _ in range(_LINKS_MAX):
            found = self._one(raw, path)
            if not (follow and stat.S_ISLNK(found.status.st_mode)):
                if raw.endswith(b"/") and not found.is_directory:
                    raise NotFound(f"{path} is not a directory")
                return found
            try:
                target = os.readlink(found.name, dir_fd=found.parent)
            except OSError as error:  # the container has put something else there
                raise _explained(error, path) from None
            raw = target if target.startswith(b"/") else raw.rstrip(b"/").rpartition(b"/")[0] + b"/" + target
        raise Invalid(f"{path} goes over more than {_LINKS_MAX} links")

    def real(self, path: str) -> str:
        """Where a file that is written to `path` will lie: what links there lead to, whether it exists or not.

        Raises Invalid for a loop, NotFound for a directory that isn't there.
        """
        raw = os.fsencode(path)
        for _ in range(_LINKS_MAX):
            directory, slash, name = raw.rpartition(b"/")
            if name in (b"", b".", b".."):
                break
            try:
                target = os.readlink(name, dir_fd=self.directory(directory, path))
            except OSError:
                break  # no link, or nothing at all
            raw = target if target.startswith(b"/") else directory + slash + target
        else:
            raise Invalid(f"{path} goes over more than {_LINKS_MAX} links")
        return os.fsdecode(raw)

    def _one(self, raw: bytes, shown: str) -> Found:
        directory, _, name = raw.rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            directory, name = raw, b""
        elif (found := self._mounted.covering(raw)) is not None and not found[1]:
            source = os.fsencode(found[0].source)
            directory, name = (raw, b"") if os.path.isdir(source) else (os.path.split(source))
            if name:
                return self._of_host(directory, name, shown)
        parent = self.directory(directory, shown)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False) if name else os.fstat(parent)
        except FileNotFoundError:
            raise NotFound(f"there is no {shown}") from None
        except OSError as error:
            raise _explained(error, shown) from None
        return Found(parent, name, status)

    def _of_host(self, directory: bytes, name: bytes, shown: str) -> Found:
        """A file of the host's that is mounted: the user has named it."""
        try:
            parent = os.open(directory, _DIRECTORY | os.O_CLOEXEC)
            self._opened.append(parent)
            return Found(parent, name, os.stat(name, dir_fd=parent))
        except OSError as error:
            raise _explained(error, shown) from None

    def directory(self, raw: bytes, shown: str) -> int:
        """A descriptor of a directory. Raises NotFound."""
        try:
            fd = self._in_mount(self._led(raw))
            if fd is None:
                fd = open_beneath(self._root, raw.lstrip(b"/") or b".", _DIRECTORY)
        except OSError as error:
            raise _explained(error, shown) from None
        self._opened.append(fd)
        return fd

    def _led(self, raw: bytes) -> bytes:
        """The same path, or if a link in it leads to where something would be mounted, that and the rest."""
        parts = raw.strip(b"/").split(b"/")
        for count in range(1, len(parts) + 1) if self._mounted.binds else ():
            try:
                fd = open_beneath(self._root, b"/".join(parts[:count]), os.O_PATH | os.O_DIRECTORY)
            except OSError:
                break  # from here on it can only be in a mount that is named
            try:
                place = self._shown(fd)
            finally:
                os.close(fd)
            if self._mounted.covering(place) is not None:
                return b"/".join([place, *parts[count:]])
        return raw

    def _in_mount(self, raw: bytes) -> int | None:
        """A directory in one of the mounts; None where there is none. Raises OSError."""
        found = self._mounted.covering(raw)
        if found is None:
            return None
        source = os.open(found[0].source, os.O_PATH | os.O_CLOEXEC)
        try:
            return open_beneath(source, found[1] or b".", _DIRECTORY)
        finally:
            os.close(source)

    def _shown(self, fd: int) -> bytes:
        """Where a directory lies beneath the root; of one that doesn't, where it lies on the host."""
        path, root = (os.readlink(b"/proc/self/fd/%d" % each) for each in (fd, self._root))
        return path[len(root.rstrip(b"/")) :] or b"/" if path.startswith(root) else b"/\0"

    def check_writable(self, path: str) -> None:
        """Raises Denied for a place in a mount that is read-only in the container."""
        found = self._mounted.covering(os.fsencode(path))
        if found is not None and found[0].read_only:
            raise Denied(f"{path} lies in a mount that is read-only: {found[0].target}")

    def check_entry(self, path: str, name: bytes) -> None:
        """Raises Unsupported for a file that would hide one that is mounted at its place."""
        if self._mounted.holds_file(os.path.join(os.fsencode(path), name)):
            raise Unsupported(
                f"{os.fsdecode(name)} in {path} is a mounted file",
                hint="write the file that is mounted, or start the container first",
            )


def pack(
    root: int,
    path: str,
    out: int,
    *,
    follow: bool = False,
    title: str | None = None,
    mounted: Mounted = NOTHING,
) -> None:
    """Write a tar stream of what is at `path` to the descriptor `out`, under the name `title` (default: its own).

    `path` may end in `/.`: then the directory's own name is `.`. Blocks. Raises NotFound, Invalid, Denied.
    """
    with Place(root, mounted) as place:
        found = place.find(path, follow=follow)
        own = os.path.basename(path.rstrip("/")) or "."
        name = os.fsencode(title if title is not None else own)
        try:
            writer = TarWriter(lambda data: _write(out, data), across=True)
            write_tree(writer, found.parent, found.name, name)
            writer.end()
        except OSError as error:
            raise _explained(error, path) from None


def pack_all(root: int, out: int) -> None:
    """Write a tar stream of a whole root file system, without what is mounted in it. Blocks."""
    try:
        writer = TarWriter(lambda data: _write(out, data))
        write_tree(writer, root)
        writer.end()
    except OSError as error:
        raise _explained(error, "the root file system") from None


def unpack_into(
    root: int,
    path: str,
    source: int,
    *,
    owners: bool,
    rename: Callable[[bytes], bytes] | None = None,
    mounted: Mounted = NOTHING,
) -> None:
    """Unpack a tar stream from the descriptor `source` into the directory `path`, replacing what is there.

    Without `owners` all belongs to us. `rename` gives each entry's name. Blocks. Raises NotFound, Invalid, Corrupt,
    Exhausted, Denied, Unsupported.
    """
    with Place(root, mounted) as place:
        place.check_writable(path)
        found = place.find(path, follow=True)
        if not found.is_directory:
            raise Invalid(f"{path} is not a directory")
        fd = place.directory(os.fsencode(path), path)
        tree = Tree(fd, None)
        try:
            extractor = _Plain(tree, Limits(), owners=owners)
            reader = TarReader(lambda: os.read(source, _PIECE))
            for entry in reader:
                renamed = _renamed(entry, rename)
                place.check_entry(path, renamed.name)
                extractor.add(renamed, reader.data)
            reader.drain()
            extractor.seal()
        except OSError as error:
            raise translated(error, os.fsencode(path)) from None
        finally:
            tree.close()


def unpack_pieces(directory: int, pieces: Iterator[bytes]) -> None:
    """Unpack a tar archive into an empty directory, with its owners; `.` in it says what the directory itself is like.

    Blocks. Raises what `pieces` raises, Corrupt, Exhausted, Denied.
    """
    tree = Tree(os.dup(directory), None)
    try:
        extractor = _Whole(tree, Limits())
        reader = TarReader(lambda: next(pieces, b""))
        for entry in reader:
            extractor.add(entry, reader.data)
        reader.drain()
        extractor.seal()
    except OSError as error:
        raise translated(error, b".") from None
    finally:
        tree.close()


class _Whole(Extractor):
    """Files are files here, also those whose names would be whiteouts in a layer."""

    def _is_whiteout(self, directory: bytes, name: bytes) -> bool:
        return False


class _Plain(_Whole):
    """The target stays as it is."""

    def seal(self) -> None:
        self.tree.pending.pop(b"", None)
        super().seal()


def _renamed(entry: Entry, rename: Callable[[bytes], bytes] | None) -> Entry:
    if rename is None:
        return entry
    link = rename(entry.link) if entry.kind == b"1" else entry.link
    return entry._replace(name=rename(entry.name), link=link)


def renamer(old: str, new: str) -> Callable[[bytes], bytes]:
    """Gives `new` for `old` as the first component of a name."""
    before, after = os.fsencode(old), os.fsencode(new)

    def rename(name: bytes) -> bytes:
        first, slash, rest = name.partition(b"/")
        return after + slash + rest if first == before else name

    return rename


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _explained(error: OSError, path: str) -> ScowError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"there is no {path}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = (error.strerror or "").lower()
        return Exhausted(f"no room for {path}: {why}", hint="make room where it is written to")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return Invalid(f"{path}: {error.strerror}")
    if error.errno == errno.EPIPE:
        return Corrupt("the reader has gone")
    return Denied(f"{path}: {error.strerror or error}")
