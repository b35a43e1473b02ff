"""The Python client makes every step of the script that all clients make."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from conformance import Failed, Runner, Variables, import_contracts
from conformance import run as run_steps
from tests.clients.harness import CLIENTS, assert_conforms
from tests.live import live_server, live_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUNNER: list[str | Path] = [sys.executable, CLIENTS / "python" / "conformance.py"]


async def test_every_step_of_the_script_passes(tmp_path: Path) -> None:
    await assert_conforms(RUNNER, tmp_path / "data")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    import_contracts()
    async with live_server(live_settings(tmp_path_factory.mktemp("runner") / "data")) as live:
        address = live.running.grpc_address
        yield Runner(address, address, Variables())


ME: dict[str, Any] = {
    "say": "nobody is told who they are",
    "call": "steward.auth.v1.AuthService/GetMe",
    "send": {},
}
HEALTH: dict[str, Any] = {
    "say": "the server is well",
    "call": "steward.system.v1.SystemService/GetHealth",
    "send": {},
}
LOGIN: dict[str, Any] = {
    "say": "a sign-in has two fields",
    "call": "steward.auth.v1.AuthService/Login",
    "send": {},
}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (ME | {"answer": {}}, "expected an answer"),
        (ME | {"refusal": {"kind": "Forbidden"}}, 'the refusal.kind to be "Forbidden"'),
        (ME | {"refusal": {"code": "NOT_FOUND"}}, 'the refusal.code to be "NOT_FOUND"'),
        (ME | {"refusal": {"reason": "OTHER"}}, 'the refusal.reason to be "OTHER"'),
        (ME | {"refusal": {"retry_after": True}}, "the refusal.retry_after to be true"),
        (LOGIN | {"refusal": {"fields": ["username"]}}, "1 elements in the refusal.fields, not 2"),
        (HEALTH | {"refusal": {}}, "expected to be refused"),
        (HEALTH | {"answer": {"status": "ill"}}, 'the answer.status to be "ill"'),
        (HEALTH | {"answer": {"status": {"$match": "heal"}}}, "the answer.status to be"),
        (HEALTH | {"answer": {"status": None}}, "the answer.status to be null"),
        (HEALTH | {"answer": {"humour": {"$any": True}}}, "the answer.humour to be"),
        (HEALTH | {"answer": {"ledger": {"balanced": 1}}}, "the answer.ledger.balanced to be 1"),
        (HEALTH | {"answer": {}, "at_least_s": 60}, "it took"),
        (HEALTH | {"answer": {}, "at_most_s": 0}, "it took"),
        (HEALTH | {"answer": {"status": "${NOBODY}"}}, "NOBODY"),
        (HEALTH | {"call": "steward.system.v1.SystemService/Heal", "answer": {}}, "Heal"),
    ],
)
async def test_a_step_that_goes_otherwise_fails_and_says_why(
    wrong: dict[str, Any], told: str, runner: Runner
) -> None:
    with pytest.raises((Failed, LookupError), match=re.escape(told)):
        await runner.make(wrong)


async def test_the_runner_stops_at_the_first_step_that_fails(
    runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    good = HEALTH | {"say": "first", "answer": {"status": "healthy"}}
    bad = HEALTH | {"say": "second", "answer": {"status": "ill"}}
    passed = await run_steps(runner, [good, bad, good | {"say": "third"}])

    # The server, in the same process, writes its log between them.
    printed = re.findall(r"^(?:1|ok|not ok|#).*$", capsys.readouterr().out, re.MULTILINE)
    assert not passed
    assert printed == [
        "1..3",
        "ok 1 - first",
        "not ok 2 - second",
        '# expected the answer.status to be "ill", and it is "healthy"',
    ]
