"""The tree that a layer describes, in memory: no file system is touched, so no path in an archive can lead anywhere.

The rules are those of `scow.layers.tree`, which does the same over real directories: links in paths are followed within
the image, over this layer and those below; a directory that the archive only uses takes over its metadata from below.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from scow.errors import Corrupt
from scow.layers.attributes import UNSAID, Attributes
from scow.layers.erofs.format import LNK
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.names import show
from scow.layers.tree import STEPS_MAX, NoDirectory

#: What isn't a directory is one number, which costs little: the node number, and the kind in the lowest bits.
Leaf: TypeAlias = int
KIND_BITS: Final = 3
KIND: Final = (1 << KIND_BITS) - 1

#: Linux' own limits (path_resolution(7), limits.h).
_LINKS_MAX: Final = 40
_NAME_MAX: Final = 255
_PATH_MAX: Final = 4095


class Directory:
    """A directory under construction. `hidden` and `opaque` say what this layer hides of those below.

    `alone` is set where it is known that the layers below have nothing for it: most of what an application adds.
    """

    __slots__ = ("alone", "attributes", "children", "hidden", "length", "name", "nid", "opaque", "parent")

    def __init__(self, parent: Directory | None, name: bytes, attributes: Attributes | None) -> None:
        self.parent = parent
        self.name = name
        self.attributes = attributes
        self.children: dict[bytes, Directory | Leaf] = {}
        self.hidden: set[bytes] | None = None
        self.opaque = False
        self.alone: bool = parent is not None and parent.alone
        #: Bytes of its path.
        self.length: int = 0 if parent is None else parent.length + len(name) + 1
        self.nid = 0

    def path(self) -> bytes:
        """From the root, without a slash in front."""
        names = []
        here = self
        while here.parent is not None:
            names.append(here.name)
            here = here.parent
        return b"/".join(reversed(names))

    def is_within(self, other: Directory) -> bool:
        """Whether it is `other` or lies beneath it."""
        here: Directory | None = self
        while here is not None:
            if here is other:
                return True
            here = here.parent
        return False

    def covered(self) -> bool:
        """Whether this layer's whiteouts hide what the layers below have in this directory."""
        here = self
        while not here.opaque:
            parent = here.parent
            if parent is None:
                return False
            if parent.hidden and here.name in parent.hidden:
                return True
            here = parent
        return True


class LayerTree:
    """Finds and makes directories. `link` gives the target of a symbolic link that is in the tree."""

    def __init__(self, lower: LowerTree | None, link: Callable[[Leaf], bytes], limits: Limits) -> None:
        self.root = Directory(None, b"", None)
        self.lower = lower
        self._link = link
        self._limits = limits
        self._paths = 0
        #: Where `directory` was last, without a link on the way: entries come directory by directory. It can't be gone:
        #: what an entry replaces lies beneath the directory that was looked up for it.
        self._last = (b"", self.root)

    def directory(self, path: bytes) -> Directory:
        """An archive's directory `path`, made where it is missing. Raises NoDirectory, Corrupt, OSError."""
        last, here = self._last
        if path == last:
            return here
        here = self.root
        if path:
            for name in path.split(b"/"):
                child = here.children.get(name)
                if type(child) is not Directory:
                    return self._walk(path)
                here = child
        self._last = (path, here)
        return here

    def make(self, parent: Directory, name: bytes, attributes: Attributes) -> Directory:
        """A new directory in `parent`, in place of whatever the name is now. Raises Corrupt for names too long."""
        check_name(name)
        made = Directory(parent, name, attributes)
        if made.length - 1 > _PATH_MAX:
            raise Corrupt(f"layer has a directory whose path is longer than {_PATH_MAX} bytes: {show(name)}")
        self._paths += made.length
        self._limits.check_paths(self._paths)
        parent.children[name] = made
        return made

    def stat_below(self, directory: Directory, name: bytes) -> tuple[bytes, os.stat_result] | None:
        """The path, and what the layers below have there, unless this layer hides it."""
        path = self._path_below(directory, name)
        status = self.lower.stat(path) if self.lower is not None and path is not None else None
        return None if path is None or status is None else (path, status)

    def _path_below(self, directory: Directory, name: bytes) -> bytes | None:
        """Where the layers below would have it; None where they have nothing, or this layer hides it."""
        if self.lower is None or directory.alone or (directory.hidden and name in directory.hidden):
            return None
        return None if directory.covered() else joined(directory.path(), name)

    def directories(self) -> Iterator[Directory]:
        """All directories, parents first, in an order that depends on names only."""
        ahead = [self.root]
        while ahead:
            here = ahead.pop()
            yield here
            below = [child for child in here.children.values() if type(child) is Directory]
            below.sort(key=lambda child: child.name, reverse=True)
            ahead.extend(below)

    def _walk(self, path: bytes) -> Directory:
        """Follow `path` from the root, over links, and make what is missing."""
        ahead = path.split(b"/")[::-1]
        here = self.root
        links = steps = 0
        while ahead:
            name = ahead.pop()
            steps += 1
            if steps > STEPS_MAX:
                raise Corrupt(f"layer's path {show(path)} goes over more than {STEPS_MAX} directories and links")
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = here.parent or here
                continue
            step = self._enter(here, name)
            if isinstance(step, Directory):
                here = step
                continue
            links += 1
            if links > _LINKS_MAX:
                raise Corrupt(f"layer's path {show(path)} goes over more than {_LINKS_MAX} links")
            here = self.root if step.startswith(b"/") else here
            ahead.extend(step.split(b"/")[::-1])
        return here

    def _enter(self, here: Directory, name: bytes) -> Directory | bytes:
        """One component: the directory, or the target of the link that it is."""
        child = here.children.get(name)
        if child is None:
            return self._imply(here, name)
        if isinstance(child, Directory):
            return child
        if child & KIND == LNK:
            return self._link(child)
        raise NoDirectory(f"{show(joined(here.path(), name))}, which is no directory")

    def _imply(self, here: Directory, name: bytes) -> Directory | bytes:
        """A directory that the archive doesn't mention, but uses."""
        path = self._path_below(here, name)
        found = self.lower.look(path) if self.lower is not None and path is not None else None
        if found is None or path is None or self.lower is None:
            made = self.make(here, name, UNSAID)
            made.alone = True
            return made
        below, attributes = found
        if stat.S_ISLNK(below.st_mode):
            return self.lower.readlink(path)
        if attributes is None:
            raise NoDirectory(f"{show(path)}, which is no directory in the layers below")
        return self.make(here, name, attributes)


def check_name(name: bytes) -> None:
    """Raises Corrupt for a name that no Linux file system takes."""
    if len(name) > _NAME_MAX:
        raise Corrupt(f"layer has a name of {len(name)} bytes: {show(name)}")


def joined(directory: bytes, name: bytes) -> bytes:
    """A path of a directory's path and a name in it."""
    return directory + b"/" + name if directory else name
