"""What may be listened on, and with which certificates."""

from __future__ import annotations

import ipaddress
import ssl

import grpc

from steward_server.config import BadSetting, ServerConfig


def check_bind(config: ServerConfig) -> None:
    """Refuse to hand out credentials in clear beyond this machine.

    Raises:
        BadSetting: the address is not loopback, and there is neither TLS nor an explicit consent;
            or half of what TLS needs is missing.
    """
    if (config.tls_cert_file is None) != (config.tls_key_file is None):
        raise BadSetting("set both STEWARD_TLS_CERT_FILE and STEWARD_TLS_KEY_FILE, or neither")
    if config.tls_client_ca_file is not None and config.tls_cert_file is None:
        raise BadSetting("STEWARD_TLS_CLIENT_CA_FILE needs STEWARD_TLS_CERT_FILE as well")
    if is_loopback(config.host):
        return
    if config.local_single_user:
        raise BadSetting(
            f"STEWARD_LOCAL_SINGLE_USER is for loopback only; STEWARD_HOST is {config.host!r}"
        )
    if config.tls_cert_file is None and not config.insecure_bind:
        raise BadSetting(
            f"STEWARD_HOST is {config.host!r}, which others can reach: set STEWARD_TLS_CERT_FILE "
            "and STEWARD_TLS_KEY_FILE, or STEWARD_INSECURE_BIND=1 if something in front does TLS"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def http_context(config: ServerConfig) -> ssl.SSLContext | None:
    """For the HTTP port; None without TLS.

    Raises:
        BadSetting: a file cannot be read or holds no certificate.
    """
    if config.tls_cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(config.tls_cert_file, config.tls_key_file, password="")
    except OSError as error:
        raise BadSetting(
            f"cannot use STEWARD_TLS_CERT_FILE {config.tls_cert_file} with STEWARD_TLS_KEY_FILE "
            f"{config.tls_key_file}: {_said(error)}"
        ) from None
    if config.tls_client_ca_file is None:
        return context
    try:
        context.load_verify_locations(config.tls_client_ca_file)
    except OSError as error:
        raise BadSetting(
            f"cannot use STEWARD_TLS_CLIENT_CA_FILE {config.tls_client_ca_file}: {_said(error)}"
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _said(error: OSError) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "it holds nothing that can be used").replace("_", " ").lower()
        return f"OpenSSL says {reason!r}"
    return (error.strerror or str(error)).lower()


def grpc_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """For the gRPC port; None without TLS. `http_context` tells what is wrong with the files."""
    if config.tls_cert_file is None or config.tls_key_file is None:
        return None
    chain, key = config.tls_cert_file.read_bytes(), config.tls_key_file.read_bytes()
    roots = config.tls_client_ca_file.read_bytes() if config.tls_client_ca_file else None
    return grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=roots, require_client_auth=roots is not None
    )
