"""Print which plugin did which stage of one container, and how long it took. As root: `python follow_events.py`."""

from __future__ import annotations

import sys
import time

import trio

from scow.engine import CreateRequest, open_engine


async def stages(*command: str) -> list[str]:
    """`stage plugin milliseconds`, for every stage of a container's life."""
    lines = []
    async with open_engine() as engine:
        began = time.time()
        container = await engine.create(CreateRequest(image="host:", args=command))
        await engine.start(container.spec.id)
        await engine.wait(container.spec.id)
        await engine.remove(container.spec.id)
        async with engine.events(since=began, follow=False) as events:
            async for event in events:
                facts = event.attributes
                if event.kind == "stage" and facts["phase"] == "end":
                    lines.append(f"{event.action} {facts['plugin']} {(facts['ended'] - facts['started']) * 1000:.1f}")
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(trio.run(stages, "true")) + "\n")
