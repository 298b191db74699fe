"""How drivers survive a crash: a handle is written down before the thing it names is acquired."""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """Where a driver writes down what outlives a process (a veth, a rule, a cgroup) *before* it acquires it.

    After a crash the kernel gives each handle that was not released back to the same plugin's `reclaim`.
    """

    def hold(self, **handle: str | int) -> int:
        """Write a handle down; gives the entry's number."""
        ...

    def release(self, entry: int) -> None:
        """The thing is gone in an orderly way."""
        ...
