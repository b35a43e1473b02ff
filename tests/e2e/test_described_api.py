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

SHADOWED = {
    # PATCH and DELETE reach /api/v1/agents/{agent_id} at this path.
    "/api/v1/agents/provider-key",
}

METHODS_NOT_ASKED = """
[[operations]]
include-path = "{path}"
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false
"""

MISSING_IS_FORBIDDEN = """
[[operations]]
include-path = "{path}"
checks.missing_required_header.enabled = false
"""
"""Of paths whose document knows no 401, which is what the check asks for."""

SHORT, LONG = 1, 200
"""How many requests are made up for an operation, beside its examples and the edges."""

LONG_RUN_CASES = 10_000

# The description of server-sent events is of the data of each, not of the event around it.
AS_LINES = {"Accept": "application/x-ndjson", "X_Request_Timeout": "1"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of Schemathesis came to."""

    exit_code: int
    output: str
    cases: int
    operations: int


async def run(
    document: Document, whole: Document, folder: Path, api: Api, *, examples: int, **headers: str
) -> Outcome:
    """Call what is in a document, which may be a part of the whole."""
    described, report = folder / "openapi.json", folder / "report.json"
    described.write_text(json.dumps(document))
    # Where operations of a path are left out, the server knows more methods than are told.
    parts = {p for p, item in document["paths"].items() if len(item) < len(whole["paths"][p])}
    config = [METHODS_NOT_ASKED.format(path=path) for path in sorted(SHADOWED | parts)]
    config += [
        MISSING_IS_FORBIDDEN.format(path=path)
        for path, item in document["paths"].items()
        if any(each.get("security") and "401" not in each["responses"] for each in item.values())
    ]
    (folder / "schemathesis.toml").write_text("".join(config))
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
    that is left out, as docs/api.md says. The ids in examples become those of things that exist;
    where one is deleted, that of a thing nothing else is tried on, `deleted …`. `If-Match` is not
    sent: one that is no version is refused before the credential is looked at, which is taken for
    a credential that is not asked for.
    """
    strict: Document = json.loads(json.dumps(document))
    for name, schema in strict["components"]["schemas"].items():
        if name.endswith(("Request", ".Input")):
            schema["properties"] = {k: loosened(v) for k, v in schema["properties"].items()}
        elif schema.get("type") == "object":
            schema["additionalProperties"] = False
    for path, verb, operation in operations(strict):
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
                name = parameter["name"]
                is_deleted = verb == "delete" and path.endswith(f"{{{name}}}")
                known = (f"deleted {name}", name) if is_deleted else (name,)
                held = [ids[each] for each in known if each in ids]
                parameter["example"] = next(iter(held), parameter["example"])
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
    for_agents: Document
    """The same, with ids of what the agent has."""


ENVIRONMENTS = {
    # Where this machine can make some; elsewhere it is described how they are refused.
    "STEWARD_ENVIRONMENTS_DRIVER": "auto",
    # However many are asked for, there are never more than these, and they are small.
    "STEWARD_ENVIRONMENTS_MAX_TOTAL": "8",
    "STEWARD_ENVIRONMENTS_MAX_CPU": "500m",
    "STEWARD_ENVIRONMENTS_MAX_MEMORY": "64Mi",
    "STEWARD_ENVIRONMENTS_MAX_STORAGE": "16Mi",
    "STEWARD_ENVIRONMENTS_MAX_SNAPSHOTS_PER_USER": "4",
    "STEWARD_ENVIRONMENTS_SPARE_MACHINES": "0",
    "STEWARD_ENVIRONMENTS_STOP_GRACE_S": "0",
    # A command that waits for something is not waited for.
    "STEWARD_ENVIRONMENTS_MAX_EXEC_TIMEOUT_S": "30",
    "STEWARD_RATES_ENVIRONMENT_CREATION_PER_MINUTE": "0",
    "STEWARD_RATES_COMMAND_EXECUTION_PER_MINUTE": "0",
}


async def create_environment(api: Api) -> str:
    """One that runs, for the examples; where none can be made, an id that nothing has."""
    health = (await api.call("GET", "/api/v1/health")).body["environments"]
    if not health["usable"]:
        return "env-00000000000000000000000000000000"
    resources = {"cpu": "500m", "memory": "64Mi", "storage": "16Mi"}
    body = {"name": "described", "image": "host", "resources": resources, "timeout": 86_400}
    made = await api.call("POST", "/api/v1/environments", body)
    assert made.status == 201, made
    path = f"/api/v1/environments/{made.body['id']}"
    async with asyncio.timeout(20):
        while (await api.call("GET", path)).body["status"] == "pending":
            await asyncio.sleep(0.02)
    return str(made.body["id"])


async def delete_environments(admin: Api) -> None:
    listed = await admin.call("GET", "/api/v1/environments?limit=1000")
    assert listed.status == 200, listed
    for each in listed.body["environments"]:
        await admin.call("DELETE", f"/api/v1/environments/{each['id']}?force=true")


@pytest.fixture
async def described(tmp_path: Path) -> Any:
    server = await ServerProcess(
        tmp_path / "data",
        STEWARD_AUTH_LOGINS_PER_MINUTE="0",
        STEWARD_INFERENCE_JWT_ENABLED="1",
        STEWARD_INFERENCE_JWT_SECRET="of-this-test-and-long-enough-to-be-one",
        **ENVIRONMENTS,
    ).start()
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(f"http://{server.http_address}", session)
            admin = await api.sign_in()
            await create_provider(admin)
            agent = await create_agent(admin, budget_usd=1000)
            borrower = api.acting_as(X_IC_Key=agent.ic_token)
            lease = await borrower.call("POST", "/api/budget/handshake", {})
            other = await create_agent(admin, name="other")
            document = (await api.call("GET", "/openapi.json")).body
            ids = {
                "agent_id": other.agent_id,
                "token_id": other.token_id,
                "lease_id": lease.body["lease_id"],
            }
            try:
                documents = [
                    strictly(
                        document,
                        ids
                        | {
                            "environment_id": await create_environment(each),
                            "deleted environment_id": await create_environment(each),
                        },
                    )
                    for each in (admin, borrower)
                ]
                yield Described(api, admin, agent, *documents)
            finally:
                await delete_environments(admin)
    finally:
        server.stop()


async def check(described: Described, folder: Path, examples: int, *, whole: bool) -> int:
    """Run as the administrator, as an agent, and over streams; the count of requests.

    Unless it is the whole, aliases are left out, and agents call only what people cannot.
    """
    api, every = described.api, described.document

    def shown(document: Document, scheme: str, wanted: Any) -> Document:
        called = only(document, lambda each: whole or not each.get("deprecated"))
        return as_shown_to(only(called, wanted), scheme)

    def is_plain(operation: Document) -> bool:
        return is_called(operation) and not streams(operation)

    def is_for_agents(operation: Document) -> bool:
        taken = operation["security"]
        is_theirs = {"icToken": []} in taken and (whole or {"accessToken": []} not in taken)
        return is_theirs and is_plain(operation)

    for_agents = shown(described.for_agents, "icToken", is_for_agents)
    for_people = shown(every, "accessToken", is_plain)
    endless = shown(every, "accessToken", streams)
    agent: dict[str, str] = {"X_IC_Key": described.agent.ic_token}
    person: dict[str, str] = {"Authorization": described.admin.headers["authorization"]}
    runs = [
        # First: an administrator can end the agent's token.
        await run(for_agents, every, folder, api, examples=examples, **agent),
        # A stream ends by itself only at its deadline.
        await run(endless, every, folder, api, examples=1, **AS_LINES, **person),
        await run(for_people, every, folder, api, examples=examples, **person),
    ]
    for outcome in runs:
        assert outcome.exit_code == 0, outcome.output
    assert runs[0].operations == len(list(operations(for_agents)))
    assert runs[2].operations == len(list(operations(for_people)))
    assert (await api.call("GET", "/health")).body["ledger"]["balanced"]
    for who, outcome in zip(("agent", "stream", "administrator"), runs, strict=True):
        print(f"{who}: {outcome.cases} requests of {outcome.operations} operations")
    return sum(outcome.cases for outcome in runs)


async def test_every_answer_is_as_described(described: Described, tmp_path: Path) -> None:
    assert await check(described, tmp_path, SHORT, whole=False) > 500


@pytest.mark.proof
async def test_ten_thousand_answers_are_as_described(described: Described, tmp_path: Path) -> None:
    assert await check(described, tmp_path, LONG, whole=True) >= LONG_RUN_CASES
