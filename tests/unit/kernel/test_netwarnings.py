"""What network plugins say beforehand of the machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scow.api import parse_ports
from scow.engine.core import Core
from scow.engine.netwarnings import network_warnings

from .conftest import Toy

SAID = [
    ("def warnings(self, ports): return ('mind the gap', *map(str, ports))", ("mind the gap", "0.0.0.0:8080->80/tcp")),
    ("pass", ()),
    ("def warnings(self, ports): raise RuntimeError('a bug')", ()),
    ("def warnings(self, ports): raise Denied('not for you')", ()),
]


@pytest.mark.parametrize(("body", "expected"), SAID)
def test_warnings_are_passed_on_and_failures_are_not(
    toy: Toy, core_of: Callable[..., Core], body: str, expected: tuple[str, ...]
) -> None:
    core = core_of(toy("net", "network", f"class Plugin(Base):\n    {body}\n"))
    assert network_warnings(core, "net", tuple(parse_ports("8080:80"))) == expected
