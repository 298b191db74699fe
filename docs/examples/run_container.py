"""Run a command in a throw-away copy of this machine and print what it says. As root: `python run_container.py`."""

from __future__ import annotations

import sys

import trio

from scow.engine import CreateRequest, open_engine


async def run(*command: str) -> tuple[str, int]:
    """The command's standard output and its exit code."""
    said = []
    async with open_engine() as engine:
        container = await engine.create(CreateRequest(image="host:", args=command, auto_remove=True))
        async with engine.attach(container.spec.id, start=True) as session:
            async for piece in session.output():
                said.append(piece.data)
            status = await session.wait()
    return b"".join(said).decode(), status.exit_code


if __name__ == "__main__":
    output, code = trio.run(run, "uname", "-n")
    sys.stdout.write(output)
    sys.exit(code)
