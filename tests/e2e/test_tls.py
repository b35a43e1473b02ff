"""Both ports with TLS, and with certificates asked of clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from steward.system.v1 import system_pb2
from steward.system.v1.system_pb2_grpc import SystemServiceStub
from tests.certificates import Authority, Pair
from tests.e2e.curl import curl
from tests.e2e.process import Steward, forked, steward


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Pair:
    return authority.sign("server")


@pytest.fixture(scope="module")
def mutual(folder: Path, authority: Authority, certificate: Pair) -> Iterator[Steward]:
    """A server that asks for certificates, on an address that others can reach."""
    with steward(
        folder / "mutual",
        STEWARD_HOST="0.0.0.0",
        STEWARD_TLS_CERT_FILE=str(certificate.cert),
        STEWARD_TLS_KEY_FILE=str(certificate.key),
        STEWARD_TLS_CLIENT_CA_FILE=str(authority.cert),
    ) as server:
        yield server


def health_over_grpc(server: Steward, credentials: grpc.ChannelCredentials) -> str:
    address = server.grpc_address.replace("0.0.0.0", "127.0.0.1")
    with grpc.secure_channel(address, credentials) as channel:
        stub: Any = SystemServiceStub(channel)
        return str(stub.GetHealth(system_pb2.GetHealthRequest(), timeout=5).status)


def trusting(authority: Authority, pair: Pair | None = None) -> grpc.ChannelCredentials:
    key, chain = (pair.key.read_bytes(), pair.cert.read_bytes()) if pair else (None, None)
    return grpc.ssl_channel_credentials(authority.cert.read_bytes(), key, chain)


def test_both_ports_speak_tls_to_those_who_know_the_authority(
    folder: Path, authority: Authority, certificate: Pair
) -> None:
    with steward(
        folder / "plain",
        STEWARD_TLS_CERT_FILE=str(certificate.cert),
        STEWARD_TLS_KEY_FILE=str(certificate.key),
    ) as server:
        assert server.scheme == "https"
        answer = curl("--cacert", str(authority.cert), f"{server.url}/health")
        assert answer.body["status"] == "healthy"
        assert health_over_grpc(server, trusting(authority)) == "healthy"
        assert is_unanswered(f"{server.url}/health")
        assert is_unanswered(f"http://{server.http_address}/health")
        stranger = Authority(folder, "stranger")
        with pytest.raises(grpc.RpcError) as refused:
            health_over_grpc(server, trusting(stranger))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.stop() == 0
    assert f"  https://{server.http_address}/ in a browser" in server.said
    assert f"  grpcurl {server.grpc_address} list" in server.said


def is_unanswered(*arguments: str) -> bool:
    """Whether curl got no HTTP answer at all, not even a refusal."""
    ended = subprocess.run(
        ["curl", "--silent", "--max-time", "10", "--write-out", "%{http_code}", *arguments],
        capture_output=True,
        check=False,
    )
    return ended.stdout == b"000" and ended.returncode != 0


def test_with_a_client_authority_its_clients_are_let_in(
    mutual: Steward, authority: Authority
) -> None:
    client = authority.sign("client")
    url = f"https://127.0.0.1:{mutual.http_address.rpartition(':')[2]}/health"
    shown = ("--cert", str(client.cert), "--key", str(client.key))
    assert curl("--cacert", str(authority.cert), *shown, url).status == 200
    assert health_over_grpc(mutual, trusting(authority, client)) == "healthy"


@pytest.mark.parametrize("of", ["nobody", "strangers"])
def test_with_a_client_authority_others_are_not_let_in(
    mutual: Steward, folder: Path, authority: Authority, of: str
) -> None:
    pair = Authority(folder, "other").sign("intruder") if of == "strangers" else None
    url = f"https://127.0.0.1:{mutual.http_address.rpartition(':')[2]}/health"
    shown = ("--cert", str(pair.cert), "--key", str(pair.key)) if pair else ()
    assert is_unanswered("--cacert", str(authority.cert), *shown, url)
    with pytest.raises(grpc.RpcError) as refused:
        health_over_grpc(mutual, trusting(authority, pair))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("broken", ["key of another", "no certificate", "encrypted key"])
def test_files_that_do_not_fit_refuse_to_start(
    folder: Path, authority: Authority, certificate: Pair, broken: str
) -> None:
    noise = folder / "noise.pem"
    noise.write_text("noise")
    pair = {
        "key of another": Pair(certificate.cert, authority.sign("another").key),
        "no certificate": Pair(noise, certificate.key),
        "encrypted key": authority.sign("encrypted", password=b"secret"),
    }[broken]
    program = forked(
        folder / "broken",
        STEWARD_TLS_CERT_FILE=str(pair.cert),
        STEWARD_TLS_KEY_FILE=str(pair.key),
    )
    assert program.exit_code() == 1
    said = program.err.read_text()
    assert f"Error: cannot use STEWARD_TLS_CERT_FILE {pair.cert} with" in said
    assert "Traceback" not in said
