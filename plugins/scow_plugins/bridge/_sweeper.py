"""Removing an idle bridge without letting anybody wait for it: a process of its own, alive for a second.

Deleting a bridge takes the kernel 30 to 70 ms, which nobody who ran a command wants to wait for, and the next
`run` probably needs it again. So whoever leaves last forks a process that waits a moment and removes bridge and
rules if they are still idle. There is at most one per engine; a lock held for its life says that it is there.

One that has long to wait makes itself small: it becomes a bare interpreter that sleeps, and after that goes on here
(see _sleeper).
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import time
import warnings
from typing import Final, NoReturn

from ._network import Network
from ._sleeper import sleep_small

#: Where the child keeps its two descriptors.
_LOCK, _READY = 3, 4
#: Whoever waits longer than this, in seconds, does so in a process of its own kind.
_SHORT: Final = 2.0


def start(network: Network, linger: float) -> None:
    """See to it that an idle network is removed after `linger` seconds; 0: at once, here."""
    _reap(network)
    if linger <= 0:
        network.sweep(0)
        return
    lock = os.open(network.directory / "sweeper", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # One is waiting already, and looks again under the network's lock before it goes.
        os.close(lock)
        return
    try:
        heard, ready = os.pipe()
        try:
            if (child := _fork()) == 0:
                _run(network, lock, ready, linger)
            network.sweepers.append(child)
        finally:
            os.close(ready)
        # The end of the pipe: now the child holds no pipe, port or namespace of ours any more.
        os.read(heard, 1)
        os.close(heard)
    finally:
        os.close(lock)


def _reap(network: Network) -> None:
    """Collect children that ended, where we are still there and nobody else has done so."""
    for child in tuple(network.sweepers):
        try:
            ended = os.waitpid(child, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            ended = True
        if ended:
            network.sweepers.remove(child)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of threads. The child only makes system calls, and never returns from here.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run(network: Network, lock: int, ready: int, linger: float) -> NoReturn:
    try:
        # Objects of the parent's must not be finalised: they would close descriptors that are ours by now.
        gc.disable()
        _detach(lock, ready)
        _sweep(network, linger)
    except BaseException:  # noqa: BLE001 - nobody is there to hear it, and no handler of the parent's may run
        os._exit(1)
    os._exit(0)


def _sweep(network: Network, linger: float) -> None:
    os.umask(0o077)  # a root that was deleted meanwhile comes back with its directory: for its owner only
    while (rest := network.retire(linger, _LOCK)) > 0:
        if rest > _SHORT:
            _sleep_small(network, rest)
        time.sleep(rest)


def _sleep_small(network: Network, rest: float) -> None:
    """Give back all memory for so many seconds, then `resume`. Comes back only when that fails."""
    try:
        os.set_inheritable(_LOCK, True)
        sleep_small(rest, network.described())
    except (OSError, ImportError):
        return


def resume(description: str) -> None:
    """Go on after a sleep."""
    network = Network.from_description(description)
    _sweep(network, network.linger)


def _detach(lock: int, ready: int) -> None:
    """Keep nothing of the parent's but the lock."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.chdir("/")
    lock, ready = fcntl.fcntl(lock, fcntl.F_DUPFD, 5), fcntl.fcntl(ready, fcntl.F_DUPFD, 5)
    os.dup2(lock, _LOCK)
    os.dup2(ready, _READY)
    os.closerange(5, 1 << 30)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.close(_READY)
