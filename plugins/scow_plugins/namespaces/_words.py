"""Hints that several places give."""

from __future__ import annotations

from typing import Final

INTERPRETER: Final = "the file is there, but its interpreter (the #! line, or the dynamic loader) isn't"
LIMITS: Final = "a limit on processes or memory is too small to start a command"
FORMAT: Final = "it is built for another kind of machine, or a script without a #! line"
PERMISSION: Final = "see its mode bits, and whether it lies on a file system mounted noexec"
