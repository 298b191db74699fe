"""A supervisor that nobody wants anything of becomes a keeper (scow.keeper), or goes back behind the one it came from.

Fifty idle containers are fifty supervisors, each with ten megabytes for itself although they were forked from one
launcher: a Python process can't look at an object without writing to it. A keeper has three.
"""

from __future__ import annotations

import ctypes
import gc
import marshal
import os
import signal
import sys
from pathlib import Path
from typing import Final

import scow.keeper
from scow import habits, warm
from scow.engine.core import Core
from scow.keeper.keep import HEARD
from scow.keeper.logfile import LogFile
from scow.model.container import ContainerSpec
from scow.supervisor.protocol import SuperviseRequest

#: A container that nobody has asked anything of for so many seconds is left to a keeper.
SETTLED: Final = 1.0
_KEEPER: Final = str(Path(scow.keeper.__file__).with_name("__main__.py"))


def may_rest(core: Core, spec: ContainerSpec) -> bool:
    """Whether a supervisor can be made again when it is wanted: soon enough, and with what the plugins hold."""
    drivers = {"mount": spec.storage, "network": spec.network, "exec": spec.runtime}
    return warm.wanted() and core.stages.can_rest(drivers)


def become_keeper(
    core: Core, request: SuperviseRequest, pid: int, fds: dict[str, int], log: LogFile, delay: float
) -> None:
    """Replace this process. Comes back only when that fails, with everything as it was.

    `fds`: the descriptors by the names in scow.keeper.keep; those of plugins are kept too, because what they stand for
    (a port, a mount) is there as long as they are.
    """
    core.database.rest()
    habits.pass_on()
    held = _worth_keeping(core.paths.root)
    state = {
        "container": request.container,
        "pid": pid,
        "fds": fds,
        "held": held,
        "log": log.settings(),
        "rest": {stream: bytes(rest) for stream, rest in log.rest.items()},
        "delay": delay,
        "launcher": warm.home or warm.socket_path(request.run),
        "python": [sys.executable, warm.isolation(), "-m", "scow.supervisor"],
        "request": request.resumed().encode(),
    }
    memory = os.memfd_create("keeper", 0)
    # What comes before the keeper listens must wait, not end it; it takes the mask off.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        os.write(memory, marshal.dumps(state))
        for fd in held:
            os.set_inheritable(fd, True)
        os.execv(sys.executable, [sys.executable, "-I", "-S", _KEEPER, str(memory)])
    except OSError:
        for fd in held:
            os.set_inheritable(fd, False)
        os.close(memory)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _worth_keeping(root: Path) -> list[int]:
    """Every descriptor beyond the standard ones, but for the event loop's own and those of the engine's state."""
    kept = []
    for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # listdir's own
        if fd > 2 and "[eventpoll]" not in target and not target.startswith(f"{root}/state.db"):
            kept.append(fd)
    return kept


def slim(core: Core) -> None:
    """What a supervisor that must stay can do for its size: close what can be opened again, give free pages back."""
    core.database.rest()
    gc.collect()
    # Not every C library has it (musl doesn't); see malloc_trim(3).
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
