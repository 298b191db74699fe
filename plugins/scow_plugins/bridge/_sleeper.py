"""To sleep as a bare interpreter, and to go on afterwards even if the package has gone meanwhile.

Whoever uninstalls scow, or replaces it just then, leaves bridge and rules to a process that can't import it any more.
So what it is going to import lies in a memory file, as byte code (a third of a megabyte), and extension modules are
open files: an inode lives as long as a descriptor. What it doesn't find there it looks for where it was.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

#: What the sweeper imports that isn't Python's own.
_PACKAGES: Final = (
    "scow_plugins.bridge", "scow.api", "scow.errors", "scow.hookspecs", "scow.layers.limits", "scow.model", "scow.sys",
    "pluggy", "msgspec", "typing_extensions",
)  # fmt: skip
#: Where the memory file is.
_MEMORY: Final = 4
#: Arguments: how long to sleep, then those of the module's `main`. Built-in modules only, until it wakes.
_SOURCE: Final = """
import marshal, posix, sys, time
time.sleep(float(sys.argv[1]))
import _frozen_importlib as importing, _frozen_importlib_external as files
size = posix.fstat(4).st_size
codes, extensions, places = marshal.loads(posix.pread(4, size, 0))
class Kept:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in extensions:
            place = "/proc/self/fd/%d" % extensions[name]
            return files.spec_from_file_location(name, place, loader=files.ExtensionFileLoader(name, place))
        if name in codes:
            return importing.ModuleSpec(name, Kept, is_package=codes[name][0])
    @staticmethod
    def create_module(spec):
        pass
    @staticmethod
    def exec_module(module):
        exec(marshal.loads(codes[module.__name__][1]), module.__dict__)
sys.meta_path.insert(0, Kept)
sys.path += [place for place in places if place not in sys.path]
from scow_plugins.bridge._sweeper import resume
resume(sys.argv[2])
"""


def sleep_small(seconds: float, description: str) -> None:
    """Become an interpreter that sleeps and then sweeps. Raises OSError, ImportError."""
    if not _is_woken():
        _fill()
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _SOURCE, str(seconds), description])


def _is_woken() -> bool:
    """Whether this is such an interpreter already: then everything is in place."""
    return getattr(sys.modules["__main__"], "Kept", None) is not None


def _fill() -> None:
    """Put everything where the interpreter looks for it; the caller has no descriptors beyond the lock's."""
    codes: dict[str, tuple[bool, bytes]] = {}
    extensions: dict[str, int] = {}
    memory = os.memfd_create("sweeper", 0)
    os.dup2(memory, _MEMORY)
    if memory != _MEMORY:
        os.close(memory)
    for name in _wanted():
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or spec.loader is None:
            continue
        if str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES)):
            extensions[name] = os.open(str(spec.origin), os.O_RDONLY)
            os.set_inheritable(extensions[name], True)
        elif (code := spec.loader.get_code(name)) is not None:
            codes[name] = (spec.submodule_search_locations is not None, marshal.dumps(code))
    os.write(_MEMORY, marshal.dumps((codes, extensions, sys.path)))


def _wanted() -> set[str]:
    """Loaded modules of these packages, with the packages above them."""
    names = {name for name in sys.modules if any(name == one or name.startswith(one + ".") for one in _PACKAGES)}
    parents = {name.rsplit(".", count)[0] for name in names for count in range(1, name.count(".") + 1)}
    return {name for name in names | parents if name in sys.modules}
