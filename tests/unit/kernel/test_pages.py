"""Pages of a forked process: whose they are, and making them its own; what children of a launcher learn."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest

from scow import habits
from scow.habits import Habits
from scow.sys.pages import PAGE, Span, chosen, count, make_own, own_pages, writable_spans

PAGES = 8


@pytest.fixture
def memory() -> mmap.mmap:
    """Private memory of eight pages, all written to."""
    made = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for number in range(PAGES):
        made[number * PAGE] = 1
    return made


def where(memory: mmap.mmap) -> Span:
    import ctypes

    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return Span(start, start + len(memory))


def in_child(body: Callable[[], bool]) -> bool:
    """Whether the body gives True in a forked process."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if body() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_s_pages_are_its_own_once_written(memory: mmap.mmap) -> None:
    span = where(memory)

    def body() -> bool:
        before = list(own_pages([span]))
        memory[2 * PAGE] = 9
        memory[5 * PAGE] = 9
        return before == [False] * PAGES and [n for n, own in enumerate(own_pages([span])) if own] == [2, 5]

    assert in_child(body)


def test_made_own_without_being_changed(memory: mmap.mmap) -> None:
    span = where(memory)

    def body() -> bool:
        make_own([Span(span.start + PAGE, span.start + 3 * PAGE)])
        whose = list(own_pages([span]))
        return whose == [False, True, True] + [False] * 5 and memory[PAGE] == 1

    assert in_child(body)


def test_unmapped_memory_is_nobody_s() -> None:
    gone = mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    span = where_and_close(gone)
    assert list(own_pages([span])) == [False, False]
    make_own([span])


def where_and_close(memory: mmap.mmap) -> Span:
    span = where(memory)
    memory.close()
    return span


def test_spans(memory: mmap.mmap) -> None:
    spans = writable_spans()
    here = where(memory)
    assert any(span.start <= here.start and here.end <= span.end for span in spans)
    assert all(span.start % PAGE == 0 and span.start < span.end for span in spans)


def test_choosing_joins_neighbours() -> None:
    spans = [Span(0, 3 * PAGE), Span(3 * PAGE, 5 * PAGE), Span(9 * PAGE, 10 * PAGE)]
    assert count(spans) == 6
    assert chosen(spans, [0, 1, 1, 1, 0, 1]) == (Span(PAGE, 4 * PAGE), Span(9 * PAGE, 10 * PAGE))
    assert chosen(spans, [0] * 6) == ()


def test_a_child_has_the_habits_of_those_before_it(memory: mmap.mmap) -> None:
    span = where(memory)
    learned = Habits()

    def first() -> bool:
        learned.take_on()
        memory[3 * PAGE] = 2
        habits.pass_on()
        return True

    def second() -> bool:
        learned.take_on()
        return list(own_pages([span])) == [number == 3 for number in range(PAGES)]

    assert in_child(first)
    assert in_child(second)
    habits.pass_on()  # this process is nobody's child
    assert in_child(second)


def test_who_wrote_to_much_teaches_nothing(memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(habits, "_MOST", 0)
    span = where(memory)
    learned = Habits()

    def first() -> bool:
        learned.take_on()
        memory[3 * PAGE] = 2
        habits.pass_on()
        return True

    def second() -> bool:
        learned.take_on()
        return not any(own_pages([span]))

    assert in_child(first)
    assert in_child(second)
