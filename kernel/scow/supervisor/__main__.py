"""`python -m scow.supervisor FD`: supervise without a launcher; the request comes on standard input."""

from __future__ import annotations

import os
import sys

from scow.supervisor.main import start
from scow.supervisor.protocol import SuperviseRequest

if __name__ == "__main__":
    data = sys.stdin.buffer.read()
    # This process was started by one that may end first; the container must not end with it.
    if os.fork():
        os._exit(0)
    start(SuperviseRequest.decode(data), int(sys.argv[1]))
