"""Access tokens: JWTs signed with Ed25519, one algorithm, every claim checked. Reads no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from steward_server import clock
from steward_server.errors import Unauthenticated

ALGORITHM = "EdDSA"
ISSUER = "steward"
AUDIENCE = "steward"
TYPE = "access"

MAX_CHARACTERS = 4_096  # ours have about 400
CLOCK_SKEW_S = 60  # how far the clocks of two servers may be apart
REQUIRED = ["typ", "sub", "role", "jti", "iss", "aud", "iat", "exp"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says."""

    session_id: str
    user_id: str
    role: str
    issued_at_s: int
    expires_at_s: int


class Signer:
    """Signs with the newest key and checks by any."""

    def __init__(self, keys: Mapping[str, Ed25519PrivateKey], newest: str) -> None:
        self._private = keys[newest]
        self._public = {key_id: key.public_key() for key_id, key in keys.items()}
        self._key_id = newest

    def sign(self, claims: Claims) -> str:
        """The token's text; the same claims give the same text."""
        payload = {
            "typ": TYPE,
            "sub": claims.user_id,
            "role": claims.role,
            "jti": claims.session_id,
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": claims.issued_at_s,
            "exp": claims.expires_at_s,
        }
        import jwt  # a fifth of a second, which nobody is to wait for at a start

        return jwt.encode(payload, self._private, ALGORITHM, headers={"kid": self._key_id})

    def read(self, text: str, now_us: int) -> Claims:
        """What a token of ours says; whether its session lives is another question.

        Raises:
            Unauthenticated: it is malformed, not ours, not an access token, or expired.
        """
        if len(text) > MAX_CHARACTERS:
            raise _invalid(f"it has {len(text)} characters")
        import jwt

        try:
            key = self._public.get(jwt.get_unverified_header(text).get("kid", ""))
            if key is None:
                raise _invalid("its key is not known here")
            # PyJWT would compare times with the system's clock; that is done below.
            payload = jwt.decode(
                text,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": REQUIRED,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "strict_aud": True,
                },
            )
        except jwt.InvalidTokenError:
            raise _invalid("it is malformed, or was not issued by this server") from None
        except TypeError:  # a `kid` that is no text
            raise _invalid("it is malformed") from None
        return _checked(payload, now_us)


def _checked(payload: Mapping[str, object], now_us: int) -> Claims:
    if payload["typ"] != TYPE:
        raise _invalid("it is not an access token")
    session_id, user_id, role = payload["jti"], payload["sub"], payload["role"]
    issued_at_s, expires_at_s = payload["iat"], payload["exp"]
    if not (
        isinstance(session_id, str)
        and isinstance(user_id, str)
        and isinstance(role, str)
        and isinstance(issued_at_s, int)
        and isinstance(expires_at_s, int)
    ):
        raise _invalid("its claims are malformed")
    if now_us >= expires_at_s * 1_000_000:
        raise expired(expires_at_s * 1_000_000)
    if now_us < (issued_at_s - CLOCK_SKEW_S) * 1_000_000:
        raise _invalid(f"it is good from {clock.text(issued_at_s * 1_000_000)} on")
    return Claims(session_id, user_id, role, issued_at_s, expires_at_s)


def expired(at_us: int) -> Unauthenticated:
    """An access token whose time is over."""
    return Unauthenticated(
        f"the access token expired at {clock.text(at_us)}; refresh it or sign in again",
        reason="TOKEN_EXPIRED",
        facts={"expired_at": clock.text(at_us)},
    )


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the access token is not valid: {why}; sign in again", reason="INVALID_TOKEN"
    )
