"""Every Ignition path by curl: what it answers when it is called well, and when it is not.

The rows stand in `ignition/`, in an order that tells a story: one lists what the one before has
saved. `$names` in them are made by the scene; a row with `$api` stands for two, `/api` and
`/api/v1`, and one without it for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from steward.gateway.v1.options_pb2 import DIALECT_IGNITION
from tests.e2e.curl import differences
from tests.e2e.ignition import credentials, executions
from tests.e2e.ignition.scene import IgnitionScene, ignition_scene
from tests.e2e.iron.shapes import Row
from tests.e2e.paths import uncalled

TABLES = (credentials, executions)
PREFIXES = ("/api", "/api/v1")


def rows(prefix: str) -> list[Row]:
    return [
        (name, arguments.replace("$api", prefix), status, shape)
        for table in TABLES
        for name, arguments, status, shape in table.ROWS
        if "$api" in arguments or prefix == PREFIXES[0]
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IgnitionScene]:
    data_dir = tmp_path_factory.mktemp("ignition") / "data"
    with ignition_scene(data_dir) as opened:
        yield opened


def test_the_calls_of_the_guide_answer_what_it_prints(scene: IgnitionScene) -> None:
    """Word for word: the same keys in the same order, and nothing else."""
    credential = {
        "name": "my-gateway",
        "username": "admin",
        "gateway_url": "http://localhost:8088",
        "description": "Local development gateway",
    }
    path = "$url/api/credentials"
    saved = scene.run(f"-X POST {path} $as_key $json -d '{credentials.BODY}'")
    listed = scene.run(f"{path} $as_key")
    deleted = scene.run(f"-X DELETE {path}/my-gateway $as_key")
    left = scene.run(f"{path} $as_key")

    assert [each.status for each in (saved, listed, deleted, left)] == [200] * 4
    assert saved.text == dumps({"message": "Credential saved successfully", "name": "my-gateway"})
    assert listed.text == dumps({"credentials": [credential]})
    assert deleted.text == dumps({"message": "Credential deleted successfully"})
    assert left.text == dumps({"credentials": []})


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_paths_answer(scene: IgnitionScene, prefix: str) -> None:
    wrong = []
    for name, arguments, status, shape in rows(prefix):
        answer = scene.run(arguments)
        found = list(differences(shape, answer.body)) if answer.text else ["nothing is answered"]
        if answer.status != status or found:
            wrong.append((name, answer.status, found, answer.text))
        assert answer.headers["content-type"] == "application/json", name
    assert wrong == []


def test_every_path_is_called_well_and_badly() -> None:
    called = [row for prefix in PREFIXES for row in rows(prefix)]
    assert uncalled(called, {DIALECT_IGNITION}) == set()
