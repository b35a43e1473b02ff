"""Every AgentBox path by curl: what it answers when it is called well, and when it is not.

The rows stand in `agentbox/`. `$names` in them are made by the scene.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.agentbox import api_keys, signing_in
from tests.e2e.curl import differences
from tests.e2e.iron.shapes import NO_BODY, Row
from tests.e2e.process import forked, steward
from tests.e2e.scene import Scene
from tests.live import UNLIMITED_VARIABLES

TABLES = (api_keys, signing_in)


def rows() -> list[Row]:
    return [row for table in TABLES for row in table.ROWS]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    data_dir = tmp_path_factory.mktemp("agentbox") / "data"
    with steward(
        data_dir,
        STEWARD_AUTH_LOGINS_PER_MINUTE="0",
        STEWARD_API_KEYS_MAX_PER_USER="1000",
    ) as server:
        yield Scene(server, data_dir)
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("arguments", "status", "shape"), [pytest.param(*row[1:], id=row[0]) for row in rows()]
)
def test_a_path_answers(scene: Scene, arguments: str, status: int, shape: Any) -> None:
    answer = scene.run(arguments)
    assert answer.status == status, answer
    if shape is NO_BODY:
        assert answer.text == ""
        return
    assert answer.headers["content-type"] == "application/json"
    assert list(differences(shape, answer.body)) == [], answer.text


def test_a_key_made_by_curl_is_good_until_it_is_revoked(scene: Scene) -> None:
    made = scene.run('-X POST $url/api/v1/api-keys $as_user $json -d \'{"role":"user"}\'').body
    call = f"$url/api/v1/agents -H 'Authorization: Bearer {made['key']}'"
    before = scene.run(call)
    revoked = scene.run(f"-X DELETE $url/api/v1/api-keys/{made['id']} $as_user")
    after = scene.run(call)

    assert (before.status, revoked.status, after.status) == (200, 204, 401)
    # The path's dialect, not the credential's.
    assert after.body["error"]["reason"] == "API_KEY_REVOKED"
    assert made["key"] not in scene.server.log


def test_an_idempotency_key_makes_one_key_of_two_calls(scene: Scene) -> None:
    create = """-X POST $url/api/v1/api-keys $as_admin $json -H 'Idempotency-Key: once' \
        -d '{"description":"%s"}'"""
    first, again, other = (scene.run(create % name) for name in ("a", "a", "b"))

    assert (first.status, again.status, other.status) == (201, 201, 409)
    assert again.body == first.body
    assert other.body["error"] == "Conflict"


def test_limits_are_told_on_every_answer(tmp_path: Any) -> None:
    data_dir = tmp_path / "data"
    with steward(data_dir, STEWARD_RATES_DEFAULT_PER_MINUTE="3") as server:
        scene = Scene(server, data_dir)
        calls = ("GET $url/api/v1/api-keys", "DELETE $url/api/v1/api-keys/none") * 2
        answers = [scene.run(f"-X {call} $as_admin") for call in calls]

    assert [answer.status for answer in answers] == [200, 404, 200, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["3"] * 4
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[3].body["code"] == 429
    assert 1 <= int(answers[3].headers["retry-after"]) <= 61


def test_limits_are_those_of_the_guide(tmp_path: Path) -> None:
    # Left out, so that they are as they are by themselves.
    told_by_tests = dict.fromkeys(UNLIMITED_VARIABLES, "")
    with steward(tmp_path / "data", forked, **told_by_tests) as server:
        scene = Scene(server, tmp_path / "data")
        calls = {
            10: """-X POST $url/api/v1/auth/login $json -d '{"username":"a","password":"b"}'""",
            20: "-X POST $url/api/v1/environments $as_admin $json -d '{}'",
            100: """-X POST $url/api/v1/environments/env-abc123/exec $as_admin $json \
                -d '{"command":["true"]}'""",
            200: "$url/api/v1/environments $as_admin",
        }
        for limit, call in calls.items():
            headers = scene.run(call).headers
            assert headers["x-ratelimit-limit"] == str(limit)
            assert 0 < int(headers["x-ratelimit-remaining"]) < limit
            assert 0 <= int(headers["x-ratelimit-reset"]) - time.time() <= 61
