"""A supervisor that fails while a keeper holds the container must not record its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scow.errors import ScowError, Unavailable
from scow.supervisor.run import _supervised


class Supervisor(SimpleNamespace):
    """What `_supervised` knows of one."""

    def __init__(self, has_keeper: bool) -> None:
        super().__init__(has_keeper=has_keeper, told=[])

    async def report_failure(self, error: ScowError) -> None:
        self.told.append(error.message)


async def _fails(error: BaseException) -> None:
    raise error


GROUP = ExceptionGroup("both", [Unavailable("no group"), ValueError("a bug")])


@pytest.mark.parametrize("error", [Unavailable("no group"), GROUP], ids=["plain", "group"])
async def test_a_kept_container_runs_on(error: Exception) -> None:
    supervisor: Any = Supervisor(has_keeper=True)
    with pytest.raises(type(error)):
        await _supervised(supervisor, _fails(error))
    assert supervisor.told == []


@pytest.mark.parametrize("error", [Unavailable("no group"), GROUP], ids=["plain", "group"])
async def test_without_a_keeper_the_failure_is_told(error: Exception) -> None:
    supervisor: Any = Supervisor(has_keeper=False)
    await _supervised(supervisor, _fails(error))
    assert supervisor.told == ["no group"]


async def test_a_bug_is_told_and_raised() -> None:
    supervisor: Any = Supervisor(has_keeper=False)
    with pytest.raises(ExceptionGroup):
        await _supervised(supervisor, _fails(ExceptionGroup("a bug", [ValueError("x")])))
    assert "the supervisor failed" in supervisor.told[0]
