"""Access tokens: every claim is checked, against the time given."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from steward_server.auth.access_tokens import MAX_CHARACTERS, Claims, Signer
from steward_server.errors import Unauthenticated

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer({"key_1": KEY}, "key_1")
CLAIMS = Claims("session_1", "user_1", "admin", 1_000, 4_600)
PAYLOAD = {
    "typ": "access",
    "sub": "user_1",
    "role": "admin",
    "jti": "session_1",
    "iss": "steward",
    "aud": "steward",
    "iat": 1_000,
    "exp": 4_600,
}


def signed(**changes: Any) -> str:
    payload = {name: value for name, value in (PAYLOAD | changes).items() if value is not None}
    return jwt.encode(payload, KEY, "EdDSA", headers={"kid": "key_1"})


def reason(text: str, now_us: int = 2_000_000_000) -> str:
    with pytest.raises(Unauthenticated) as caught:
        SIGNER.read(text, now_us)
    return caught.value.reason


def test_what_is_signed_reads_the_same() -> None:
    assert SIGNER.read(SIGNER.sign(CLAIMS), 2_000_000_000) == CLAIMS
    assert SIGNER.read(signed(), 2_000_000_000) == CLAIMS


def test_the_same_claims_give_the_same_text() -> None:
    assert SIGNER.sign(CLAIMS) == SIGNER.sign(CLAIMS)


def test_it_expires_to_the_microsecond() -> None:
    SIGNER.read(signed(), 4_599_999_999)
    assert reason(signed(), 4_600_000_000) == "TOKEN_EXPIRED"


def test_it_is_not_good_before_it_was_issued_but_for_the_skew_of_clocks() -> None:
    SIGNER.read(signed(), 940_000_000)
    assert reason(signed(), 939_999_999) == "INVALID_TOKEN"


@pytest.mark.parametrize("claim", sorted(PAYLOAD))
def test_no_claim_may_be_missing(claim: str) -> None:
    assert reason(signed(**{claim: None})) == "INVALID_TOKEN"


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "refresh"},
        {"iss": "other"},
        {"aud": "other"},
        {"aud": ["steward"]},
        {"sub": 7},
        {"jti": 7},
        {"role": 7},
        {"iat": "soon"},
        {"exp": "never"},
        {"exp": 9e99},
    ],
)
def test_no_claim_may_be_another(changes: dict[str, Any]) -> None:
    assert reason(signed(**changes)) == "INVALID_TOKEN"


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "é.é.é", "x" * (MAX_CHARACTERS + 1), "{}", "e30.e30.e30"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert reason(text) == "INVALID_TOKEN"


def test_an_older_key_still_reads_and_an_unknown_one_does_not() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    rotated = Signer({"key_1": KEY, "key_2": other}, "key_2")
    assert rotated.read(SIGNER.sign(CLAIMS), 2_000_000_000) == CLAIMS
    assert reason(rotated.sign(CLAIMS)) == "INVALID_TOKEN"


def test_a_key_does_not_stand_for_another() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    text = jwt.encode(PAYLOAD, other, "EdDSA", headers={"kid": "key_1"})
    assert reason(text) == "INVALID_TOKEN"


def test_a_token_that_marks_something_critical_is_refused() -> None:
    text = jwt.encode(
        PAYLOAD, KEY, "EdDSA", headers={"kid": "key_1", "crit": ["mood"], "mood": "good"}
    )
    assert reason(text) == "INVALID_TOKEN"


def test_refusals_do_not_repeat_the_token() -> None:
    text = signed(typ="refresh")
    with pytest.raises(Unauthenticated) as caught:
        SIGNER.read(text, 2_000_000_000)
    assert text.split(".")[1] not in caught.value.message
