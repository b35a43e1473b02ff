"""What runs cannot be started with, over REST; and texts that are taken as they are."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.ignition.scene import over, save_playbooks
from tests.live import Live, live_server, live_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREE = """name: Free
version: "1"
parameters:
  - {name: facts, type: dict, default: {}}
  - {name: text, type: string, default: ""}
  - {name: count, type: integer, default: 0}
  - {name: share, type: float, default: 0}
steps:
  - {id: say, name: Say, type: utility.log, parameters: {message: "{{ text }}", level: debug}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    data_dir: Path = tmp_path_factory.mktemp("bad input")
    save_playbooks(data_dir)
    (data_dir / "playbooks" / "runs" / "free.yaml").write_text(FREE)
    async with live_server(live_settings(data_dir)) as opened:
        yield opened


async def start(house: Live, parameters: str) -> tuple[int, Any]:
    """The status and the answer to a start with parameters that are written so."""
    body = f'{{"playbook_path": "runs/free.yaml", "parameters": {parameters}}}'
    headers = house.admin.headers | {"content-type": "application/json"}
    url = f"{house.api.base_url}/api/executions"
    sent = io.BytesIO(body.encode())
    async with house.api.session.post(url, data=sent, headers=headers) as answer:
        return answer.status, await answer.json()


DEEP = 5_000
NOT_JSON = "the body is not JSON"


@pytest.mark.parametrize(
    ("parameters", "field", "text"),
    [
        # What no JSON is, or is too much of it: the place is told.
        ('{"facts": %s}' % ("[" * DEEP + "]" * DEEP), "", "depth limit exceeded"),
        ('{"facts": %s}' % ('{"a":' * DEEP + "1" + "}" * DEEP), "", "depth limit exceeded"),
        ('{"facts": %s}' % ('{"a":' * 90 + "1" + "}" * 90), "", "deeper than 30 levels"),
        ('{"facts": {"a": [%s1]}}' % ("1," * 500_000), "", "more than 500000 values"),
        ('{"share": NaN}', "", NOT_JSON),
        ('{"share": Infinity}', "", NOT_JSON),
        ('{"facts": {"a": -Infinity}}', "", NOT_JSON),
        ('{"share": 1e999}', "", "number is infinity"),
        (r'{"text": "\ud800"}', "", "no low surrogate"),
        ('{"text": "a", "text": "b"}', "", "the key 'text' twice"),
        # Values: the parameter is told.
        ('{"count": 1e300}', "parameters.count", "must be a whole number"),
        ('{"count": 9007199254740993}', "parameters.count", "must be a whole number"),
        ('{"count": %s}' % ("9" * 300), "parameters.count", "must be a whole number"),
        ('{"share": "NaN"}', "parameters.share", "must be a number"),
        ('{"text": "%s"}' % ("x" * 10_001), "parameters.text", "at most 10000 characters"),
        # Names.
        (json.dumps({f"p{n}": n for n in range(51)}), "parameters", "51 parameters; at most 50"),
        (json.dumps({"n" * 256: 1}), "parameters." + "n" * 255, "has no parameter"),
        (json.dumps({"n\u0007": 1}), "parameters.n\u0007", r"has no parameter 'n\x07'"),
        (json.dumps({"": 1}), "parameters.", "has no parameter ''"),
        (json.dumps({"../text": 1}), "parameters.../text", "has no parameter"),
    ],
)
async def test_what_is_wrong_is_told(house: Live, parameters: str, field: str, text: str) -> None:
    status, body = await start(house, parameters)
    detail = body["detail"]
    assert (status, detail["error"]) == (400, "validation_error")
    told = detail["details"].get("fields", {})
    assert [*told] == ([field] if field else [])
    assert text in (told[field] if field else detail["message"])
    assert len(detail["message"]) < 1_000


async def test_ten_megabytes_are_refused_whole(house: Live) -> None:
    status, body = await start(house, json.dumps({"text": "x" * 10_000_000}))
    assert (status, body["detail"]["error"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    "text",
    [
        "{{ credential.my-gateway.password }}",
        "{{ text }} {{ step.say.logged }}",
        "a\u0000b\u0007c\r\nd\u2028e\u202e",
        "<script>alert(1)</script> '; DROP TABLE execution; --",
        "x" * 10_000,
    ],
)
async def test_a_text_is_a_text_whatever_stands_in_it(house: Live, text: str) -> None:
    """It is no template, no markup and no end of anything."""
    status, begun = await start(house, json.dumps({"text": text}))
    assert status == 200, begun
    path = f"/api/executions/{begun['execution_id']}"
    async with asyncio.timeout(10):
        while not over(seen := (await house.admin.call("GET", path)).body):
            await asyncio.sleep(0.01)
    assert seen["status"] == "completed"
    assert seen["parameters"]["text"] == text
    assert seen["step_results"][0]["output"]["logged"] == text
