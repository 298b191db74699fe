"""Dockerfiles become images: read, planned, and solved on the engine's workbench.

Stands on `scow.engine.building` and `scow.engine.builders`; the kernel knows nothing of Dockerfiles. Importing this
package costs nothing: what works is imported when a builder is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scow.engine.builders import Builder


def builder() -> Builder:
    """The builder, for the entry point group `scow.build`."""
    from scow_plugins.builder._builder import DockerfileBuilder

    return DockerfileBuilder()
