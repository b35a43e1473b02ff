"""Every path of CyborgMind's document by curl: called well, and called badly.

The rows stand in `cyborgmind/`. `$names` in them are made by the scene.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest

from steward.gateway.v1.options_pb2 import DIALECT_CYBORG
from tests.e2e.curl import UPGRADE, differences
from tests.e2e.cyborgmind.calls import ACTION, GOOD, INVALID, ROWS, step, token, told
from tests.e2e.cyborgmind.scene import DUAL_MODE, SECRET, CyborgScene, bearing, cyborg_scene
from tests.e2e.paths import uncalled
from tests.e2e.process import forked
from tests.e2e.scene import STATIC_TOKEN

LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CyborgScene]:
    with cyborg_scene(tmp_path_factory.mktemp("cyborgmind") / "data") as opened:
        yield opened


@pytest.mark.parametrize(
    ("arguments", "status", "shape"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_a_path_answers(scene: CyborgScene, arguments: str, status: int, shape: Any) -> None:
    answer = scene.run(arguments)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert list(differences(shape, answer.body)) == [], answer.text


def test_every_path_is_called_well_and_badly() -> None:
    assert uncalled(ROWS, {DIALECT_CYBORG}) == set()


def test_steps_draw_their_actions_unless_they_are_to_be_deterministic(scene: CyborgScene) -> None:
    """Of a pole that leans by nothing, either side is nearly as good."""
    rows = json.dumps([[0.0, 0.0, 0.0, 0.0]] * 1_000)
    drawn = scene.run(_batch(rows, "")).body
    chosen = scene.run(_batch(rows, ',"deterministic":true')).body
    by_default = {scene.run(step('{"observation":[0,0,0,0]}')).body["log_prob"] for _ in range(30)}
    assert {*drawn["actions"]} == {0, 1}
    assert len({*chosen["actions"]}) == 1
    assert chosen["log_probs"][0] == pytest.approx(max(drawn["log_probs"]))
    assert len(by_default) == 2


def _batch(rows: str, more: str) -> str:
    body = f'{{"observations":{rows}{more}}}'
    return f"-X POST $url/step_batch $as_client $json -d '{body}'"


def test_the_steps_of_a_batch_that_names_an_agent_twice_are_made_in_their_order(
    scene: CyborgScene,
) -> None:
    rows = [[0.01, 0.02], [0.03, 0.01], [0.02, 0.0]]
    reset = (
        '-X POST $url/reset $as_client $json -d \'{"agent_id":"%s","policy":"cartpole-memory"}\''
    )
    for name in ("together", "apart"):
        assert scene.run(reset % name).status == 200
    body = {"observations": rows, "agent_ids": ["together"] * 3, "deterministic": True}
    together = scene.run(f"-X POST $url/step_batch $as_client $json -d '{json.dumps(body)}'").body
    apart = [
        scene.run(
            step(json.dumps({"observation": row, "agent_id": "apart", "deterministic": True}))
        )
        for row in rows
    ]
    assert together["values"] == pytest.approx([each.body["value"] for each in apart], abs=1e-5)
    assert together["pressures"] == sorted(together["pressures"])
    assert len({*together["values"]}) == 3


def test_a_token_is_what_the_document_says_it_is(scene: CyborgScene) -> None:
    made = scene.run(token('{"subject":"user123","expiry_minutes":120}')).body
    assert jwt.get_unverified_header(made["access_token"]) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(
        made["access_token"], SECRET, ["HS256"], issuer="cyborg-api", audience="cyborg-clients"
    )
    assert set(claims) == {"sub", "iat", "exp", "iss", "aud"}
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("user123", 120 * 60)
    ends = datetime.fromisoformat(made["expires_at"]).replace(tzinfo=UTC)
    assert ends.timestamp() == claims["exp"]


def test_whoever_has_the_same_subject_has_the_same_agents(scene: CyborgScene) -> None:
    first, again, other = (
        bearing(scene.run(token(f'{{"subject":"{name}"}}')).body["access_token"])
        for name in ("owner", "owner", "stranger")
    )
    reset = f'-X POST $url/reset {first} $json -d \'{{"agent_id":"mine"}}\''
    assert scene.run(reset).status == 200
    mine = '{"observation":[0,0,0,0],"agent_id":"mine"}'
    assert scene.run(step(mine, again)).status == 200
    assert scene.run(step(mine, other)).body == told(
        "Agent 'mine' not initialized. Call /reset first."
    )


def test_the_figures_are_those_of_the_document(scene: CyborgScene) -> None:
    scene.run(step(GOOD))
    scene.run(step(GOOD, "$as_wrong_client"))
    text = scene.run("$url/metrics").text
    for line in (
        "# HELP request_count_total ",
        "# TYPE request_count_total counter",
        'request_count_total{endpoint="/step",status="success"} ',
        'request_count_total{endpoint="/step",status="error"} ',
        "# HELP request_latency_seconds ",
        "# TYPE request_latency_seconds histogram",
        'request_latency_seconds_bucket{endpoint="/step",le="0.005"} ',
        'request_latency_seconds_bucket{endpoint="/step",le="0.01"} ',
        'policy_steps_total{policy="cartpole",version="1"} ',
    ):
        assert f"\n{line}" in text, line


def test_a_stream_is_refused_before_it_begins_without_an_upgrade(scene: CyborgScene) -> None:
    plain = scene.run("$url/stream")
    foreign = scene.run(f"$url/stream {UPGRADE} -H 'Origin: https://evil.example'")
    assert (plain.status, foreign.status) == (426, 403)


def test_a_log_line_has_what_the_document_prints(scene: CyborgScene) -> None:
    scene.run(step('{"observation":[0,0,0,0],"agent_id":"session_abc"}'))
    lines = [each for each in scene.server.log.splitlines() if '"/step"' in each]
    logged = json.loads(next(each for each in lines if "session_abc" in each))
    assert {"timestamp", "latency_ms", "status"} <= logged.keys()
    told = (logged["level"], logged["endpoint"], logged["agent_id"])
    assert told == ("INFO", "/step", "session_abc")


def test_a_pair_of_keys_made_as_the_document_says_signs_and_verifies(tmp_path: Path) -> None:
    script = Path(__file__).with_name("cyborgmind") / "keys.sh"
    subprocess.run(["bash", "-e", script], cwd=tmp_path, check=True, capture_output=True)
    with cyborg_scene(
        tmp_path / "data",
        STEWARD_INFERENCE_JWT_ALGORITHM="RS256",
        STEWARD_INFERENCE_JWT_SECRET=str(tmp_path / "private_key.pem"),
        STEWARD_INFERENCE_JWT_PUBLIC_KEY_PATH=str(tmp_path / "public_key.pem"),
        STEWARD_INFERENCE_JWT_AUDIENCE="external-clients",
    ) as asymmetric:
        made = asymmetric.run(token('{"subject":"user123"}')).body["access_token"]
        public = (tmp_path / "public_key.pem").read_text()
        claims = jwt.decode(made, public, ["RS256"], audience="external-clients")
        assert claims["iss"] == "cyborg-api"
        answer = asymmetric.run(step(GOOD, bearing(made)))
        assert list(differences(ACTION, answer.body)) == []
        assert asymmetric.run(step(GOOD)).status == 200  # the static one too
        head, body, _ = made.split(".")
        forged = f"{head}.{body}.{'A' * 342}"
        assert asymmetric.run(step(GOOD, bearing(forged))).body == INVALID


def test_what_is_switched_off_and_what_comes_too_often_is_told(tmp_path: Path) -> None:
    with cyborg_scene(
        tmp_path / "data",
        STEWARD_INFERENCE_JWT_ENABLED="false",
        STEWARD_AUTH_LOGINS_PER_MINUTE="1",
        STEWARD_RATES_INFERENCE_PER_MINUTE="2",
        STEWARD_RATES_ADDRESS_PER_MINUTE="",  # as it is by itself
    ) as limited:
        mint = token('{"subject":"user123"}')
        off = limited.run(mint)
        assert (off.status, off.body) == (
            501,
            told("JWT authentication is not enabled. Set api.jwt_enabled=true in config."),
        )
        often = limited.run(mint)
        assert (often.status, often.body) == (429, told("Rate limit exceeded: 1 per 1 minute"))
        for left in ("1", "0"):
            fine = limited.run(step(GOOD))
            assert [fine.headers[each] for each in LIMIT_HEADERS[:2]] == ["2", left]
        refused = limited.run(step(GOOD))
        assert (refused.status, refused.body) == (429, told("Rate limit exceeded: 2 per 1 minute"))
        assert {*LIMIT_HEADERS, "retry-after"} <= refused.headers.keys()
        strange = "-sS -o /dev/null -X POST -H Content-Type:application/json -d {} "
        urls = [f"{limited.url()}/step"] * 100
        subprocess.run(["curl", *strange.split(), *urls], check=True, capture_output=True)
        refused = limited.run(step(GOOD, "$as_wrong_client"))
        assert (refused.status, refused.body) == (
            429,
            told("Rate limit exceeded: 100 per 1 minute"),
        )


def test_what_the_document_prints_opens_only_what_is_developed_on(tmp_path: Path) -> None:
    for name in ("STEWARD_STATIC_TOKEN", "STEWARD_INFERENCE_JWT_SECRET"):
        changed = {"STEWARD_STATIC_TOKEN": STATIC_TOKEN, "STEWARD_PROFILE": ""}
        changed |= {name: DUAL_MODE[name]}
        program = forked(tmp_path / name, **(DUAL_MODE | changed))
        assert program.exit_code() != 0
        assert f"{name} is a well-known one" in program.err.read_text()
