"""What all of the engine's parts share: directories, configuration, plugins, state."""

from __future__ import annotations

from dataclasses import dataclass

from scow.config import Config
from scow.content.store import ContentStore
from scow.events import EventLog
from scow.paths import Paths
from scow.plugins import Registry
from scow.stages import Stages
from scow.state.database import Database


@dataclass(frozen=True, slots=True)
class Core:
    """One open engine's means."""

    paths: Paths
    config: Config
    #: The configuration file named on the command line, for the supervisors that this engine starts.
    config_file: str | None
    registry: Registry
    events: EventLog
    stages: Stages
    content: ContentStore
    database: Database
