"""Every Iron path by curl: what it answers when it is called well, and when it is not.

The rows stand in `iron/`. `$names` in them are made by the scene; a row with `$api` stands for two,
`/api` and `/api/v1`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest

from steward.gateway.v1.options_pb2 import (
    DIALECT_AGENTBOX,
    DIALECT_CYBORG,
    DIALECT_IGNITION,
    Dialect,
)
from tests.e2e.curl import TIME, UPGRADE, conflict, curl, differences, error, invalid
from tests.e2e.iron import (
    agents,
    analytics,
    audit,
    auth,
    budget,
    credentials,
    doors,
    guards,
    policies,
    prices,
    projects,
    providers,
    requests,
    system,
    tokens,
    users,
    versions,
)
from tests.e2e.iron.shapes import NO_AGENT, NO_BODY, NO_CREDENTIAL, NO_METHOD, Row
from tests.e2e.paths import uncalled
from tests.e2e.process import steward, until
from tests.e2e.scene import STATIC_TOKEN, Scene

TABLES = (
    auth,
    credentials,
    users,
    tokens,
    agents,
    projects,
    providers,
    budget,
    requests,
    prices,
    analytics,
    audit,
    guards,
    policies,
    system,
    versions,
    doors,
)


def rows() -> list[Row]:
    """All of them, each prefix by itself."""
    found: list[Row] = []
    for name, arguments, status, shape in (row for table in TABLES for row in table.ROWS):
        if "$api" not in arguments:
            found.append((name, arguments, status, shape))
            continue
        for prefix in ("/api", "/api/v1"):
            call = arguments.replace("$api", prefix)
            found.append((f"{name} under {prefix}", call, status, shape))
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    data_dir = tmp_path_factory.mktemp("iron") / "data"
    with steward(
        data_dir,
        STEWARD_STATIC_TOKEN=STATIC_TOKEN,
        STEWARD_AUTH_LOGINS_PER_MINUTE="10000",
        STEWARD_AUTH_LOCK_AFTER_FAILURES="10000",
        STEWARD_AUTH_REFRESH_GRACE_S="0",
        STEWARD_PROFILE="development",
    ) as server:
        scene = Scene(server, data_dir)
        yield scene
        # Whatever was asked, none of it was a fault of the server.
        counts = scene.run("$url/metrics").text.splitlines()
        calls = [line for line in counts if line.startswith("rpc_count_total{")]
        assert [line for line in calls if 'code="INTERNAL"' in line or "UNKNOWN" in line] == []
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("arguments", "status", "shape"),
    [pytest.param(*row[1:], id=row[0]) for row in rows()],
)
def test_a_path_answers(scene: Scene, arguments: str, status: int, shape: Any) -> None:
    answer = scene.run(arguments)
    assert answer.status == status, answer
    assert answer.headers["x-request-id"]
    if shape is NO_BODY:
        assert answer.text == ""
        return
    assert answer.headers["content-type"] == "application/json"
    assert list(differences(shape, answer.body)) == [], answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/auth/login", "POST, OPTIONS"),
        ("PATCH", "/api/tokens", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/api/tokens/t", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", "/api/tokens/t/rotate", "POST, OPTIONS"),
        ("POST", "/api/v1/agents/a", "DELETE, GET, PATCH, HEAD, OPTIONS"),
        ("DELETE", "/api/agents/a/status", "GET, HEAD, OPTIONS"),
        ("PUT", "/api/budget/report", "POST, OPTIONS"),
        ("DELETE", "/api/v1/providers", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/ws", "GET, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    scene: Scene, method: str, path: str, allowed: str
) -> None:
    refused = scene.run(f"-X {method} $url{path}")
    assert (refused.status, refused.headers["allow"]) == (405, allowed)
    assert list(differences(NO_METHOD, refused.body)) == []
    asked = scene.run(f"-X OPTIONS $url{path}")
    assert (asked.status, asked.headers["allow"], asked.text) == (204, allowed, "")


def test_head_answers_as_get_without_the_body(scene: Scene) -> None:
    answer = scene.run("--head $url/health")
    assert (answer.status, answer.text) == (200, "")
    assert int(answer.headers["content-length"]) > 50


@pytest.mark.parametrize("how", ["", "-H 'Transfer-Encoding: chunked'"], ids=["sized", "chunked"])
def test_a_body_of_more_than_4_mib_is_refused(scene: Scene, tmp_path: Path, how: str) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(b'{"username":"' + b"a" * (4 * 1024 * 1024) + b'"}')
    answer = scene.run(f"-X POST $url/api/auth/login $json {how} --data-binary @{file}")
    assert answer.status == 413
    assert list(differences(error("PAYLOAD_TOO_LARGE"), answer.body)) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"username":"\xff\xfe","password":"x"}',
        b'{"username":"\\ud800","password":"x"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"username":"a"}{"username":"b"}',
        b'\xef\xbb\xbf{"username":"a","password":"x"}',
        b"null",
        b'"text"',
        b"\x00",
        b"{}}",
    ],
    ids=[
        *("no UTF-8", "half a surrogate", "deep lists", "deep objects", "two objects"),
        *("a byte order mark", "null", "a text", "NUL", "a brace too many"),
    ],
)
def test_a_body_that_is_no_request_is_refused(scene: Scene, tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "body"
    file.write_bytes(body)
    answer = scene.run(f"-X POST $url/api/auth/login $json --data-binary @{file}")
    assert answer.status == 400, answer
    assert answer.body["error"]["code"] == "VALIDATION_ERROR"


def test_a_report_is_booked_once_however_often_it_comes(scene: Scene) -> None:
    lease = scene["new_lease"]
    report = f"""-X POST $url/api/budget/report $as_runtime $json -d '{{"lease_id":"{lease}", \
        "request_id":"c1","model":"own","cost_usd":%s}}'"""
    first, again = scene.run(report % "0.25"), scene.run(report % "0.25")
    other = scene.run(report % "0.26")
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert other.status == 409
    reused = conflict("REQUEST_ID_REUSED", "request_id", "first_digest")
    assert list(differences(reused, other.body)) == []


def test_an_idempotency_key_makes_one_agent_of_two_calls(scene: Scene) -> None:
    create = """-X POST $url/api/v1/agents $as_admin $json -H 'Idempotency-Key: once' \
        -d '{"name":"%s","budget_usd":1}'"""
    first, again, other = (scene.run(create % name) for name in ("a", "a", "b"))
    assert (first.status, again.status, other.status) == (201, 201, 409)
    assert again.body == first.body
    assert other.body["error"]["reason"] == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        (
            "/api/v1/providers",
            '{"name":"once","kind":"openai","api_key":"sk-0123456789"}',
            '{"name":"twice","kind":"openai","api_key":"sk-0123456789"}',
        ),
        ("/api/v1/webhooks", '{"url":"https://8.8.8.8/a"}', '{"url":"https://8.8.8.8/b"}'),
        (
            "/api/v1/webhooks/$new_webhook_id/rotate",
            "{}",
            '{"secret":"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}',
        ),
        ("/api/tokens/$new_token_id/rotate", "{}", ""),
    ],
)
def test_what_made_or_replaced_something_once_does_not_do_it_again(
    scene: Scene, path: str, body: str, other: str
) -> None:
    where = Template(path).substitute(scene)  # the same for all calls
    call = f"-X POST $url{where} $as_admin $json -H 'Idempotency-Key: k' -d '%s'"
    made, again = scene.run(call % body), scene.run(call % body)
    assert made.status in (200, 201), made
    assert (again.status, again.body) == (made.status, made.body)
    if other:
        refused = scene.run(call % other)
        assert (refused.status, refused.body["error"]["reason"]) == (409, "REQUEST_ID_REUSED")


def test_an_ended_thing_cannot_be_ended_again(scene: Scene) -> None:
    token, agent, lease = scene["new_token_id"], scene["new_agent"], scene["new_lease"]
    revoke = f"-X DELETE $url/api/tokens/{token} $as_admin"
    delete = f"-X DELETE $url/api/v1/agents/{agent} $as_admin"
    give_back = f"""-X POST $url/api/budget/return $as_runtime $json \
        -d '{{"lease_id":"{lease}"}}'"""
    firsts = [scene.run(call).status for call in (revoke, delete, give_back)]
    seconds = [scene.run(call) for call in (revoke, delete, give_back)]
    rotated = scene.run(f"-X POST $url/api/tokens/{token}/rotate $as_admin")

    assert firsts == [204, 204, 200]
    shapes = [
        error("CONFLICT", "TOKEN_REVOKED", details={"token_id": token}),
        NO_AGENT,
        conflict("LEASE_CLOSED", "state", "lease_id"),
    ]
    assert [answer.status for answer in seconds] == [409, 404, 409]
    for shape, answer in zip(shapes, seconds, strict=True):
        assert list(differences(shape, answer.body)) == []
    assert (rotated.status, rotated.body["error"]["reason"]) == (409, "TOKEN_REVOKED")


def test_a_rotated_token_is_good_at_once(scene: Scene) -> None:
    rotated = scene.run("-X POST $url/api/tokens/$new_token_id/rotate $as_admin").body
    scene["provider"]
    handshake = f"""-X POST $url/api/budget/handshake -H 'X-IC-Key: {rotated["token"]}' $json \
        -d '{{"provider":"openai"}}'"""
    assert scene.run(handshake).status == 200


def test_metrics_are_text_for_prometheus(scene: Scene) -> None:
    scene.run("$url/api/tokens/one $as_admin")
    answer = scene.run("$url/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'request_count_total{endpoint="/api/tokens/{token_id}",status="error"}' in answer.text


def test_events_come_a_line_each_or_as_server_sent_events(scene: Scene) -> None:
    scene["as_spender"]
    call = "'$url/api/v1/events?since=0' $as_admin -H 'X-Request-Timeout: 0.3'"
    lines = scene.run(call)
    assert (lines.status, lines.headers["content-type"]) == (200, "application/x-ndjson")
    *events, last = map(json.loads, lines.text.splitlines())
    assert {"event_id", "sequence", "timestamp", "agent_id"} <= events[-1].keys()
    assert last["error"]["code"] == "DEADLINE_EXCEEDED"
    sent = scene.run(f"{call} -H 'Accept: text/event-stream'")
    assert sent.headers["content-type"] == "text/event-stream"
    assert sent.text.rstrip().rpartition("\n\n")[2].startswith("event: error\ndata: {")


@pytest.mark.parametrize(
    ("arguments", "status", "shape"),
    [
        ("$url/api/v1/events", 401, NO_CREDENTIAL),
        ("'$url/api/v1/events?since=x&colour=red' $as_admin", 400, invalid("since", "colour")),
        ("'$url/api/v1/events?type=Nothing' $as_admin", 400, invalid("type")),
        ("$url/api/v1/events $as_admin -H 'Last-Event-ID: x'", 400, invalid("Last-Event-ID")),
        ("$url/api/v1/events $as_admin -H 'Accept: text/html'", 406, error("NOT_ACCEPTABLE")),
        ("-X POST $url/api/v1/events $as_admin", 405, NO_METHOD),
        ("$url/ws $as_admin", 426, error("UPGRADE_REQUIRED")),
        (f"$url/ws {UPGRADE}", 401, NO_CREDENTIAL),
        (f"'$url/ws?since=x&colour=red' $as_admin {UPGRADE}", 400, invalid("since", "colour")),
        (f"$url/ws $as_admin {UPGRADE.replace('13', '8')}", 426, error("UPGRADE_REQUIRED")),
        (
            f"$url/ws $as_admin {UPGRADE} -H 'Origin: https://evil.example'",
            403,
            error("FORBIDDEN", "ORIGIN_NOT_ALLOWED"),
        ),
    ],
)
def test_a_stream_of_events_is_refused_before_it_begins(
    scene: Scene, arguments: str, status: int, shape: Any
) -> None:
    answer = scene.run(arguments)
    assert (answer.status, list(differences(shape, answer.body))) == (status, [])


def test_an_access_token_ends_by_the_clock(tmp_path: Path) -> None:
    with steward(tmp_path / "data", STEWARD_AUTH_ACCESS_TOKEN_TTL_S="1") as server:
        scene = Scene(server, tmp_path / "data")
        call = f"$url/api/tokens -H 'Authorization: Bearer {scene['new_access_token']}'"
        until(lambda: scene.run(call).status == 401, "the token expires")
        answer = scene.run(call)
        expired = error("UNAUTHORIZED", "TOKEN_EXPIRED", details={"expired_at": TIME})
        assert list(differences(expired, answer.body)) == []


def test_too_many_attempts_to_sign_in_are_told_when_to_come_back(tmp_path: Path) -> None:
    with steward(tmp_path / "data", STEWARD_AUTH_LOGINS_PER_MINUTE="2") as server:
        login = [
            *("-X", "POST", f"{server.url}/api/auth/login", "-H", "Content-Type: application/json"),
            *("-d", '{"username":"admin","password":"wrong"}'),
        ]
        answers = [curl(*login) for _ in range(3)]
    assert [answer.status for answer in answers] == [401, 401, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["2", "2", "2"]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    refused = answers[2]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    limited = error("RATE_LIMITED", details={"limit": "2"})
    assert list(differences(limited, refused.body)) == []


def test_every_path_is_called_well_and_badly() -> None:
    # The others have tables of their own.
    spoken = set(Dialect.values()) - {DIALECT_AGENTBOX, DIALECT_CYBORG, DIALECT_IGNITION}
    assert uncalled(rows(), spoken) == set()
