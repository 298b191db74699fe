"""trio helpers for plugins' work modules."""

from __future__ import annotations

from scow.aio import cleanup

__all__ = ["cleanup"]
