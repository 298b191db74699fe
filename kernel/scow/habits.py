"""What a launcher's children write to while they work, learned from the first of them, so that the next ones have it
for themselves before anybody waits.

All children of one launcher have the same memory at the same addresses, and do much the same things. A child whose work
is done notes in memory shared with the launcher which pages have become its own; a child on standby makes them its
own at once. Without Linux 5.14 nothing is lost but the time.
"""

from __future__ import annotations

import mmap
from typing import Final

from scow.sys.pages import chosen, count, make_own, own_pages, writable_spans

#: How many children are learned from: the first may have done something unusual, the tenth has nothing new.
_TEACHERS: Final = 4
#: A child with more pages than this of its own did something large: nothing for a standby to prepare for.
_MOST: Final = 4096
#: The habits that this process has, if it is a launcher's child.
_own: Habits | None = None


class Habits:
    """What children of one kind write to. Made by the launcher when its memory is as its children will find it."""

    def __init__(self) -> None:
        self._spans = writable_spans()
        # How many have been learned from; then a byte for each page.
        self._notes = mmap.mmap(-1, 1 + count(self._spans))

    def take_on(self) -> None:
        """In a child on standby: make one's own what others of this kind needed."""
        global _own
        _own = self
        if self._notes[0]:
            make_own(chosen(self._spans, self._notes[1:]))

    def note(self) -> None:
        """In a child whose work is done: tell those who come later. Raises OSError."""
        if self._notes[0] >= _TEACHERS:
            return
        own = bytes(own_pages(self._spans))
        if sum(own) <= _MOST:
            self._notes[1:] = bytes(map(max, self._notes[1:], own))
            self._notes[0] += 1


def pass_on() -> None:
    """Note what this process has written to, if it is a launcher's child. Never fails."""
    global _own
    habits, _own = _own, None
    if habits is not None:
        try:
            habits.note()
        except (OSError, ValueError):
            pass
