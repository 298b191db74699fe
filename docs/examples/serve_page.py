"""Publish a port, read a log, run something beside, and clean up. As root: `python serve_page.py`."""

from __future__ import annotations

import sys

import trio
from show_page import page

from scow.api import ProcessSpec, parse_ports
from scow.engine import CreateRequest, Engine, open_engine

SERVER = ("sh", "-c", "echo hello > index.html; exec python3 -u -m http.server 80")


async def main() -> tuple[str, str]:
    """The page, and what a second process in the same container sees."""
    async with open_engine() as engine:
        request = CreateRequest(image="host:", args=SERVER, workdir="/srv", ports=parse_ports("127.0.0.1::80"))
        container = await engine.create(request)
        try:
            await engine.start(container.spec.id)
            return await look(engine, container.spec.id)
        finally:
            with trio.CancelScope(shield=True):
                await engine.remove(container.spec.id, force=True)


async def look(engine: Engine, container: str) -> tuple[str, str]:
    """Ask the published port, then run `cat` beside the server."""
    (port,) = (await engine.inspect(container)).state.ports
    shown = await trio.to_thread.run_sync(page, f"http://127.0.0.1:{port.host_port}/")
    async with engine.exec(container, ProcessSpec(("cat", "/srv/index.html"))) as session:
        seen = b"".join([piece.data async for piece in session.output()])
    return shown, seen.decode()


if __name__ == "__main__":
    sys.stdout.write("".join(trio.run(main)))
