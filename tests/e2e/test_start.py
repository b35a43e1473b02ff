"""The server as a process: how it starts, why it refuses to, how it stops."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import EventServiceStub
from steward.system.v1 import system_pb2
from steward.system.v1.system_pb2_grpc import SystemServiceStub
from tests.e2e.curl import curl
from tests.e2e.process import Program, Steward, command, forked, steward
from tests.integration.conftest import refusal_of
from tests.live import ADMIN_PASSWORD

JSON = ("-H", "Content-Type: application/json")


def sign_in(server: Steward, password: str, username: str = "admin") -> Any:
    login = json.dumps({"username": username, "password": password})
    return curl("-X", "POST", f"{server.url}/api/auth/login", *JSON, "-d", login)


def test_it_says_ready_and_what_to_try(tmp_path: Path) -> None:
    with steward(tmp_path / "data", command) as server:
        assert curl(f"{server.url}/").status == 200
        code = server.stop()
    assert code == 0
    assert server.said.splitlines() == [
        f"ready grpc={server.grpc_address} http={server.url}",
        "",
        "Try:",
        f"  {server.url}/ in a browser",
        f"  steward login --server {server.grpc_address} --user admin",
        f"  grpcurl -plaintext {server.grpc_address} list",
    ]


def test_a_generated_password_is_told_once_and_works(tmp_path: Path) -> None:
    with steward(tmp_path / "data", STEWARD_ADMIN_PASSWORD="", STEWARD_ADMIN_USER="ada") as first:
        first.stop()
    shown = r"First administrator: ada   password: (\S{20,})   \(shown this once\)"
    found = re.search(shown, first.said)
    assert found
    with steward(tmp_path / "data", STEWARD_ADMIN_PASSWORD="") as second:
        assert sign_in(second, found[1], "ada").status == 200
        second.stop()
    assert "password" not in second.said
    assert found[1] not in second.said + first.log + second.log


def test_a_start_that_failed_keeps_no_password_to_itself(tmp_path: Path) -> None:
    """Were the administrator made before the ports are open, nobody could ever sign in."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        start = forked(tmp_path / "data", STEWARD_ADMIN_PASSWORD="", STEWARD_HTTP_PORT=port)
        assert_refused(start, "cannot listen")
    with steward(tmp_path / "data", STEWARD_ADMIN_PASSWORD="") as server:
        server.stop()
    assert "First administrator" in server.said


def test_the_command_refuses_as_it_should(tmp_path: Path) -> None:
    start = command(tmp_path / "data", STEWARD_HOST="0.0.0.0")
    assert_refused(start, "STEWARD_HOST is '0.0.0.0', which others can reach")


REFUSED = [
    ({"STEWARD_HOST": "0.0.0.0"}, "STEWARD_HOST is '0.0.0.0', which others can reach"),
    (
        {"STEWARD_HOST": "0.0.0.0", "STEWARD_LOCAL_SINGLE_USER": "1"},
        "STEWARD_LOCAL_SINGLE_USER is for loopback only",
    ),
    ({"STEWARD_ADMIN_PASSWORD": "short"}, "STEWARD_ADMIN_PASSWORD has 5 characters"),
    ({"STEWARD_ADMIN_PASSWORD": "password123"}, "STEWARD_ADMIN_PASSWORD is one of those tried"),
    ({"STEWARD_STATIC_TOKEN": "short"}, "STEWARD_STATIC_TOKEN has 5 characters; it needs 16"),
    ({"STEWARD_STATIC_TOKEN": "cyborgmind-secret"}, "STEWARD_STATIC_TOKEN is a well-known one"),
    ({"STEWARD_HTPP_PORT": "80"}, "no setting STEWARD_HTPP_PORT; did you mean STEWARD_HTTP_PORT?"),
    ({"STEWARD_HTTP_PORT": "http"}, "STEWARD_HTTP_PORT is 'http'; it must be a whole number"),
    ({"STEWARD_GRPC_PORT": "70000"}, "STEWARD_GRPC_PORT is 70000; it must be at most 65535"),
    ({"STEWARD_TLS_CERT_FILE": "/none.pem"}, "set both STEWARD_TLS_CERT_FILE and"),
    (
        {"STEWARD_TLS_CERT_FILE": "/none.pem", "STEWARD_TLS_KEY_FILE": "/none.key"},
        "cannot use STEWARD_TLS_CERT_FILE /none.pem",
    ),
    ({"STEWARD_MASTER_KEY_FILE": "/none.key"}, "there is no master key file /none.key"),
    ({"STEWARD_CONFIG": "/none.toml"}, "cannot read /none.toml"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_bad_setting_refuses_to_start_with_one_sentence(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    assert_refused(forked(tmp_path / "data", **settings), said)


def assert_refused(program: Program, said: str) -> None:
    code, err = program.exit_code(), program.err.read_text()
    sentences = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert (code, program.out.read_text()) == (1, "")
    assert len(sentences) == 1
    assert said in sentences[0]
    assert err.endswith(sentences[0] + "\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("variable", ["STEWARD_HTTP_PORT", "STEWARD_GRPC_PORT"])
def test_a_taken_port_refuses_to_start(tmp_path: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        start = forked(tmp_path / "data", **{variable: str(port)})
        said = f"cannot listen on 127.0.0.1:{port}: it is taken, or not ours to use"
        assert_refused(start, f"{said}; see STEWARD_HOST and {variable}")


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a server that ran before."""
    data_dir = tmp_path_factory.mktemp("before") / "data"
    with steward(data_dir):
        pass
    return data_dir


@pytest.fixture
def used(left_behind: Path, tmp_path: Path) -> Path:
    """The same, to be broken."""
    return Path(shutil.copytree(left_behind, tmp_path / "data"))


def test_a_second_server_on_the_same_data_refuses_to_start(tmp_path: Path) -> None:
    with steward(tmp_path / "data") as first:
        second = forked(tmp_path / "second", STEWARD_DATA_DIR=str(tmp_path / "data"))
        assert_refused(second, "another server has steward.db open")
        assert curl(f"{first.url}/health").status == 200


def test_a_newer_schema_refuses_to_start(used: Path) -> None:
    connection = sqlite3.connect(used / "steward.db")
    with connection:
        connection.execute("INSERT INTO schema_migration VALUES ('budget/9999_future.sql', '', 0)")
    connection.close()
    said = "written by a newer version (it has budget/9999_future.sql)"
    assert_refused(forked(used), said)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda file: file.write_text("noise"), "line 1 is not"),
        (lambda file: file.write_text(""), "master.key"),
        (lambda file: file.chmod(0o644), "master.key"),
    ],
    ids=["noise", "empty", "open to all"],
)
def test_a_master_key_that_cannot_be_read_refuses_to_start(
    used: Path, break_it: Any, said: str
) -> None:
    break_it(used / "master.key")
    assert_refused(forked(used), said)


def test_a_file_that_is_no_database_refuses_to_start(used: Path) -> None:
    (used / "steward.db").write_bytes(b"not a database, by any reading of it" * 100)
    assert_refused(forked(used), "the database cannot be used")


# Callers on this machine.


def test_the_static_token_is_known_and_may_do_nothing_yet(tmp_path: Path) -> None:
    token = "static-0123456789abcdef-0"
    with steward(tmp_path / "data", STEWARD_STATIC_TOKEN=token) as server:
        paths = ("/api/tokens", "/api/v1/agents", "/api/v1/events", "/api/agents/a/status")
        credential = ("-H", f"Authorization: Bearer {token}")
        answers = [curl(server.url + path, *credential) for path in paths]
        other = curl(f"{server.url}/api/tokens", "-H", f"Authorization: Bearer {token}x")
    assert [answer.status for answer in answers] == [403] * len(paths)
    assert other.status == 401


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steward]:
    data_dir = tmp_path_factory.mktemp("open") / "data"
    with steward(data_dir, STEWARD_LOCAL_SINGLE_USER="1") as server:
        yield server


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        (["Host: localhost:1"], 200),
        (["Host: [::1]"], 200),
        (["Origin: http://localhost:3000"], 200),
        (["Origin: http://127.0.0.1"], 200),
        (["Host: example.org"], 401),
        (["Host: localhost.example.org"], 401),
        (["Host: 127.0.0.1.example.org"], 401),
        (["Host: \xe4"], 401),
        (["Origin: http://example.org"], 401),
        (["Origin: http://localhost.example.org"], 401),
        (["Origin: null"], 401),
        (["Origin: file://"], 401),
        (["Host: localhost", "Origin: https://example.org"], 401),
        (["X-Steward-Host: localhost", "Host: example.org"], 401),
        (["Authorization: Bearer a.b.c"], 401),
    ],
    ids=str,
)
def test_a_single_user_needs_no_credential_from_here_alone(
    open_house: Steward, headers: list[str], status: int
) -> None:
    arguments = [part for header in headers for part in ("-H", header)]
    assert curl(f"{open_house.url}/api/tokens", *arguments).status == status


def test_a_single_user_needs_no_credential_over_grpc(open_house: Steward) -> None:
    with grpc.insecure_channel(open_house.grpc_address) as channel:
        listing: Any = channel.unary_unary("/steward.tokens.v1.TokenService/ListTokens")
        assert listing(b"", timeout=5) is not None


# Stopping.


def test_a_call_under_way_over_http_is_finished(tmp_path: Path) -> None:
    body = json.dumps({"username": "admin", "password": ADMIN_PASSWORD}).encode()
    with steward(tmp_path / "data") as server:
        connection = http.client.HTTPConnection(server.http_address, timeout=10)
        connection.putrequest("POST", "/api/auth/login")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:10])
        # Answered after the call above has begun: it came over a connection opened later.
        assert curl(f"{server.url}/").status == 200
        server.terminate()
        connection.send(body[10:])
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["user"]["username"] == "admin"
        connection.close()
        code = server.stop()
        assert server.refuses_connections()
    assert code == 0


async def test_calls_under_way_over_grpc_are_finished_and_streams_ended(tmp_path: Path) -> None:
    with steward(
        tmp_path / "data",
        STEWARD_AUTH_LOGINS_PER_MINUTE="1000",
        STEWARD_AUTH_PASSWORD_WORKERS="1",
    ) as server:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            auth: Any = AuthServiceStub(channel)
            events: Any = EventServiceStub(channel)
            health: Any = SystemServiceStub(channel)
            login = auth_pb2.LoginRequest(username="admin", password=ADMIN_PASSWORD)
            token = (await auth.Login(login)).access_token
            stream = events.Subscribe(
                events_pb2.SubscribeRequest(), metadata=(("authorization", f"Bearer {token}"),)
            )
            await stream.initial_metadata()
            # Each takes tens of milliseconds, one after the other; then one that does not, sent
            # behind them on the same connection: once it is answered they are under way.
            under_way = [asyncio.ensure_future(auth.Login(login)) for _ in range(10)]
            await health.GetHealth(system_pb2.GetHealthRequest())
            await asyncio.to_thread(server.terminate)
            answers = await asyncio.gather(*under_way)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
        code = await asyncio.to_thread(server.stop)
    assert all(answer.access_token for answer in answers)
    assert refusal_of(ended.value).reason == "SERVER_STOPPING"
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert code == 0


async def test_a_socket_is_told_that_the_server_goes_away(tmp_path: Path) -> None:
    import aiohttp

    with steward(tmp_path / "data", STEWARD_DRAIN_S="10") as server:
        token = sign_in(server, ADMIN_PASSWORD).body["access_token"]
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://{server.http_address}/ws?token={token}") as socket_,
        ):
            await asyncio.to_thread(server.terminate)
            assert (await socket_.receive(timeout=30)).type is aiohttp.WSMsgType.CLOSE
            assert socket_.close_code == aiohttp.WSCloseCode.GOING_AWAY
        begun_s = asyncio.get_running_loop().time()
        code = await asyncio.to_thread(server.stop)
        # With nothing left to wait for it does not use up the time it may take.
        assert asyncio.get_running_loop().time() - begun_s < 5
    assert code == 0
