"""System calls for plugins' work modules, with errno as OSError. See the modules of `scow.sys` for each."""

from __future__ import annotations

from scow.sys.bpf import *  # noqa: F403
from scow.sys.credentials import *  # noqa: F403
from scow.sys.loop import *  # noqa: F403
from scow.sys.mounts import *  # noqa: F403
from scow.sys.namespaces import *  # noqa: F403
from scow.sys.paths import *  # noqa: F403
from scow.sys.process import *  # noqa: F403
