"""The configuration files: /etc/scow/config.toml, then the user's, then the one named by --config.

Later files override earlier ones key by key; tables are merged. A key that nobody knows is refused by name, with
the file it stands in.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from scow.errors import Invalid

SYSTEM_FILE: Final = Path("/etc/scow/config.toml")


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of builds can be configured: how much stays of them."""

    #: The most bytes that the build cache may take; 0: a tenth of its disk; -1: no limit.
    cache_max_bytes: Annotated[int, msgspec.Meta(ge=-1)] = 0
    #: Seconds after which what nobody has used goes; 0: never.
    cache_max_age: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be configured. The same keys stand in docs/configuration.md."""

    #: The storage plugin (unpack and mount); empty: the first that works here.
    storage: str = ""
    #: The network plugin; empty: the first that works here.
    network: str = ""
    #: The runtime plugin (exec); empty: the first that works here.
    runtime: str = ""
    #: Plugins asked before all others, in this order.
    plugin_order: tuple[str, ...] = ()
    #: Plugins that are never loaded.
    plugin_block: tuple[str, ...] = ()
    #: debug, info, warning or error.
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["console", "json"] = "console"
    #: How many layers are fetched at once.
    parallel_fetches: Annotated[int, msgspec.Meta(ge=1)] = 3
    #: Seconds after which an idle launcher leaves.
    launcher_idle: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    #: Limits of the build cache.
    build: Build = Build()
    #: Host names and aliases → how to reach that registry (docs/configuration.md).
    registries: dict[str, dict[str, Any]] = {}
    #: A table for each plugin, checked by the plugin.
    plugins: dict[str, dict[str, Any]] = {}

    def idle_seconds(self) -> float:
        """How long what is kept for the next command stays: SCOW_WARM_IDLE, else `launcher_idle`."""
        try:
            return float(os.environ["SCOW_WARM_IDLE"])
        except (KeyError, ValueError):
            return self.launcher_idle

    def settings(self, plugin: str) -> dict[str, Any]:
        """The piece that concerns one plugin. `registries` is the registry plugin's, written where people look."""
        piece = dict(self.plugins.get(plugin, {}))
        if plugin == "registry" and self.registries:
            piece["registries"] = self.registries
        return piece


def config_files(explicit: Path | None) -> list[Path]:
    """The files that are read, in their order; the explicit one must exist, the others may."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "scow" / "config.toml"
    found = [path for path in (SYSTEM_FILE, user) if path.is_file()]
    return [*found, explicit] if explicit else found


def load_config(explicit: Path | None = None) -> Config:
    """Read and merge the configuration. Raises Invalid with file and key."""
    merged: dict[str, Any] = {}
    for path in config_files(explicit):
        table = _read(path)
        _check(table, path)
        merged = _merge(merged, table)
    return msgspec.convert(merged, type=Config)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise Invalid(f"configuration file {path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"configuration file {path}: {error}") from None


def _check(table: dict[str, Any], path: Path) -> None:
    known = {field.name for field in msgspec.structs.fields(Config)}
    for key in table:
        if key not in known:
            raise Invalid(
                f"configuration file {path}: unknown key {key!r}", hint=f"known are {', '.join(sorted(known))}"
            )
    try:
        msgspec.convert(table, type=Config)
    except msgspec.ValidationError as error:
        raise Invalid(f"configuration file {path}: {error}") from None


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
