"""structlog's set-up: to standard error, as text for people or JSON for machines.

Loaded only when an engine opens: structlog imports rich where rich is installed, which costs 85 ms.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: What this process was set up with, so that a forked one need not do it again.
_configured: tuple[str, str, object] | None = None


def configure(level: str, form: str) -> None:
    """Set level (debug, info, warning, error) and form (console, json) for this process.

    `container` and `image` come in through `structlog.contextvars.bound_contextvars`.
    """
    global _configured
    if _configured == (level, form, sys.stderr):
        return
    _configured = (level, form, sys.stderr)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
