"""What may be listened on, and with which certificates."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from steward_server.config import BadSetting, ServerConfig
from steward_server.tls import check_bind, grpc_credentials, http_context
from tests.certificates import Authority, Pair


def refused(**config: Any) -> str:
    with pytest.raises(BadSetting) as error:
        check_bind(ServerConfig(**config))
    return str(error.value)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    check_bind(ServerConfig(host=host, local_single_user=True))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "127.0.0.1.example.org"]
)
def test_beyond_loopback_needs_tls_or_a_word(host: str) -> None:
    assert f"STEWARD_HOST is {host!r}" in refused(host=host)
    check_bind(ServerConfig(host=host, insecure_bind=True))
    check_bind(ServerConfig(host=host, tls_cert_file=Path("c"), tls_key_file=Path("k")))


@pytest.mark.parametrize("allowed", [{"insecure_bind": True}, {}])
def test_a_single_user_without_credentials_stays_on_loopback(allowed: dict[str, Any]) -> None:
    said = refused(host="0.0.0.0", local_single_user=True, **allowed)
    assert "STEWARD_LOCAL_SINGLE_USER is for loopback only" in said


def test_half_of_a_pair_is_refused() -> None:
    assert "both" in refused(tls_cert_file=Path("c"))
    assert "both" in refused(tls_key_file=Path("k"))
    assert "STEWARD_TLS_CLIENT_CA_FILE needs" in refused(tls_client_ca_file=Path("a"))


def config(pair: Pair, client_ca: Path | None = None) -> ServerConfig:
    return ServerConfig(
        tls_cert_file=pair.cert, tls_key_file=pair.key, tls_client_ca_file=client_ca
    )


def test_without_files_there_is_no_tls() -> None:
    assert http_context(ServerConfig()) is None
    assert grpc_credentials(ServerConfig()) is None


def test_a_pair_gives_tls_1_2_and_newer(authority: Authority) -> None:
    context = http_context(config(authority.sign("server")))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def test_with_a_client_authority_clients_must_show_a_certificate(authority: Authority) -> None:
    context = http_context(config(authority.sign("server"), authority.cert))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    good, other = authority.sign("server"), authority.sign("other")
    encrypted = authority.sign("encrypted", password=b"secret")
    noise = tmp_path / "noise.pem"
    noise.write_text("noise")
    missing = tmp_path / "missing.pem"
    wrong = {
        missing: config(Pair(missing, good.key)),
        noise: config(Pair(noise, good.key)),
        other.key: config(Pair(good.cert, other.key)),
        encrypted.key: config(encrypted),
        authority.cert.with_name("nowhere.pem"): config(
            good, authority.cert.with_name("nowhere.pem")
        ),
    }
    for file, server in wrong.items():
        with pytest.raises(BadSetting) as error:
            http_context(server)
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
