"""Provider keys sealed to one runtime."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from steward_client.seal import (
    SealBroken,
    open_aes256,
    open_hpke,
    open_ip_token,
    seal_aes256,
    seal_hpke,
    seal_info,
)

KEY = "sk-proj-0123456789"
INFO = seal_info(lease_id="lease_1", agent_id="agent_1", expires_at_ms=1_800_000_000_000)
SALT = b"s" * 32


@dataclass
class Handshake:
    ip_token: str
    seal_salt: bytes = SALT
    seal_info: bytes = INFO


def test_a_key_sealed_to_a_runtime_opens_there() -> None:
    private_key = X25519PrivateKey.generate()
    sealed = seal_hpke(KEY, public_key=private_key.public_key().public_bytes_raw(), info=INFO)

    assert sealed.startswith("HPKE:")
    assert KEY not in sealed
    assert open_ip_token(Handshake(sealed), private_key) == KEY


def test_a_key_sealed_under_a_token_opens_with_it() -> None:
    sealed = seal_aes256(KEY, ic_token="ic_secret", salt=SALT, info=INFO)

    name, iv, ciphertext, tag = sealed.split(":")
    assert name == "AES256"
    assert [len(base64.b64decode(part)) for part in (iv, ciphertext, tag)] == [12, len(KEY), 16]
    assert open_ip_token(Handshake(sealed), "ic_secret") == KEY


def test_a_key_is_sealed_differently_each_time() -> None:
    public_key = X25519PrivateKey.generate().public_key().public_bytes_raw()

    assert seal_hpke(KEY, public_key=public_key, info=INFO) != seal_hpke(
        KEY, public_key=public_key, info=INFO
    )
    assert seal_aes256(KEY, ic_token="t", salt=SALT, info=INFO) != seal_aes256(
        KEY, ic_token="t", salt=SALT, info=INFO
    )


@pytest.mark.parametrize(
    "other",
    [
        seal_info(lease_id="lease_2", agent_id="agent_1", expires_at_ms=1_800_000_000_000),
        seal_info(lease_id="lease_1", agent_id="agent_2", expires_at_ms=1_800_000_000_000),
        seal_info(lease_id="lease_1", agent_id="agent_1", expires_at_ms=1_800_000_000_001),
        seal_info(lease_id="lease_1agent", agent_id="_1", expires_at_ms=1_800_000_000_000),
        b"",
    ],
)
def test_a_seal_opens_for_its_own_lease_agent_and_expiry_only(other: bytes) -> None:
    private_key = X25519PrivateKey.generate()
    public_key = private_key.public_key().public_bytes_raw()

    with pytest.raises(SealBroken):
        open_hpke(
            seal_hpke(KEY, public_key=public_key, info=INFO), private_key=private_key, info=other
        )
    with pytest.raises(SealBroken):
        open_aes256(
            seal_aes256(KEY, ic_token="t", salt=SALT, info=INFO),
            ic_token="t",
            salt=SALT,
            info=other,
        )


def test_somebody_elses_seal_does_not_open() -> None:
    mine, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    sealed = seal_hpke(KEY, public_key=theirs.public_key().public_bytes_raw(), info=INFO)

    with pytest.raises(SealBroken, match="does not open"):
        open_hpke(sealed, private_key=mine, info=INFO)
    with pytest.raises(SealBroken, match="does not open"):
        open_aes256(
            seal_aes256(KEY, ic_token="t", salt=SALT, info=INFO), ic_token="u", salt=SALT, info=INFO
        )


@pytest.mark.parametrize("text", ["", "HPKE:", "HPKE:!!", "AES256:a:b", "AES256:::", "sk-plain"])
def test_what_is_no_seal_is_refused(text: str) -> None:
    with pytest.raises(SealBroken):
        open_ip_token(Handshake(text), X25519PrivateKey.generate())
    with pytest.raises(SealBroken):
        open_ip_token(Handshake(text), "ic_secret")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal_hpke(KEY, public_key=b"k" * length, info=INFO)
