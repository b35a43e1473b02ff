"""The real grpcurl against a fresh server, and the page about it: Go builds it once.

Chosen by `-m clients`, as all that needs another toolchain.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.consoles import consoles, printed, steady
from tests.e2e.process import Steward, steward
from tests.live import ADMIN_PASSWORD

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "grpcurl.md"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"


@pytest.fixture(scope="module")
def grpcurl() -> str:
    """The program in its one version, built if nobody has yet."""
    folder = ROOT / "build" / GRPCURL.rpartition("/")[2]
    program = folder / "grpcurl"
    if not program.exists():
        environ = os.environ | {"GOBIN": str(folder)}
        subprocess.run(["go", "install", GRPCURL], env=environ, check=True, timeout=500)
    return str(program)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steward]:
    with steward(tmp_path_factory.mktemp("grpcurl") / "data") as started:
        yield started


def run(*command: str, stdin: str = "") -> str:
    ended = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_method_is_described_by_its_own_name(grpcurl: str, server: Steward) -> None:
    method = "steward.budget.v1.BudgetService.Handshake"
    described = run(grpcurl, "-plaintext", server.grpc_address, "describe", method)
    assert f"{method} is a method" in described
    assert "rpc Handshake ( .steward.budget.v1.HandshakeRequest )" in described


def test_list_and_describe(grpcurl: str, server: Steward) -> None:
    services = run(grpcurl, "-plaintext", server.grpc_address, "list").split()
    assert "steward.budget.v1.BudgetService" in services
    assert "grpc.health.v1.Health" in services
    for service in services:
        assert f"{service} is a service" in run(
            grpcurl, "-plaintext", server.grpc_address, "describe", service
        )
    message = run(
        *(grpcurl, "-plaintext", server.grpc_address),
        *("describe", "steward.budget.v1.HandshakeRequest"),
    )
    assert "int64 requested_budget_nanousd = 1" in message


def call(grpcurl: str, server: Steward, method: str, body: Any, *options: str) -> Any:
    said = run(
        *(grpcurl, "-plaintext", *options, "-d", json.dumps(body)),
        *(server.grpc_address, method),
    )
    return json.loads(said) if said else None


def test_any_method_takes_a_json_body(grpcurl: str, server: Steward) -> None:
    login = {"username": "admin", "password": ADMIN_PASSWORD}
    pair = call(grpcurl, server, "steward.auth.v1.AuthService/Login", login)
    admin = ("-H", f"authorization: Bearer {pair['access_token']}")
    agent = {"name": "scout", "budget_nanousd": 5_000_000_000}
    made = call(grpcurl, server, "steward.agents.v1.AgentService/CreateAgent", agent, *admin)
    agent_id = made["agent"]["id"]
    token = call(
        *(grpcurl, server, "steward.tokens.v1.TokenService/CreateToken"),
        *({"agent_id": agent_id}, *admin),
    )["ic_token"]["token"]
    provider = {"name": "openai", "api_key": "sk-0123456789"}
    call(grpcurl, server, "steward.providers.v1.ProviderService/CreateProvider", provider, *admin)
    messages = [
        {"message_id": 1, "handshake": {"requested_budget_nanousd": 1_000_000_000}},
        {"message_id": 2, "heartbeat": {}},
    ]
    said = run(
        *(grpcurl, "-plaintext", "-H", f"x-ic-key: {token}", "-d", "@"),
        *(server.grpc_address, "steward.budget.v1.BudgetService/Session"),
        stdin="\n".join(map(json.dumps, messages)),
    )
    answers = said.replace("}\n{", "}\n\x00{").split("\x00")
    handshake, heartbeat = (json.loads(answer) for answer in answers)
    assert handshake["handshake"]["budget_granted_nanousd"] == "1000000000"
    assert heartbeat == {"in_reply_to": "2", "heartbeat": {}}


def test_a_refusal_is_shown_with_its_reason(grpcurl: str, server: Steward) -> None:
    ended = subprocess.run(
        [grpcurl, "-plaintext", server.grpc_address, "steward.tokens.v1.TokenService/ListTokens"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode != 0
    assert "Code: Unauthenticated" in ended.stderr
    assert '"reason": "CREDENTIAL_MISSING"' in ended.stderr


def test_over_tls_and_with_channelz(grpcurl: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    with steward(
        tmp_path / "data",
        STEWARD_PROFILE="development",
        STEWARD_TLS_CERT_FILE=str(pair.cert),
        STEWARD_TLS_KEY_FILE=str(pair.key),
    ) as server:
        options = ("-cacert", str(authority.cert))
        services = run(grpcurl, *options, server.grpc_address, "list").split()
        assert "grpc.channelz.v1.Channelz" in services
        said = run(
            *(grpcurl, *options, server.grpc_address, "grpc.channelz.v1.Channelz/GetServers")
        )
        assert json.loads(said)["server"]


def test_what_the_page_shows_is_what_is_printed(grpcurl: str, tmp_path: Path) -> None:
    shown = consoles(PAGE)
    with steward(tmp_path / "data") as server:
        variables = os.environ | {
            "PATH": f"{Path(grpcurl).parent}:{os.environ['PATH']}",
            "PASSWORD": ADMIN_PASSWORD,
        }
        commands = [each.command.replace("127.0.0.1:50051", server.grpc_address) for each in shown]
        outputs = printed(commands, tmp_path, variables)

    assert len([each for each in shown if each.output]) >= 10
    for each, output in zip(shown, outputs, strict=True):
        assert steady(output) == steady(each.output), each.command
