"""Log lines: JSON for machines, text for people, and never a secret in either."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET = re.compile(
    r"\b(ic|rt|sk|agentbox|itk)[_-][A-Za-z0-9_\-]{8,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+|"
    r"(?i:\bbearer\s+)[^\s\"',}]+"
)
"""What our credentials and the providers' keys look like."""

SECRET_NAMES = frozenset(
    {"password", "api_key", "token", "ic_token", "access_token", "refresh_token", "authorization"}
)


def configure(log_format: str, level: str) -> None:
    """Set up logging for the process, to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _upper_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.format_exc_info,
        conceal,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(getattr(logging, level.upper()), logging.INFO))


def conceal(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out, whatever they are called and wherever they stand in a text."""
    del logger, method
    for key, value in event.items():
        if key in SECRET_NAMES:
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = SECRET.sub("***", value)
    return event


def _upper_level(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    del logger, method
    event["level"] = str(event.get("level", "info")).upper()
    return event
