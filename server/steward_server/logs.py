"""Log lines: JSON for machines, text for people, and never a secret in either."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import orjson
import structlog

from steward_server.calls import CURRENT

SECRET = re.compile(
    r"\b(ic|rt|sk|agentbox|itk)[_-][A-Za-z0-9_\-]{8,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+|"
    r"(?i:\bbearer\s+)[^\s\"',}]+"
)
"""What our credentials and the providers' keys look like."""

SECRET_NAMES = frozenset(
    {
        "access_token",
        "admin_password",
        "api_key",
        "authorization",
        "ic_token",
        "ip_token",
        "jwt_mint_key",
        "jwt_secret",
        "password",
        "refresh_token",
        "static_token",
        "token",
        "x-api-key",
        "x-ic-key",
    }
)

OUR_LOGGERS = ("steward_server", "steward_gateway")


def configure(log_format: str, level: str) -> None:
    """Set up logging for the process, to standard error."""
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        _name_call,
        structlog.stdlib.add_log_level,
        _upper_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.format_exc_info,
        conceal,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The usual one prints local variables, and those are what `conceal` cannot see.
            exception_formatter=structlog.dev.plain_traceback,
        )
        if is_text
        else structlog.processors.JSONRenderer(serializer=_json)
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
    wanted = getattr(logging, level.upper())
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(wanted)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # At debug level the database library prints every statement with its values.
    root.setLevel(max(wanted, logging.INFO))


def _name_call(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say which call a line belongs to."""
    del logger, method
    if (call := CURRENT.get()) is not None:
        event.setdefault("request_id", call.request_id)
        event.setdefault("endpoint", call.endpoint)
        if call.agent_id:
            event.setdefault("agent_id", call.agent_id)
    return event


def conceal(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out, whatever they are called and wherever they stand in a text."""
    del logger, method
    for key, value in event.items():
        event[key] = _concealed(key, value)
    return event


def _concealed(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return "***" if name in SECRET_NAMES else SECRET.sub("***", value)
    if isinstance(value, Mapping):
        return {key: _concealed(str(key).lower(), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_concealed(name, each) for each in value]
    return value


def _json(event: Any, **options: Any) -> str:
    return orjson.dumps(event, default=options["default"]).decode()


def _upper_level(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    del logger, method
    event["level"] = str(event.get("level", "info")).upper()
    return event
