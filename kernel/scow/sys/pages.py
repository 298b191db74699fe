"""Memory that a forked process shares with its parent until it writes to it: which pages are its own by now, and
making pages its own before they are needed.

The first write to a shared page is a fault, and the kernel copies it then (fork(2)): 1.5 to 2.5 µs each on a virtual
machine, and a Python process can't look at an object without writing to it.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from scow.sys.libc import call

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_POPULATE_WRITE: Final = 23
#: proc(5), /proc/pid/pagemap: the page is in memory (63), and mapped nowhere else (56).
_OWN: Final = 1 << 63 | 1 << 56
_ENTRY: Final = 8


class Span(NamedTuple):
    """Consecutive pages, by address."""

    start: int
    end: int


def writable_spans() -> tuple[Span, ...]:
    """This process's private writable memory: heap, stack, arenas, data of libraries (proc(5), /proc/pid/maps)."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, *_ = line.split(maxsplit=2)
        if permissions == "rw-p":
            start, _, end = addresses.partition("-")
            found.append(Span(int(start, 16), int(end, 16)))
    return tuple(found)


def own_pages(spans: Sequence[Span]) -> Iterator[bool]:
    """For each page of the spans, in order: is it in memory and this process's alone? Raises OSError."""
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for span in spans:
            entries = array("Q", os.pread(pagemap, _pages(span) * _ENTRY, span.start // PAGE * _ENTRY))
            yield from (entry & _OWN == _OWN for entry in entries)
            # What has been unmapped meanwhile.
            yield from (False for _ in range(_pages(span) - len(entries)))
    finally:
        os.close(pagemap)


def make_own(spans: Sequence[Span]) -> None:
    """Copy these pages now, if they are still shared (madvise(2), MADV_POPULATE_WRITE, Linux 5.14). Never fails."""
    for span in spans:
        try:
            call("madvise", span.start, span.end - span.start, _POPULATE_WRITE)
        except OSError:
            continue  # unmapped by now; or an older kernel, and the pages come when they are needed


def chosen(spans: Sequence[Span], wanted: Sequence[int]) -> tuple[Span, ...]:
    """The pages of the spans, in order, that are wanted, as spans."""
    found: list[Span] = []
    number = 0
    for span in spans:
        for start in range(span.start, span.end, PAGE):
            if wanted[number]:
                if found and found[-1].end == start:
                    found[-1] = Span(found[-1].start, start + PAGE)
                else:
                    found.append(Span(start, start + PAGE))
            number += 1
    return tuple(found)


def count(spans: Sequence[Span]) -> int:
    """How many pages."""
    return sum(map(_pages, spans))


def _pages(span: Span) -> int:
    return (span.end - span.start) // PAGE
