"""The state file: changed under a lock, void after a restart of the machine, robust against torn writes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from scow_plugins.bridge._state import Lease, Span, State, Store


def test_what_is_saved_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep")
    lease = Lease("c", "10.0.0.2", [Span("tcp", "0.0.0.0", 80, 8080, 3)])
    with store.locked() as state:
        state.subnet, state.leases["veth1"] = "10.0.0.0/24", lease
        store.save(state)
    with store.locked() as state:
        assert state.leases == {"veth1": lease}
        assert state.leased() == {state.network()[2]}


def test_leases_end_with_the_boot(tmp_path: Path) -> None:
    old = State(boot="another", subnet="10.0.0.0/24", last="10.0.0.9", leases={"v": Lease("c", "10.0.0.2")})
    (tmp_path / "network.json").write_bytes(msgspec.json.encode(old))
    with Store(tmp_path).locked() as state:
        assert (state.subnet, state.last, state.leases) == ("10.0.0.0/24", "10.0.0.9", {})


@pytest.mark.parametrize("content", [b"", b"{", b'{"leases": 7}', b"\xff"])
def test_a_torn_file_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "network.json").write_bytes(content)
    with Store(tmp_path).locked() as state:
        assert state.leases == {}


def test_nobody_else_has_the_lock(tmp_path: Path) -> None:
    with Store(tmp_path).locked():
        fd = os.open(tmp_path / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
