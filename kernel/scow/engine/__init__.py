"""The engine facade: scow's whole public Python API (`open_engine`, `Engine` and the types it gives and takes)."""

from __future__ import annotations

from scow.engine.copying import Place, pack, renamer, unpack_into
from scow.engine.facade import Engine, Session, open_engine
from scow.engine.types import (
    Check,
    Collection,
    ContainerUsage,
    CreateRequest,
    Damage,
    Decision,
    DiskUsage,
    EngineInfo,
    Event,
    HistoryLine,
    ImageInfo,
    ImageUsage,
    Loaded,
    LogRecord,
    Output,
    PlatformEntry,
    PluginInfo,
    Progress,
    PushResult,
    Removal,
)

__all__ = [
    "Check",
    "Collection",
    "ContainerUsage",
    "CreateRequest",
    "Damage",
    "Decision",
    "DiskUsage",
    "Engine",
    "EngineInfo",
    "Event",
    "HistoryLine",
    "ImageInfo",
    "ImageUsage",
    "Loaded",
    "LogRecord",
    "Output",
    "Place",
    "PlatformEntry",
    "PluginInfo",
    "Progress",
    "PushResult",
    "Removal",
    "Session",
    "open_engine",
    "pack",
    "renamer",
    "unpack_into",
]
