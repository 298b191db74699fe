"""One of many holds a key; the others wait, and what a killed one leaves is in nobody's way."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from scow_plugins.builder._once import alone


async def test_one_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with alone(tmp_path / "steps", "key", lambda: None):
            inside += 1
            most = max(most, inside)
            await trio.sleep(0.02)
            inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    assert most == 1
    assert list((tmp_path / "steps").iterdir()) == []


async def test_other_keys_and_leftovers(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with trio.fail_after(5):
        async with alone(tmp_path, "a", lambda: None), alone(tmp_path, "b", lambda: None):
            assert sorted(os.listdir(tmp_path)) == ["a", "b"]


async def test_who_waits_is_told_and_can_give_up(tmp_path: Path) -> None:
    told = []
    async with alone(tmp_path, "a", lambda: None):
        with trio.move_on_after(2.6):
            async with alone(tmp_path, "a", lambda: told.append(1)):
                pass
    assert told == [1]
