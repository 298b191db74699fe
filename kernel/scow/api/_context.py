"""What a plugin's factory is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from scow.errors import Invalid

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A probe's answer: why the plugin can't work on this machine, in a sentence that a user can act on."""

    reason: str


@dataclass(frozen=True, slots=True)
class PluginContext:
    """A plugin's place in one engine. Two engines in one process have two contexts; there is no module state.

    `state_dir` survives reboots, `run_dir` doesn't; both are private to the plugin and are made at first use
    (`context.state_dir.mkdir(parents=True, exist_ok=True)`). `instance` is short, differs between engines with
    different roots, is empty for the default root, and goes into the names of kernel objects (bridges, tables).
    """

    name: str
    state_dir: Path
    run_dir: Path
    settings: Mapping[str, Any]
    instance: str = ""
    #: Root and run directories of the whole engine (what a container of `host:` must not see).
    engine_dirs: tuple[Path, ...] = ()
    #: Seconds for which it is worth while to keep what the next command may want: as long as an idle launcher stays.
    idle: float = 0.0

    def config(self, shape: type[T]) -> T:
        """The plugin's piece of the configuration file as `shape`, a dataclass or msgspec.Struct with defaults.

        Raises Invalid, naming the key, for an unknown key or a wrong type.
        """
        known = (
            {field.name for field in msgspec.structs.fields(shape)}
            if issubclass(shape, msgspec.Struct)
            else set(getattr(shape, "__dataclass_fields__", {}))
        )
        for key in self.settings:
            if key not in known:
                raise Invalid(
                    f"configuration: plugins.{self.name} has no key {key!r}", hint=f"it knows {sorted(known)}"
                )
        try:
            return msgspec.convert(dict(self.settings), type=shape)
        except msgspec.ValidationError as error:
            raise Invalid(f"configuration: plugins.{self.name}: {error}") from None

    @property
    def log(self) -> FilteringBoundLogger:
        """A structlog logger with the plugin's name bound. structlog is imported here, not before."""
        import structlog

        logger: FilteringBoundLogger = structlog.get_logger("scow").bind(plugin=self.name)
        return logger
