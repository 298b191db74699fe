"""--tmpfs path:options, with the options of mount(8) and tmpfs(5), as far as they mean something in a container."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from scow.api import Invalid, TmpfsMount, Unsupported

__all__ = ["read_tmpfs"]

#: Each word with those that it takes back; of several the last counts (mount(8)). The second half is the default.
_OPPOSITES: Final = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "noatime": "atime", "nodiratime": "diratime",
                     "strictatime": "nostrictatime"}  # fmt: skip
_BACK: Final = {no: yes for yes, no in _OPPOSITES.items()}
#: What is so anyway, or changes nothing in memory.
_NOTHING: Final = frozenset(("defaults", "relatime", "norelatime", "async", "sync", "dirsync", "nomand"))
_HUGE: Final = "never|always|within_size|advise"
#: tmpfs(5)'s own options.
_OWN: Final = {"uid": "[0-9]{1,10}", "gid": "[0-9]{1,10}", "nr_inodes": "[0-9]+[kKmMgG]?",
               "nr_blocks": "[0-9]+[kKmMgG]?", "huge": _HUGE, "mpol": "[a-z:,=0-9-]+"}  # fmt: skip


def read_tmpfs(
    text: str, target: Callable[[str], str], size: Callable[[str], int], mode: Callable[[str], int]
) -> TmpfsMount:
    """A memory file system as `text` wants it; the others read its parts, and raise. Raises Invalid, Unsupported."""
    place, _, options = text.partition(":")
    bytes_, bits, read_only = None, 0o1777, False
    own: dict[str, str] = {}
    flags: dict[str, None] = {}
    for option in options.split(",") if options else ():
        key, equals, value = option.partition("=")
        if key == "size" and re.fullmatch("[0-9]{1,3}%", value):
            bytes_, own["size"] = None, value
        elif key == "size":
            bytes_ = size(value)
            own.pop("size", None)
        elif key == "mode":
            bits = mode(value)
        elif key in _OWN and equals:
            if not re.fullmatch(_OWN[key], value):
                raise Invalid(f"tmpfs {text!r}: {key} can't be {value!r}", hint="see tmpfs(5)")
            own[key] = value
        elif option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _OPPOSITES:
            flags[option] = None
        elif option in _BACK:
            flags.pop(_BACK[option], None)
        elif option not in _NOTHING:
            raise Unsupported(
                f"tmpfs {text!r}: option {option!r}",
                hint=f"there are ro, rw, size, mode, {', '.join((*_OWN, *_OPPOSITES, *_BACK))}",
            )
    return TmpfsMount(target(place), bytes_, bits, read_only, tuple(own.items()), tuple(flags))
