"""Log lines: their fields, and that no secret is among them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from steward_server import logs

SECRETS = [
    "ic_0123456789abcdef_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE",
    "rt_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE",
    "sk-proj-0123456789abcdef",
    "sk-ant-api03-0123456789abcdef",
    "agentbox_0123456789abcdef",
    "itk_0123456789abcdef",
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl",
    "Bearer whatever-it-is",
    "authorization: bearer abc123",
]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was found."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:], root.level = handlers, level
    for name in logs.OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.configure(**configured)


def line(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().err)


def test_a_json_line_has_time_level_event_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    structlog.get_logger("steward_server.x").info("http.request", endpoint="/step", latency_ms=1.5)
    found = line(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found.pop("timestamp"))
    assert found == {
        "level": "INFO",
        "event": "http.request",
        "endpoint": "/step",
        "latency_ms": 1.5,
    }


def test_lines_of_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logging.getLogger("asyncio").warning("slow: %s", "sk-live-0123456789")
    found = line(capsys)
    assert (found["level"], found["event"]) == ("WARNING", "slow: ***")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(capsys: pytest.CaptureFixture[str], level: str, shown: list[str]) -> None:
    logs.configure("json", level)
    log = structlog.get_logger("steward_gateway.x")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [found["event"] for found in lines] == shown


def test_libraries_are_not_heard_at_debug_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug")
    logging.getLogger("aiosqlite").debug("INSERT INTO t VALUES (%s)", "a secret")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_written(
    capsys: pytest.CaptureFixture[str], log_format: str, secret: str
) -> None:
    logs.configure(log_format, "info")
    log = structlog.get_logger("steward_server.x")
    log.info(
        "thing.done",
        told=f"he said {secret!r}, twice",
        deep={"list": [secret, {"Authorization": secret}], "tuple": (secret,)},
        password="plain words",
    )
    try:
        raise ValueError(f"no such key: {secret}")
    except ValueError:
        log.exception("thing.failed")
    written = capsys.readouterr().err
    assert "he said" in written
    assert "ValueError" in written
    assert secret not in written
    assert secret.rsplit(maxsplit=1)[-1] not in written
    assert "plain words" not in written


def test_values_called_like_secrets_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    facts = dict.fromkeys(logs.SECRET_NAMES, "plain words")
    structlog.get_logger("steward_server.x").info("thing.done", **facts)
    assert "plain words" not in capsys.readouterr().err


def test_tracebacks_do_not_show_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    sealed = "words that look like nothing special"
    try:
        raise KeyError("lost")
    except KeyError as error:
        structlog.get_logger("steward_server.x").error("thing.failed", exc_info=error)
    written = capsys.readouterr().err
    assert "KeyError: 'lost'" in written
    assert sealed not in written


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_value_cannot_forge_a_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    logs.configure(log_format, "info")
    structlog.get_logger("steward_server.x").info("thing.done", name="a\n2026 [error] forged")
    assert len(capsys.readouterr().err.splitlines()) == 1
