"""Every AgentBox path by curl: what it answers when it is called well, and when it is not.

The rows stand in `agentbox/`. `$names` in them are made by the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.agentbox import api_keys
from tests.e2e.curl import differences
from tests.e2e.iron.shapes import NO_BODY, Row
from tests.e2e.process import steward
from tests.e2e.scene import Scene

TABLES = (api_keys,)


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
