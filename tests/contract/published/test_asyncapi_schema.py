"""The description of the WebSockets against the schema that AsyncAPI publishes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs

from steward_gateway.contracts import load_contracts
from steward_gateway.describe.asyncapi import build_asyncapi
from steward_gateway.describe.comments import read_comments


def test_the_description_of_the_sockets_is_asyncapi_3(published: Path) -> None:
    contracts = load_contracts()
    document = build_asyncapi(contracts, read_comments(contracts.descriptor_set()), "1.0.0")
    path = published / "node_modules/@asyncapi/specs/schemas/3.0.0.json"
    validator = jsonschema_rs.Draft7Validator(json.loads(path.read_text()))
    assert [str(error) for error in validator.iter_errors(document)] == []
    assert [str(error) for error in validator.iter_errors(document | {"asyncapi": "9"})] != []
