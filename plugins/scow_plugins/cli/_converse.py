"""Connects the user's descriptors and signals to a session: what `run`, `start -a`, `attach` and `exec` share."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, UsageError
from scow_plugins.cli._stdio import Reader, Writer, ended
from scow_plugins.cli._tty import DetachKeys, parse_keys, raw, terminal_size

if TYPE_CHECKING:
    from scow.engine import Output, Session

#: What is passed on. Not here: signals of our own faults, of children and pipes, and the two that can't be caught.
FORWARDED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTSTP,
    signal.SIGCONT,
)
#: What ends us when nothing is passed on; caught, so that the terminal is given back.
_DEADLY: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
#: So many of these leave a process that doesn't end by them (as docker's command line has it).
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_PATIENCE: Final = 3


class Wiring(NamedTuple):
    """What is connected to what."""

    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    #: Not for a terminal: what is typed there goes to the process as it is, and signals are for us (as docker has it).
    sig_proxy: bool = True
    #: The end of our input is the end of the process's.
    eof: bool = True
    #: None of them: there is no way to leave but the process's end.
    detach_keys: bytes = b"\x10\x11"


def detach_keys(args: Args) -> bytes:
    """The keys that the user asked for, or Docker's. Raises UsageError."""
    text = args.text("detach-keys") or ""
    try:
        return parse_keys(text)
    except ValueError as error:
        raise UsageError(f'invalid argument "{text}" for "--detach-keys" flag: {error}') from None


def check_input(cli: Cli, *, tty: bool, stdin: bool) -> None:
    """A terminal in the container wants one outside. Raises Invalid."""
    if tty and stdin and not cli.is_tty(cli.stdin):
        from scow.api import Invalid

        raise Invalid("the input device is not a TTY", hint="leave out -t: standard input is a file or a pipe")


async def converse(cli: Cli, session: Session, wiring: Wiring, left_by: Callable[[int], None] | None = None) -> int:
    """Until the process ends or the user detaches; gives the exit code (0 when detached).

    Without `sig_proxy` a signal leaves, too: `left_by` is told its number.
    """
    talk = _Conversation(cli, session, wiring)
    code = await talk.run()
    if talk.signal and left_by is not None:
        left_by(talk.signal)
    if talk.detached:
        cli.err("read escape sequence")
    return code


class _Conversation:
    def __init__(self, cli: Cli, session: Session, wiring: Wiring) -> None:
        self.cli = cli
        self.session = session
        self.wiring = wiring
        self.detached = False
        self.code = 0
        #: What made us leave.
        self.signal = 0
        self.scope = trio.CancelScope()
        # One message at a time: input, signals and sizes come from three tasks.
        self.speaking = trio.Lock()

    async def run(self) -> int:
        with self.scope:
            async with trio.open_nursery() as nursery:
                # First of all, so that no signal ends us while the terminal is raw.
                await nursery.start(self._signals)
                with self._terminal():
                    if self.wiring.tty:
                        await nursery.start(self._sizes)
                    if self.wiring.stdin:
                        nursery.start_soon(self._input)
                    await self._output()
                    self.code = (await self.session.wait()).exit_code
                nursery.cancel_scope.cancel()
        return self.code

    def _terminal(self) -> AbstractContextManager[None]:
        wanted = self.wiring.tty and self.wiring.stdin and self.cli.is_tty(self.cli.stdin)
        return raw(self.cli.stdin) if wanted else nullcontext()

    def _leave(self, code: int) -> None:
        self.code = code
        self.scope.cancel()

    async def _output(self) -> None:
        if not self.wiring.stdout and not self.wiring.stderr:
            return
        with Writer(self.cli.stdout) as out, Writer(self.cli.stderr) as err:
            async with ended(self.session.output()) as pieces:
                await self._copy(pieces, out, err)

    async def _copy(self, pieces: AsyncIterator[Output], out: Writer, err: Writer) -> None:
        async for piece in pieces:
            if piece.stream == "stdout" and self.wiring.stdout:
                await out.write(piece.data)
            elif piece.stream == "stderr" and self.wiring.stderr:
                await err.write(piece.data)

    async def _input(self) -> None:
        reader = Reader(self.cli.stdin)
        keys = DetachKeys(self.wiring.detach_keys) if self.wiring.tty and self.wiring.detach_keys else None
        while data := await reader.read():
            if keys is not None:
                data, self.detached = keys.feed(data)
            if data:
                async with self.speaking:
                    await self.session.send(data)
            if self.detached:
                return self._leave(0)
        if self.wiring.tty:
            return self._leave(128 + signal.SIGHUP)  # in raw mode there is no other end: the terminal is gone
        if self.wiring.eof:
            async with self.speaking:
                await self.session.send_eof()
        return None

    async def _signals(self, task_status: trio.TaskStatus[None]) -> None:
        passed_on = self.wiring.sig_proxy and not self.wiring.tty
        endings = 0
        with trio.open_signal_receiver(*(FORWARDED if passed_on else _DEADLY)) as received:
            task_status.started()
            async for number in received:
                if not passed_on:
                    self.signal = number
                    return self._leave(128 + number)
                endings += number in _ENDING
                if endings == _PATIENCE:
                    self.cli.err(f"got {_PATIENCE} SIGTERM/SIGINTs, forcefully exiting")
                    return self._leave(1)
                async with self.speaking:
                    await self.session.signal(number)
        return None

    async def _sizes(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGWINCH) as changed:
            task_status.started()
            await self._resize()
            async for _ in changed:
                await self._resize()

    async def _resize(self) -> None:
        rows, columns = user_size(self.cli)
        if rows and columns:
            async with self.speaking:
                await self.session.resize(rows, columns)


def user_size(cli: Cli) -> tuple[int, int]:
    """Rows and columns of the user's terminal, wherever one is; zeros where there is none."""
    for descriptor in (cli.stdout, cli.stdin, cli.stderr):
        if cli.is_tty(descriptor):
            return terminal_size(descriptor)
    return 0, 0
