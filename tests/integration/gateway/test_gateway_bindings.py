"""The table of bindings, sent byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steward_gateway.app import RunningGateway
from tests.integration.gateway.binding_cases import SECTIONS, Bad, Row
from tests.raw_http import RawAnswer, RawHttp

TRANSCODED = Path(__file__).with_name("transcoded.json")
PRESENT_AT_ZERO = {"maybe"}
"""Fields that say whether they were given."""


def request(target: str, body: str | None) -> bytes:
    head = f"{target} HTTP/1.1\r\nHost: x\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    data = body.encode()
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}\r\n".encode() + data


def filled(value: Any) -> Any:
    """What of an answer says anything."""
    if isinstance(value, list):
        return [filled(item) for item in value]
    if not isinstance(value, dict):
        return value
    told = {name: filled(item) for name, item in value.items()}
    return {
        name: item
        for name, item in told.items()
        if item or (item is not None and name in PRESENT_AT_ZERO)
    }


def outcome(answer: RawAnswer, expected: Any) -> Any:
    """What came, in the form in which it was expected."""
    if answer.status == 400 and isinstance(expected, Bad):
        return Bad(answer.fields if expected.fields else {})
    if answer.status != 200:
        return answer.status
    # Maps and structs are shown as they are: what is empty in them was given.
    plain = answer.json
    if isinstance(expected, dict):
        return {
            name: plain[name] if name in ("by_name", "struct") else item
            for name, item in filled(plain).items()
        }
    return plain


@pytest.mark.parametrize("transport", ["in_process"], indirect=True)
@pytest.mark.parametrize("section", list(SECTIONS))
async def test_a_request_binds_as_the_rules_say(gateway: RunningGateway, section: str) -> None:
    wrong: list[tuple[Row, Any]] = []
    async with RawHttp(gateway.port) as http:
        for row in SECTIONS[section]:
            target, body, expected = row
            await http.send(request(target, body))
            got = outcome(await http.answer(target[:4].strip()), expected)
            if got != expected:
                wrong.append((row, got))
    assert wrong == []


def test_the_table_is_long_and_says_nothing_twice() -> None:
    rows = [(target, body) for section in SECTIONS.values() for target, body, _ in section]
    assert len(rows) == len(set(rows))
    assert len(rows) >= 150


@pytest.mark.parametrize("transport", ["in_process"], indirect=True)
async def test_what_another_client_makes_of_a_message_leads_back_to_it(
    gateway: RunningGateway,
) -> None:
    """The requests are what `google.api_core.path_template.transcode` (2.44.0) made of messages.

    They are written down, because the package brings nine others along.
    """
    rows = json.loads(TRANSCODED.read_text(encoding="utf-8"))
    wrong = []
    async with RawHttp(gateway.port) as http:
        for row in rows:
            body = None if row["body"] is None else json.dumps(row["body"])
            await http.send(request(row["target"], body))
            answer = await http.answer()
            if answer.status != 200 or filled(answer.json) != row["message"]:
                wrong.append((row, answer))
    assert wrong == []
    assert len(rows) == 160
