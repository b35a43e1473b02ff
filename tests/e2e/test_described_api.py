"""The server against its own description: whatever is sent, it answers as /openapi.json says.

Schemathesis makes the requests, from the description alone: examples, edges of every schema, data
that fits and data that does not, sequences. What it finds that the description allows is a fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.live import Agent, Api, ServerProcess, create_agent, create_provider

Document = dict[str, Any]

NOT_CALLED = {
    # Ends the session everything else is called with.
    "Auth_Logout",
}

CHECKS_LEFT_OUT = {
    # That a request fits the schema is not all there is to it: rules over several fields, ids of
    # things that exist, texts without control characters are said in words.
    "positive_data_acceptance",
    # A creation that repeats a `request_id` gives what was created then, which may be gone by now.
    "ensure_resource_availability",
}

CONFIG = """
# PATCH and DELETE reach /api/v1/agents/{agent_id} at this path.
[[operations]]
include-path = "/api/v1/agents/provider-key"
checks.unsupported_method.enabled = false
"""

SHORT, LONG = 3, 200
"""How many requests are made up for an operation, beside its examples and the edges."""

LONG_RUN_CASES = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of Schemathesis came to."""

    exit_code: int
    output: str
    cases: int
    operations: int


async def run(
    document: Document, folder: Path, api: Api, *, examples: int, **headers: str
) -> Outcome:
    described, report = folder / "openapi.json", folder / "report.json"
    described.write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIG)
    sent = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(described)),
        *("--url", api.base_url, "--workers", "1", "--no-color", "--request-timeout", "20"),
        *("--max-examples", str(examples), "--continue-on-failure"),
        *("--exclude-checks", ",".join(sorted(CHECKS_LEFT_OUT))),
        *("--suppress-health-check", "all", "--generation-database", "none"),
        *("--report", "json", "--report-json-path", str(report)),
        *(part for header in sent for part in ("--header", header)),
    ]
    if examples == SHORT:  # the same requests every time; a long run makes up new ones
        command += ["--seed", "20261126"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"COLUMNS": "160"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    told = json.loads(report.read_text())
    return Outcome(
        process.returncode or 0,
        output.decode(),
        told["test_cases"]["generated"],
        told["operations"]["tested"],
    )


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


def only(document: Document, wanted: Any) -> Document:
    """The document with those operations for which `wanted` is true."""
    paths: Document = {}
    for path, verb, operation in operations(document):
        if wanted(operation):
            paths.setdefault(path, {})[verb] = operation
    return document | {"paths": paths}


def streams(operation: Document) -> bool:
    return any("text/event-stream" in r.get("content", {}) for r in operation["responses"].values())


def is_called(operation: Document) -> bool:
    return operation["operationId"].rstrip("_0123456789") not in NOT_CALLED


def strictly(document: Document, ids: dict[str, str]) -> Document:
    """The document as this server keeps it, which is stricter and looser than it promises.

    Answers hold no field that is not described, though callers are to bear new ones. Of requests
    it tells the one form to send; the gateway takes the text of a number, and null for a field
    that is left out, as docs/api.md says. The ids in examples become those of things that exist.
    `If-Match` is not sent: one that is no version is refused before the credential is looked at,
    which is taken for a credential that is not asked for.
    """
    strict: Document = json.loads(json.dumps(document))
    for name, schema in strict["components"]["schemas"].items():
        if name.endswith(("Request", ".Input")):
            schema["properties"] = {k: loosened(v) for k, v in schema["properties"].items()}
        elif schema.get("type") == "object":
            schema["additionalProperties"] = False
    for _, _, operation in operations(strict):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "properties" in content.get("schema", {}):
            held = content["schema"]["properties"]
            content["schema"]["properties"] = {k: loosened(v) for k, v in held.items()}
        if "example" in content:
            content["example"] = {k: ids.get(k, v) for k, v in content["example"].items()}
        if "parameters" in operation:
            sent = [each for each in operation["parameters"] if each["name"] != "If-Match"]
            operation["parameters"] = sent
        for parameter in operation.get("parameters", ()):
            if "example" in parameter:
                parameter["example"] = ids.get(parameter["name"], parameter["example"])
    return strict


def as_shown_to(document: Document, scheme: str) -> Document:
    """The document with one credential: what is open to another one as well is not told."""
    paths: Document = {}
    for path, verb, operation in operations(document):
        taken: list[Document] = [{scheme: []}] if {scheme: []} in operation["security"] else []
        paths.setdefault(path, {})[verb] = operation | {"security": taken}
    return document | {"paths": paths}


def loosened(schema: Document) -> Document:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    forms: list[Document] = [schema, {"type": "null"}]
    if "integer" in kinds:
        forms.append({"type": "string", "pattern": r"^-?[0-9]{1,20}$"})
    elif "number" in kinds:
        forms.append({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$"})
    elif "array" in kinds and "items" in schema:
        forms[0] = {**schema, "items": {"anyOf": [schema["items"]]}}
    return {"anyOf": forms}


@dataclass(frozen=True, slots=True)
class Described:
    """A server that has something in it, and its description."""

    api: Api
    admin: Api
    agent: Agent
    document: Document


@pytest.fixture
async def described(tmp_path: Path) -> Any:
    server = await ServerProcess(tmp_path / "data", STEWARD_AUTH_LOGINS_PER_MINUTE="0").start()
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(f"http://{server.http_address}", session)
            admin = await api.sign_in()
            await create_provider(admin)
            agent = await create_agent(admin, budget_usd=1000)
            borrower = api.acting_as(X_IC_Key=agent.ic_token)
            lease = await borrower.call("POST", "/api/budget/handshake", {})
            other = await create_agent(admin, name="other")
            found = await api.call("GET", "/openapi.json")
            ids = {
                "agent_id": other.agent_id,
                "token_id": other.token_id,
                "lease_id": lease.body["lease_id"],
            }
            yield Described(api, admin, agent, strictly(found.body, ids))
    finally:
        server.stop()


async def check(described: Described, folder: Path, examples: int, *, aliases: bool) -> int:
    """Run as the administrator, as an agent, and over streams; the count of requests."""
    api = described.api
    document = described.document
    if not aliases:
        document = only(document, lambda operation: not operation.get("deprecated"))
    plain = only(document, lambda operation: is_called(operation) and not streams(operation))
    for_agents = only(plain, lambda operation: {"icToken": []} in operation["security"])
    endless = only(document, streams)
    person = described.admin.headers["authorization"]
    ic_token = described.agent.ic_token
    runs = [
        # First: an administrator can end the agent's token.
        await run(
            as_shown_to(for_agents, "icToken"), folder, api, examples=examples, X_IC_Key=ic_token
        ),
        # A stream ends by itself only at its deadline.
        await run(
            as_shown_to(endless, "icToken"),
            folder,
            api,
            examples=1,
            X_IC_Key=ic_token,
            X_Request_Timeout="0.05",
        ),
        await run(
            as_shown_to(plain, "accessToken"), folder, api, examples=examples, Authorization=person
        ),
    ]
    for outcome in runs:
        assert outcome.exit_code == 0, outcome.output
    assert runs[0].operations == len(list(operations(for_agents)))
    assert runs[2].operations == len(list(operations(plain)))
    assert (await api.call("GET", "/health")).body["ledger"]["balanced"]
    for who, outcome in zip(("agent", "stream", "administrator"), runs, strict=True):
        print(f"{who}: {outcome.cases} requests of {outcome.operations} operations")
    return sum(outcome.cases for outcome in runs)


async def test_every_answer_is_as_described(described: Described, tmp_path: Path) -> None:
    assert await check(described, tmp_path, SHORT, aliases=False) > 500


@pytest.mark.proof
async def test_ten_thousand_answers_are_as_described(described: Described, tmp_path: Path) -> None:
    assert await check(described, tmp_path, LONG, aliases=True) >= LONG_RUN_CASES
