"""All targets."""

from __future__ import annotations

from typing import Final

from tests.fuzz import answers, documents, layers, texts, transports
from tests.fuzz.target import Target

TARGETS: Final[tuple[Target, ...]] = (
    *layers.TARGETS,
    *documents.TARGETS,
    *texts.TARGETS,
    *transports.TARGETS,
    *answers.TARGETS,
)
