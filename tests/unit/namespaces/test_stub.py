"""The program between the interpreter and the command, as a file and running."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from scow_plugins.namespaces._stub import Orders, elf

_MACHINE = os.uname().machine
_here = pytest.mark.skipif(_MACHINE not in ("x86_64", "aarch64"), reason="needs the architecture x86_64 or aarch64")


def _file(tmp_path: Path, orders: Orders, machine: str = _MACHINE) -> Path:
    file = tmp_path / "stub"
    file.write_bytes(elf(machine, orders))
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_is_a_static_program(machine: str, tmp_path: Path) -> None:
    file = _file(tmp_path, Orders(0x1122334455667788, joins=True, terminal=True), machine)
    program = file.read_bytes()
    assert program.startswith(b"\x7fELF")
    assert program.endswith(bytes.fromhex("8877665544332211 0300000000000000"))
    assert (len(program) - 64 - 2 * 56) % 8 == 0
    readelf = shutil.which("readelf")
    if readelf is not None:
        said = subprocess.run([readelf, "-lW", file], capture_output=True, text=True, check=True, env={"LC_ALL": "C"})
        assert "Entry point 0x4000b0" in said.stdout
        assert said.stderr == ""


@_here
def test_calls_what_it_says(tmp_path: Path) -> None:
    """The numbers of system calls, in the order of its description."""
    objdump = shutil.which("objdump")
    if objdump is None or _MACHINE != "x86_64":
        pytest.skip("this machine has no disassembler for x86_64")
    command = [objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--start-address=0xb0"]
    said = subprocess.run([*command, _file(tmp_path, Orders())], capture_output=True, text=True, check=True).stdout
    loaded = [int(line.rpartition("eax,")[2], 16) for line in said.splitlines() if "mov    eax,0x" in line]
    assert loaded == [299, 436, 157, 56, 157, 299, 112, 16, 59, 1, 231]
    assert said.count("syscall") == len(loaded)


@_here
@pytest.mark.parametrize("joins", [False, True])
def test_started_by_anybody_else_it_just_ends(tmp_path: Path, joins: bool) -> None:
    file = _file(tmp_path, Orders(joins=joins))
    said = subprocess.run([file, "/bin/echo", "echo", "x"], capture_output=True, check=False)
    assert (said.returncode, said.stdout) == (127, b"")


def _spawn(file: Path, line: socket.socket, *args: str) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, line.fileno(), 3)]
    return os.posix_spawn(file, args, {"MARK": "x"}, file_actions=actions, setsigdef=())


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    return ours, theirs


@_here
def test_becomes_the_command_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    ours, theirs = _pair()
    script = 'test "$0" = me && test "$MARK" = x && ! (: <&3) 2>/dev/null'
    with ours, theirs:
        pid = _spawn(_file(tmp_path, Orders()), theirs, "/bin/sh", "sh", "-c", script, "me")
        theirs.close()
        assert ours.recv(100) == b""
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@_here
def test_reports_what_execve_says(tmp_path: Path) -> None:
    ours, theirs = _pair()
    with ours, theirs:
        pid = _spawn(_file(tmp_path, Orders()), theirs, str(tmp_path / "nowhere"), "x")
        assert struct.unpack("<q", ours.recv(100)) == (-2,)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127


@_here
@pytest.mark.parametrize("welcome", [True, False])
def test_its_copy_is_our_child_and_waits_for_us(tmp_path: Path, welcome: bool) -> None:
    ours, theirs = _pair()
    made = tmp_path / "made"
    with ours, theirs:
        script = f'read -r _ _ _ _ group session _ </proc/$$/stat; test $$ = "$session" && : >{made}'
        first = _spawn(_file(tmp_path, Orders(joins=True)), theirs, "/bin/sh", "sh", "-c", script)
        theirs.close()
        (copy,) = struct.unpack("<q", ours.recv(100))
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 127
        assert os.waitid(os.P_PID, copy, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        # Undumpable: what is its own belongs to root, whoever it runs as.
        assert os.stat(f"/proc/{copy}/environ").st_uid == 0
        assert not made.exists()
        if welcome:
            ours.send(b"G")
        else:
            ours.close()
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == (0 if welcome else 127)
        assert made.exists() == welcome
