"""A container whose first process another supervisor has started: the same, but somebody else sees its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scow.api import AdoptRequest, ExitStatus
from scow_plugins.namespaces._container import Running, group_of, privileges_of
from scow_plugins.namespaces._process import Child

__all__ = ["adopt"]


def adopt(request: AdoptRequest) -> Running:
    """What `held` gives, for a process that runs already. Raises Unavailable when its control group can't be read."""
    group = group_of(request.container, request.isolation)
    group.take_over()
    child = _Foster(request.pid, request.pidfd, request.console)
    child.told = request.wait
    child.belongs_to(group, first=True)
    return Running(child, group, request.container, privileges_of(request.isolation), paused=request.paused)


@dataclass(slots=True, eq=False)
class _Foster(Child):
    """Somebody else's child."""

    told: Callable[[], Awaitable[ExitStatus]] | None = None

    async def wait(self) -> ExitStatus:
        """See scow.api.Process."""
        if self._ended is None:
            assert self.told is not None
            status = await self.told()
            self._note_end((status.code, status.signal))
        return self.status()
