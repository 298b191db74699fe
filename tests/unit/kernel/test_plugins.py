"""The plugin registry, over toys: order, choice, and plugins that break."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scow.config import Config
from scow.entrypoints import EntryPoint
from scow.errors import Invalid, NotFound, Unsupported
from scow.paths import Paths
from scow.plugins import Registry

from .conftest import Toy

MOUNT = """
class Plugin(Base):
    @hookimpl{options}
    def mount(self, request):
        return {gives}
{more}
"""


def mounts(options: str = "", gives: str = "None", more: str = "") -> str:
    return MOUNT.format(options=options, gives=gives, more=more)


def broken_of(registry: Registry) -> dict[str, str | None]:
    with capture_logs():
        return {plugin.name: plugin.problem() for plugin in registry.plugins()}


def test_nothing_is_imported_before_its_stage_is_used(toy: Toy, paths: Paths) -> None:
    found = toy("a", "mount", mounts()) + toy("b", "exec", "class Plugin(Base): pass")
    registry = Registry(paths, Config(), found)
    assert not {"toy_a_0", "toy_b_1"} & set(sys.modules)
    registry.hook("mount")
    assert {"toy_a_0", "toy_b_1"} & set(sys.modules) == {"toy_a_0"}


def test_one_instance_serves_all_stages_with_its_own_context(toy: Toy, paths: Paths) -> None:
    found = toy("a", "unpack mount", mounts())
    one, two = Registry(paths, Config(plugins={"a": {"k": 1}}), found), Registry(paths, Config(), found)
    first = one.get("mount", "a")
    assert first.instance is one.get("unpack", "a").instance
    assert first.instance is not two.get("mount", "a").instance
    context = first.instance.context
    assert (context.name, context.settings) == ("a", {"k": 1})
    assert context.state_dir == paths.root / "storage" / "a"
    assert context.run_dir == paths.run / "storage" / "a"
    assert context.engine_dirs == (paths.root, paths.run)
    assert not context.state_dir.exists()


BROKEN = [
    ("raise ImportError('no such\\n library')", "ImportError: no such library"),
    ("x =", "SyntaxError"),
    ("import sys; sys.exit(3)", "SystemExit: 3"),
    ("pass", "AttributeError"),
    ("def Plugin(context): raise KeyError('x')", "KeyError"),
    ("def Plugin(context): raise SystemExit(1)", "SystemExit"),
    ("Plugin = 3", "TypeError"),
    ("class Plugin(Base):\n    @hookimpl\n    async def mount(self, request): pass", "async function"),
    ("class Plugin(Base):\n    @hookimpl\n    async def mount(self, request): yield", "async function"),
    ("class Plugin(Base):\n    @hookimpl\n    def mount(self, wrong): pass", "wrong"),
    ("class Plugin(Base):\n    @hookimpl\n    def mnount(self, request): pass", "mnount"),
]


@pytest.mark.parametrize(("source", "named"), BROKEN)
def test_a_broken_plugin_is_named_and_the_rest_goes_on(toy: Toy, paths: Paths, source: str, named: str) -> None:
    found = toy("bad", "mount", source) + toy("good", "mount", mounts())
    registry = Registry(paths, Config(), found)
    with capture_logs() as logs:
        problems = {plugin.name: plugin.problem() for plugin in registry.plugins()}
        assert registry.pick("mount").name == "good"
    assert problems["good"] is None
    assert named in str(problems["bad"])
    assert "\n" not in str(problems["bad"])
    assert [(line["plugin"], line["origin"]) for line in logs] == [("bad", "toys 1.0")]
    with pytest.raises(Unsupported, match="bad"):
        registry.pick("mount", "bad")


def test_a_mistake_in_the_configuration_is_the_users(toy: Toy, paths: Paths) -> None:
    source = """
    class Settings(__import__("msgspec").Struct):
        size: int = 1
    class Plugin(Base):
        def __init__(self, context):
            context.config(Settings)
    """
    registry = Registry(paths, Config(plugins={"a": {"siez": 1}}), toy("a", "mount", source))
    for _ in range(2):  # and it stays so: the plugin must not be left out silently the second time
        with pytest.raises(Invalid, match=r"plugins\.a has no key 'siez'"):
            registry.hook("mount")


def test_two_distributions_with_one_name(toy: Toy, paths: Paths) -> None:
    found = toy("same", "mount", mounts()) + toy("same", "mount", mounts())
    registry = Registry(paths, Config(), found)
    with capture_logs():
        problems = [plugin.problem() for plugin in registry.plugins()]
    assert None in problems
    assert any("another distribution" in str(problem) for problem in problems)
    assert registry.pick("mount", "same").problem() is None


def test_block_order_and_trylast(toy: Toy, paths: Paths) -> None:
    found = (
        toy("c", "mount", mounts())
        + toy("a", "mount", mounts("(trylast=True)"))
        + toy("b", "mount", mounts())
        + toy("d", "mount", mounts("(tryfirst=True)"))
    )
    assert Registry(paths, Config(), found).names("mount") == ["d", "b", "c", "a"]
    assert Registry(paths, Config(plugin_order=("c", "b")), found).names("mount")[:2] == ["c", "b"]
    assert Registry(paths, Config(plugin_order=("a",)), found).names("mount")[0] == "a"
    assert Registry(paths, Config(plugin_block=("d", "b")), found).names("mount") == ["c", "a"]


def test_order_does_not_hang_on_which_stage_was_loaded_first(toy: Toy, paths: Paths) -> None:
    asks = """
    class Plugin(Base):
        @hookimpl
        def resolve(self, reference, platform): return self.context.name
        @hookimpl
        def fetch(self, source, descriptor): return self.context.name
    """
    found = toy("a", "resolve fetch", asks) + toy("b", "fetch", asks) + toy("c", "resolve fetch", asks)
    registry = Registry(paths, Config(), found)
    registry.hook("resolve")
    assert registry.hook("fetch")(source=None, descriptor=None) == ["a", "b", "c"]
    assert registry.hook("resolve")(reference=None, platform=None) == ["a", "b", "c"]


def probing(answer: str) -> str:
    return mounts(more=f"    def probe(self):\n        {answer}\n")


def test_pick(toy: Toy, paths: Paths) -> None:
    found = toy("a", "mount", probing("return ProbeResult('no kernel')")) + toy("b", "mount", probing("return None"))
    assert Registry(paths, Config(), found).pick("mount").name == "b"
    with pytest.raises(Unsupported, match="no kernel"):
        Registry(paths, Config(storage="a"), found).pick("mount")
    assert Registry(paths, Config(storage="a"), found).pick("mount", "b").name == "b"
    with pytest.raises(NotFound, match="storage plugin 'x'") as caught:
        Registry(paths, Config(), found).pick("mount", "x")
    assert "a, b" in str(caught.value.hint)


def test_pick_says_every_reason(toy: Toy, paths: Paths) -> None:
    absent, failing = probing("return ProbeResult('no kernel')"), probing("raise OSError('x')")
    found = toy("a", "mount", absent) + toy("b", "mount", failing)
    with pytest.raises(Unsupported, match=r"a: no kernel; b: its probe failed: OSError: x"):
        Registry(paths, Config(), found).pick("mount")
    with pytest.raises(Unsupported, match="there is none"):
        Registry(paths, Config(), []).pick("mount")


def test_a_wrapper_is_never_picked(toy: Toy, paths: Paths) -> None:
    """Quotas and metrics are plugins that wrap; they hold no file system themselves."""
    wraps = """
    class Plugin(Base):
        @hookimpl(wrapper=True)
        def mount(self, request):
            return (yield)
    """
    registry = Registry(paths, Config(), toy("quota", "mount", wraps) + toy("real", "mount", mounts(gives="1")))
    assert registry.names("mount") == ["real"]
    assert registry.pick("mount").name == "real"
    assert registry.hook("mount")(request=None) == 1


def test_transports(toy: Toy, paths: Paths) -> None:
    nothing = "class Plugin(Base): pass"
    found = toy("registry", "resolve", nothing) + toy("host", "resolve", nothing) + toy("x", "mount", nothing)
    assert Registry(paths, Config(), found).transports() == {"host"}


def test_origin(toy: Toy, paths: Paths) -> None:
    source = """
    @asynccontextmanager
    async def held(): yield
    async def run(): pass
    class Plugin(Base):
        @hookimpl
        def mount(self, request): return {0: held(), 1: run, 2: partial(run), 3: self.method, 4: lambda: None}[request]
        def method(self): pass
    """
    registry = Registry(paths, Config(), toy("a", "mount", source))
    for kind in range(5):
        assert registry.origin(registry.hook("mount")(request=kind)) == "a"
    assert registry.origin(3) == "?"


def test_unknown_groups_are_not_ours(paths: Paths) -> None:
    point = EntryPoint("scow.frontend", "cli", "nowhere", "main", "d", "1")
    assert Registry(paths, Config(), [point]).plugins() == []


def test_paths() -> None:
    root = Path("/somewhere")
    assert Paths.of(root).run == root / "run"
    assert Paths.of(root, Path("/r")).run == Path("/r")
    assert Paths.of(Path("/var/lib/scow")).instance == ""
    assert len(Paths.of(root).instance) == 8
