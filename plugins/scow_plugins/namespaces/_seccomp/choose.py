"""Which filter a container gets: none, the default one, or a profile in Docker's JSON format."""

from __future__ import annotations

import os
from pathlib import Path

from scow.api import Invalid, NotFound, Unsupported
from scow_plugins.namespaces._seccomp.compiler import compile_profile
from scow_plugins.namespaces._seccomp.default import default_program
from scow_plugins.namespaces._seccomp.exempt import MOST
from scow_plugins.namespaces._seccomp.profile import parse_profile

__all__ = ["choose_program"]

#: 4096 instructions (BPF_MAXINSNS), less those of `exempt`.
_LONGEST = 4096 - MOST


def choose_program(wanted: str, capabilities: frozenset[str]) -> bytes | None:
    """The filter program for `unconfined`, `default`, a path, or JSON itself. Raises Invalid, NotFound, Unsupported."""
    machine = os.uname().machine
    if wanted == "unconfined":
        return None
    if wanted in ("", "default", "builtin"):
        return default_program(capabilities, machine)
    text = wanted if wanted.lstrip().startswith("{") else _read(wanted)
    program = compile_profile(parse_profile(text, capabilities, machine), machine)
    if len(program) // 8 > _LONGEST:
        raise Invalid("seccomp profile: too long for the kernel", hint=f"{_LONGEST} instructions are the most it takes")
    return program


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"seccomp profile {path!r} doesn't exist", hint="name a file, default or unconfined") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unsupported(f"seccomp profile {path!r}: {error}") from None
