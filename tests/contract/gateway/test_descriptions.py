"""What is said of the shipped contracts is whole, valid, and true of the codecs that serve them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default
from openapi_spec_validator import OpenAPIV31SpecValidator

from steward.gateway.v1 import options_pb2
from steward_gateway.codec import Codecs, FieldErrors, Style
from steward_gateway.contracts import dialect_of, load_contracts, method_rule
from steward_gateway.describe.asyncapi import build_asyncapi
from steward_gateway.describe.comments import read_comments
from steward_gateway.describe.failing import failings
from steward_gateway.describe.openapi import build_openapi
from steward_gateway.routes import build_routes

Document = dict[str, Any]
CONTRACTS = load_contracts()
COMMENTS = read_comments(CONTRACTS.descriptor_set())
ROUTES = build_routes(CONTRACTS)


@pytest.fixture(scope="module")
def openapi() -> Document:
    return build_openapi(CONTRACTS, COMMENTS, "1.0.0")


@pytest.fixture(scope="module")
def asyncapi() -> Document:
    return build_asyncapi(CONTRACTS, COMMENTS, "1.0.0")


def operations(document: Document) -> list[Document]:
    return [operation for item in document["paths"].values() for operation in item.values()]


def media(document: Document) -> Iterator[tuple[str, Document]]:
    """Every body that has an example, with where it is."""
    responses = document["components"]["responses"]
    for operation in operations(document):
        found = [operation.get("requestBody", {})]
        for response in operation["responses"].values():
            name = response.get("$ref", "").rpartition("/")[2]
            found.append(responses[name] if name else response)
        for body in found:
            for content in body.get("content", {}).values():
                if "example" in content:
                    yield operation["operationId"], content


def test_it_is_openapi_3_1(openapi: Document) -> None:
    assert openapi["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(openapi).validate()


def test_every_path_is_described_once(openapi: Document) -> None:
    described = operations(openapi)
    assert len(described) == sum(route.kind == "http" and not route.taken_if for route in ROUTES)
    assert len({each["operationId"] for each in described}) == len(described)
    tags = {tag["name"] for tag in openapi["tags"]}
    assert {tag for each in described for tag in each["tags"]} == tags


def test_a_path_of_two_methods_answers_as_either(openapi: Document) -> None:
    described = openapi["paths"]["/api/playbooks/{path}"]["get"]
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]
    names = [each["$ref"].rpartition("/")[2] for each in schema["anyOf"]]
    assert names == ["playbooks.v1.GetPlaybookResponse", "playbooks.v1.GetPlaybookSourceResponse"]
    assert "With `source=true`: The text of a playbook" in described["description"]


def test_comments_of_the_contracts_are_the_descriptions(openapi: Document) -> None:
    login = openapi["paths"]["/api/auth/login"]["post"]
    assert login["summary"] == "Exchanges a name and a password for a pair of tokens"
    assert "INVALID_CREDENTIALS" in login["description"]
    password = openapi["components"]["schemas"]["auth.v1.LoginRequest"]["properties"]["password"]
    assert password == {
        "type": "string",
        "format": "password",
        "minLength": 1,
        "maxLength": 1000,
        "description": "1 to 1,000 characters.",
    }


def test_examples_fit_their_schemas(openapi: Document) -> None:
    count = 0
    for name, content in media(openapi):
        schema = {**content["schema"], "components": openapi["components"]}
        faults = list(jsonschema_rs.Draft202012Validator(schema).iter_errors(content["example"]))
        assert not faults, (name, faults)
        count += 1
    assert count > 100


def test_examples_are_read_by_the_codecs(openapi: Document) -> None:
    codecs = Codecs(Style.HOUSE)
    pool = Default()
    count = 0
    for operation in operations(openapi):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if not name.endswith("Request"):
            continue
        try:
            message = codecs.of(pool.FindMessageTypeByName(f"steward.{name}"))
            message.decode(content["example"])
        except FieldErrors as faults:
            pytest.fail(f"{operation['operationId']}: {faults}")
        count += 1
    assert count > 10


def test_money_and_enums_are_described_as_they_are_printed(openapi: Document) -> None:
    schemas = openapi["components"]["schemas"]
    budget = schemas["agents.v1.BudgetStatus"]
    assert budget["properties"]["limit_usd"]["type"] == "number"
    assert not any(name.endswith("_nanousd") for name in budget["properties"])
    assert "limit_usd" in budget["required"]
    status = schemas["agents.v1.Agent"]["properties"]["status"]
    assert "running" in status["enum"]
    assert None in status["enum"]
    token = schemas["tokens.v1.IcToken"]
    assert "token" not in token["required"]
    assert schemas["agents.v1.CreateAgentRequest"]["additionalProperties"] is False


def is_cyborg(method: MethodDescriptor) -> bool:
    """Whether a bad credential is 403 there."""
    return dialect_of(method) == options_pb2.DIALECT_CYBORG


def test_who_may_call_is_said_and_asked_for(openapi: Document) -> None:
    for operation in operations(openapi):
        method = Default().FindMethodByName(operation["x-rpc"].strip("/").replace("/", "."))
        access = method_rule(method).access
        schemes = {name for each in operation["security"] for name in each}
        assert ("icToken" in schemes) == (
            access
            in (
                options_pb2.ACCESS_AGENT,
                options_pb2.ACCESS_PEOPLE_AND_AGENT,
                options_pb2.ACCESS_CLIENTS,
            )
        )
        assert (schemes == set()) == (access == options_pb2.ACCESS_PUBLIC)
        refused = {"403"} if is_cyborg(method) else {"401", "403"}
        assert refused <= set(operation["responses"]) or not schemes
    assert (
        "For people with the role admin."
        in (openapi["paths"]["/api/v1/agents"]["post"]["description"])
    )


def test_what_a_comment_promises_is_a_status_with_its_reasons(openapi: Document) -> None:
    borrow = openapi["paths"]["/api/budget/handshake"]["post"]["responses"]
    assert "`BUDGET_EXCEEDED`" in borrow["402"]["description"]
    assert "`AGENT_STOPPED`" in borrow["409"]["description"]
    assert borrow["402"]["content"]["application/json"]["example"]["error"]["code"] == (
        "BUDGET_EXCEEDED"
    )
    files = "/api/v1/environments/{environment_id}/files/content"
    write = openapi["paths"][files]["put"]["responses"]
    assert "`FILE_TOO_LARGE`" in write["413"]["description"]
    assert "`DISK_FULL`" in write["507"]["description"]
    (route,) = (r for r in ROUTES if r.template.text == "/health")
    assert 429 not in failings(route, "")
    told = failings(route, "RESOURCE_EXHAUSTED, reason A_B or C_D, with RetryInfo. NOT_FOUND.")
    assert told[429].reasons == ["A_B", "C_D"]
    assert told[404].reasons == []


def test_paths_with_a_version_repeat_those_without(openapi: Document) -> None:
    repeat = openapi["paths"]["/api/v1/auth/refresh"]["post"]
    assert repeat["deprecated"] is True
    assert repeat["x-alias-of"] == "POST /api/auth/refresh"
    assert "deprecated" not in openapi["paths"]["/api/v1/agents"]["post"]


def test_a_path_of_another_guide_speaks_as_that_one_does(openapi: Document) -> None:
    paths = openapi["paths"]
    one, other = (paths[path]["post"] for path in ("/api/auth/login", "/api/v1/auth/login"))
    assert (other["x-alias-of"], other["deprecated"]) == ("POST /api/auth/login", False)
    assert one["responses"].keys() == other["responses"].keys()
    refused = [each["responses"]["401"]["content"]["application/json"] for each in (one, other)]
    assert refused[0]["example"]["error"]["code"] == "UNAUTHORIZED"
    assert refused[1]["example"]["code"] == 401


def test_streams_are_lines_or_events(openapi: Document) -> None:
    content = openapi["paths"]["/api/v1/events"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/x-ndjson", "text/event-stream"}
    line = content["application/x-ndjson"]["schema"]
    assert line["contentSchema"] == {"$ref": "#/components/schemas/events.v1.Event"}


def test_frames_of_a_socket_are_described_each_way(asyncapi: Document) -> None:
    channel = asyncapi["channels"]["Event_Exchange"]
    assert channel["address"] == "/ws"
    assert set(channel["bindings"]["ws"]["query"]["properties"]) >= {"since", "type", "token"}
    cost = channel["messages"]["CostUpdate"]
    assert cost["payload"]["properties"]["type"] == {"const": "CostUpdate"}
    for name, message in channel["messages"].items():
        schema = {**message["payload"], "components": asyncapi["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema)
        for example in message["examples"]:
            assert not list(validator.iter_errors(example["payload"])), name
    sent = {each["$ref"] for each in asyncapi["operations"]["Event_Exchange_send"]["messages"]}
    assert "#/channels/Event_Exchange/messages/Error" in sent


def test_what_a_socket_sends_is_told_wholly_and_a_refusal_as_an_error(asyncapi: Document) -> None:
    events = asyncapi["channels"]["Event_Exchange"]["messages"]
    assert events["Gap"]["payload"]["required"] == [
        *("type", "event_id", "sequence", "timestamp", "agent_id"),
        "data",
    ]
    assert events["SubscribeRequest"]["payload"]["required"] == ["type"]
    runs = asyncapi["channels"]["Execution_Exchange"]["messages"]
    assert "Status" not in runs
    assert "Error" in runs


@pytest.mark.parametrize(("name", "version"), [("openapi", "3.1.0"), ("asyncapi", "3.0.0")])
def test_a_description_is_printed_without_a_server(name: str, version: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "steward_gateway.describe", name],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert json.loads(printed.stdout)[name] == version
