"""exec: a wrapper that keeps a book of what ran and for how long."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager

from scow.api import ContainerProcess, ExecHeld, ExecRequest, PluginContext, hookimpl


class Plugin:
    """Goes around every runtime."""

    def __init__(self, context: PluginContext) -> None:
        self._book = context.state_dir / "book.tsv"

    @hookimpl(wrapper=True)
    def exec(self, request: ExecRequest) -> Generator[None, ExecHeld | None, ExecHeld | None]:
        """Only the container's first process passes here; `scow exec` enters through that process."""
        held = yield
        return None if held is None else self._booked(request, held)

    @asynccontextmanager
    async def _booked(self, request: ExecRequest, held: ExecHeld) -> AsyncIterator[ContainerProcess]:
        began = time.time()
        try:
            async with held as process:
                yield process
        finally:
            self._book.parent.mkdir(parents=True, exist_ok=True)
            with self._book.open("a") as file:
                file.write(f"{request.container}\t{request.process.args[0]}\t{time.time() - began:.3f}\n")
