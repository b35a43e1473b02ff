"""Tokens of inference clients: JWTs by HS256 or RS256, as their document has them. Reads no clock.

They stand for a subject and nothing else: whoever holds one may step policies, with agents of the
subject's own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from steward_server.config import BadSetting
from steward_server.errors import Unauthenticated
from steward_server.inference.config import InferenceConfig
from steward_server.principals import Kind, Principal

LEAST_SECRET = 32
WELL_KNOWN_SECRET = "your-production-secret-key-min-32-chars"  # noqa: S105 - of the document
MAX_CHARACTERS = 8_192
MAX_REMEMBERED = 4_096
MINUTE_US = 60_000_000
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Minted:
    """A token that was made."""

    text: str
    expires_at_us: int


class ClientTokens:
    """Makes tokens and knows them again; without keys it does neither."""

    def __init__(self, config: InferenceConfig, *, development: bool) -> None:
        """Load the keys, once.

        Raises:
            BadSetting: a key is missing, short or cannot be read.
        """
        self.is_enabled = config.jwt_enabled
        self._algorithm = config.jwt_algorithm
        self._issuer = config.jwt_issuer or None
        self._audience = config.jwt_audience or None
        self._expiry_us = config.jwt_expiry_minutes * MINUTE_US
        self._most_us = config.jwt_max_expiry_minutes * MINUTE_US
        self._signs: Any = None
        self._verifies: Any = None
        self._known: OrderedDict[str, Principal] = OrderedDict()
        if not self.is_enabled:
            return
        if self._algorithm == "HS256":
            self._signs = self._verifies = _secret(config.jwt_secret, development=development)
        else:
            self._signs, self._verifies = _key_pair(config)

    @property
    def can_mint(self) -> bool:
        """Whether tokens are made here: RS256 may have the public key only."""
        return self._signs is not None

    def mint(self, subject: str, now_us: int, expiry_minutes: int | None) -> Minted:
        """A token for a subject, for no longer than is allowed."""
        wanted_us = self._expiry_us if expiry_minutes is None else expiry_minutes * MINUTE_US
        now_s = now_us // _SECOND_US
        expires_s = now_s + min(wanted_us, self._most_us) // _SECOND_US
        claims: dict[str, Any] = {"sub": subject, "iat": now_s, "exp": expires_s}
        if self._issuer:
            claims["iss"] = self._issuer
        if self._audience:
            claims["aud"] = self._audience
        import jwt  # see `access_tokens`

        text = jwt.encode(claims, self._signs, self._algorithm)
        return Minted(text, expires_s * _SECOND_US)

    def verify(self, text: str, now_us: int) -> Principal | None:
        """Whom a token stands for; None if it is none of these.

        Raises:
            Unauthenticated: it is one of these and not good (any more).
        """
        if not self.is_enabled:
            return None
        known = self._known.get(text)
        if known is None:
            known = self._read(text)
            if known is None:
                return None
            self._known[text] = known
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        expires_at_us = known.expires_at_us
        if expires_at_us is not None and now_us >= expires_at_us:
            self._known.pop(text, None)
            raise Unauthenticated("Token has expired", reason="TOKEN_EXPIRED")
        return known

    def _read(self, text: str) -> Principal | None:
        if len(text) > MAX_CHARACTERS or text.count(".") != 2:
            return None
        import jwt

        try:
            if jwt.get_unverified_header(text).get("alg") != self._algorithm:
                return None
            claims = jwt.decode(
                text,
                self._verifies,
                algorithms=[self._algorithm],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["sub", "exp", *(["iss"] if self._issuer else [])],
                    "verify_exp": False,  # by the clock we are told, each time
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": self._audience is not None,
                },
            )
        except jwt.InvalidIssuerError:
            raise _wrong("issuer") from None
        except jwt.InvalidAudienceError:
            raise _wrong("audience") from None
        except jwt.MissingRequiredClaimError as error:
            claims = {"iss": "issuer", "aud": "audience"}
            raise (_wrong(claims[error.claim]) if error.claim in claims else _invalid()) from None
        except (jwt.InvalidTokenError, TypeError, ValueError):
            raise _invalid() from None
        subject, expires_s = claims["sub"], claims["exp"]
        if not isinstance(subject, str) or not subject or not isinstance(expires_s, int | float):
            raise _invalid()
        name = f"client:{subject}"
        return Principal(
            Kind.CLIENT,
            name,
            credential=f"client_token:{subject}",
            expires_at_us=round(expires_s * _SECOND_US),
        )


def _invalid() -> Unauthenticated:
    return Unauthenticated("Invalid authentication token", reason="INVALID_TOKEN")


def _wrong(claim: str) -> Unauthenticated:
    return Unauthenticated(f"Invalid token {claim}", reason=f"INVALID_TOKEN_{claim.upper()}")


def _secret(secret: str | None, *, development: bool) -> bytes:
    if not secret:
        raise BadSetting("STEWARD_INFERENCE_JWT_SECRET is unset; openssl rand -hex 32 makes one")
    if len(secret) < LEAST_SECRET and not development:
        raise BadSetting(
            f"STEWARD_INFERENCE_JWT_SECRET has {len(secret)} characters; HS256 needs "
            f"{LEAST_SECRET} or more: openssl rand -hex 32"
        )
    if secret == WELL_KNOWN_SECRET and not development:
        raise BadSetting(
            "STEWARD_INFERENCE_JWT_SECRET is a well-known one: openssl rand -hex 32 makes another"
        )
    return secret.encode()


def _key_pair(config: InferenceConfig) -> tuple[RSAPrivateKey | None, RSAPublicKey]:
    """For RS256 the secret is the path of a private key; the public one alone only verifies."""
    private: Any = None
    if config.jwt_secret:
        private = _load("JWT_SECRET", Path(config.jwt_secret), RSAPrivateKey)
    if config.jwt_public_key_path is not None:
        return private, _load("JWT_PUBLIC_KEY_PATH", config.jwt_public_key_path, RSAPublicKey)
    if private is None:
        raise BadSetting(
            "RS256 needs STEWARD_INFERENCE_JWT_PUBLIC_KEY_PATH, or the path of a private key in "
            "STEWARD_INFERENCE_JWT_SECRET to make tokens as well"
        )
    return private, private.public_key()


def _load(setting: str, path: Path, kind: type[Any]) -> Any:
    try:
        text = path.read_bytes()
        key = (
            load_pem_private_key(text, None) if kind is RSAPrivateKey else load_pem_public_key(text)
        )
    except OSError as error:
        raise BadSetting(
            f"STEWARD_INFERENCE_{setting} is {str(path)!r}: {error.strerror}"
        ) from None
    except (ValueError, TypeError):
        raise BadSetting(f"STEWARD_INFERENCE_{setting}: {str(path)!r} is no PEM key") from None
    if not isinstance(key, kind):
        raise BadSetting(f"STEWARD_INFERENCE_{setting}: {str(path)!r} is no RSA key")
    return key
