"""Finds, loads, checks and picks plugins.

A stage's plugins are loaded when the stage is first used. A plugin that fails to import, or whose hooks break the
law, is named and left out; the others go on.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import pluggy
import structlog

from scow import hookspecs
from scow.api import PluginContext, ProbeResult
from scow.config import Config
from scow.entrypoints import EntryPoint, scan
from scow.errors import Invalid, NotFound, ScowError, Unsupported
from scow.paths import Paths

STAGES: Final = ("resolve", "fetch", "unpack", "mount", "network", "exec")
#: The specs alone: pluggy looks at every name of what it is given.
_SPECS: Final = SimpleNamespace(**{stage: getattr(hookspecs, stage) for stage in STAGES})
#: What a plugin of a stage is called in paths and in messages.
KINDS: Final = {
    "resolve": "image",
    "fetch": "image",
    "unpack": "storage",
    "mount": "storage",
    "network": "network",
    "exec": "runtime",
}


@dataclass(slots=True)
class Plugin:
    """A factory found by entry point, under one name; one instance serves all its stages."""

    name: str
    factory: EntryPoint
    stages: tuple[str, ...]
    instance: Any = None
    #: Why it could not be loaded.
    broken: str | None = None
    _problem: str | None = field(default=None)
    _probed: bool = False

    @property
    def origin(self) -> str:
        """`distribution version`."""
        return f"{self.factory.distribution} {self.factory.version}"

    def problem(self) -> str | None:
        """Why it can't work on this machine; None when it can. Asked once."""
        if self.broken is not None:
            return self.broken
        if not self._probed:
            self._problem, self._probed = self._probe(), True
        return self._problem

    def ask_again(self) -> None:
        """Probe once more if it could not work when it was asked last."""
        self._probed = self._probed and self._problem is None

    def _probe(self) -> str | None:
        probe = getattr(self.instance, "probe", None)
        if probe is None:
            return None
        try:
            answer = probe()
        except Exception as error:  # noqa: BLE001 - the border to a stranger's code
            return f"its probe failed: {type(error).__name__}: {error}"
        return answer.reason if isinstance(answer, ProbeResult) else None


class _Manager(pluggy.PluginManager):
    """pluggy, looking for hooks under public names only: half of a registration's time goes into looking."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return None if name.startswith("_") else super().parse_hookimpl_opts(plugin, name)


class Registry:
    """The plugins of one engine."""

    def __init__(self, paths: Paths, config: Config, found: list[EntryPoint] | None = None) -> None:
        self._paths = paths
        self._config = config
        self._manager = _Manager("scow")
        self._manager.add_hookspecs(cast(Any, _SPECS))
        self._plugins = _group(scan() if found is None else found, config)
        self._loaded: set[str] = set()
        self._log = structlog.get_logger("scow")

    def forget_problems(self) -> None:
        """Ask plugins again whose probe said no."""
        for plugin in self._plugins:
            plugin.ask_again()

    def hook(self, stage: str) -> Callable[..., Any]:
        """The stage's hook, with its plugins loaded."""
        self._load_stage(stage)
        return cast(Callable[..., Any], getattr(self._manager.hook, stage))

    def plugins(self) -> list[Plugin]:
        """Every plugin there is, loaded."""
        for stage in STAGES:
            self._load_stage(stage)
        return self._plugins

    def names(self, stage: str) -> list[str]:
        """The names of a stage's plugins in the order in which they are asked."""
        return [plugin.name for plugin in self._in_order(stage)]

    def wrapped(self, stage: str) -> bool:
        """Whether a wrapper goes around what the stage's plugins do."""
        self._load_stage(stage)
        return any(impl.wrapper for impl in getattr(self._manager.hook, stage).get_hookimpls())

    def transports(self) -> frozenset[str]:
        """What may stand before the colon of a reference: every resolve plugin's name but the default one's."""
        return frozenset(p.name for p in self._plugins if "resolve" in p.stages) - {"registry"}

    def get(self, stage: str, name: str) -> Plugin:
        """The plugin of a stage by name. Raises NotFound, naming those there are."""
        self._load_stage(stage)
        found = [plugin for plugin in self._plugins if plugin.name == name and stage in plugin.stages]
        if found:
            return min(found, key=lambda plugin: plugin.broken is not None)
        there = ", ".join(self.names(stage)) or "none"
        raise NotFound(f"there is no {KINDS[stage]} plugin {name!r}", hint=f"there are: {there}; see `scow plugins`")

    def pick(self, stage: str, wanted: str = "") -> Plugin:
        """The plugin named by flag or configuration, else the first that works here.

        Raises NotFound, Unsupported (with every plugin's own reason).
        """
        name = wanted or getattr(self._config, KINDS[stage], "")
        if name:
            plugin = self.get(stage, name)
            if (problem := plugin.problem()) is not None:
                raise Unsupported(f"{KINDS[stage]} plugin {name!r} can't work here: {problem}")
            return plugin
        reasons = []
        for plugin in self._in_order(stage):
            if (problem := plugin.problem()) is None:
                return plugin
            reasons.append(f"{plugin.name}: {problem}")
        raise Unsupported(f"no {KINDS[stage]} plugin works on this machine ({'; '.join(reasons) or 'there is none'})")

    def origin(self, claim: object) -> str:
        """The name of the plugin whose code a claim is made of; '?' when that can't be told."""
        function = getattr(claim, "func", claim)
        module = getattr(function, "__module__", None) or type(claim).__module__
        best = max(
            (p for p in self._plugins if module == p.factory.module or module.startswith(p.factory.module + ".")),
            key=lambda p: len(p.factory.module),
            default=None,
        )
        return best.name if best else "?"

    def _in_order(self, stage: str) -> list[Plugin]:
        """pluggy keeps implementations in the reverse of the order in which it calls them."""
        self._load_stage(stage)
        impls = getattr(self._manager.hook, stage).get_hookimpls()
        by_instance = {id(p.instance): p for p in self._plugins if p.instance is not None}
        # A wrapper goes around what others do; it is no driver that could be picked.
        impls = [impl for impl in impls if not impl.wrapper and id(impl.plugin) in by_instance]
        called = [by_instance[id(impl.plugin)] for impl in reversed(impls)]
        first = {name: position for position, name in enumerate(self._config.plugin_order)}
        # `trylast` puts a fallback behind the others in pluggy; what the user wrote counts more.
        called.sort(key=lambda plugin: first.get(plugin.name, len(first)))
        return [plugin for plugin in called if stage in plugin.stages]

    def _load_stage(self, stage: str) -> None:
        if stage in self._loaded:
            return
        fresh = [p for p in self._plugins if stage in p.stages and p.instance is None and p.broken is None]
        # Registered in reverse, because pluggy asks the last one first.
        for plugin in reversed(fresh):
            self._load(plugin)
        self._put_in_order(fresh)
        self._loaded.add(stage)

    def _put_in_order(self, fresh: list[Plugin]) -> None:
        """Register again what an earlier stage has loaded, and what must be asked before the fresh ones."""
        at = {id(plugin): position for position, plugin in enumerate(self._plugins)}
        shared = {stage for plugin in fresh for stage in plugin.stages}
        last = max((at[id(plugin)] for plugin in fresh), default=0)
        early = [p for p in self._plugins[:last] if p.instance is not None]
        if any(p not in fresh and shared & set(p.stages) for p in early):
            for plugin in reversed(early):
                name = self._manager.get_name(plugin.instance)
                self._manager.unregister(plugin.instance)
                self._manager.register(plugin.instance, name)

    def _load(self, plugin: Plugin) -> None:
        try:
            factory = cast(Callable[[PluginContext], Any], plugin.factory.load())
            instance = factory(self._context(plugin))
            _check_law(instance)
            name = f"{KINDS[plugin.stages[0]]}.{plugin.name}"
            if self._manager.has_plugin(name):
                raise ValueError(f"another distribution has a {KINDS[plugin.stages[0]]} plugin of this name")
            try:
                self._manager.register(instance, name)
                self._manager.check_pending()
            except Exception:
                if self._manager.is_registered(instance):
                    self._manager.unregister(instance)
                raise
            plugin.instance = instance
        except Invalid:
            raise  # a mistake in the configuration file is the user's to mend, not a broken plugin
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the border to a stranger's code
            plugin.broken = f"it failed to load: {_one_line(error)}"
            self._log.warning("plugin.broken", plugin=plugin.name, origin=plugin.origin, reason=_one_line(error))

    def _context(self, plugin: Plugin) -> PluginContext:
        kind = KINDS[plugin.stages[0]]
        # The parents of what it makes for itself, whatever the umask; a root that isn't made yet is nobody's fault.
        for directory in (self._paths.root / kind, self._paths.run / kind):
            with contextlib.suppress(OSError):
                directory.mkdir(mode=0o700, exist_ok=True)
        return PluginContext(
            name=plugin.name,
            state_dir=self._paths.root / kind / plugin.name,
            run_dir=self._paths.run / kind / plugin.name,
            settings=self._config.settings(plugin.name),
            instance=self._paths.instance,
            engine_dirs=(self._paths.root, self._paths.run),
            idle=self._config.idle_seconds(),
        )


def _group(found: list[EntryPoint], config: Config) -> list[Plugin]:
    """One plugin for each factory and name, in the order in which they shall be asked."""
    stages: dict[tuple[str, str, str], list[str]] = {}
    points: dict[tuple[str, str, str], EntryPoint] = {}
    for point in found:
        stage = point.group.removeprefix("scow.")
        if stage in STAGES and point.name not in config.plugin_block:
            key = (point.name, point.module, point.attribute)
            stages.setdefault(key, []).append(stage)
            points[key] = point
    first = {name: position for position, name in enumerate(config.plugin_order)}
    order = sorted(stages, key=lambda key: (first.get(key[0], len(first)), key))
    return [Plugin(key[0], points[key], tuple(sorted(stages[key], key=STAGES.index))) for key in order]


def _check_law(instance: object) -> None:
    """Refuse `async def` hooks: see hookspecs, "claim, then run"."""
    for stage in STAGES:
        function = getattr(instance, stage, None)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{type(instance).__name__}.{stage} is an async function; a hook is a plain function that returns "
                "None or something that has not started yet"
            )


def _one_line(error: BaseException) -> str:
    text = error.message if isinstance(error, ScowError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
