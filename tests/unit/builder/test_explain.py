"""What `--explain` says."""

from __future__ import annotations

from scow_plugins.builder._cache import Key, differences


def test_what_changed_is_named() -> None:
    mounts = [{"kind": "bind", "target": "/a", "tree": "1"}, {"kind": "secret", "target": "", "env": "S"}]
    before = Key("run", env=("A=1", "B=2"), mounts=mounts).kept()
    now = Key("run", env=("A=1", "B=3", "C="), mounts=[{**mounts[0], "tree": "2"}, mounts[1]]).kept()
    assert differences(before, now) == "changed: the environment (B, C), a mount (/a)"
    many = Key("run", env=tuple(f"V{number}=x" for number in range(9)), mounts=mounts).kept()
    assert differences(before, many).startswith("changed: the environment (A, B, V0, V1, V2 …)")
    # What an older version kept doesn't say which.
    old = {name: digest for name, digest in before.items() if " " not in name}
    assert differences(old, now) == "changed: the environment, a mount"
