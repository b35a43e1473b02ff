"""How a provider key travels: sealed to one runtime, opened by it alone. Pure.

`HPKE:` is RFC 9180 base mode to the runtime's fresh X25519 key; `AES256:` is the textual form for
callers that send no key, under a key derived from the IC token. Both directions are here, so that
server and runtime cannot disagree; which of the two was used is the text's own prefix.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HPKE_PREFIX = "HPKE:"
AES256_PREFIX = "AES256:"
SALT_BYTES = 32
PUBLIC_KEY_BYTES = 32

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_IV_BYTES = 12
_TAG_BYTES = 16


class SealBroken(ValueError):
    """The sealed text is malformed, was sealed to somebody else, or was changed."""


class SealedKey(Protocol):
    """The parts of a handshake's answer that carry the key."""

    @property
    def ip_token(self) -> str: ...

    @property
    def seal_salt(self) -> bytes: ...

    @property
    def seal_info(self) -> bytes: ...


def seal_info(*, lease_id: str, agent_id: str, expires_at_ms: int) -> bytes:
    """What a seal is bound to: it opens under no other lease, agent or expiry."""
    parts = [b"steward ip_token v1", lease_id.encode(), agent_id.encode()]
    framed = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return framed + struct.pack(">q", expires_at_ms)


def seal_hpke(secret: str, *, public_key: bytes, info: bytes) -> str:
    """`HPKE:<base64 of encapsulated key and ciphertext>`.

    Raises:
        ValueError: the public key is not 32 bytes of X25519.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"an X25519 public key has 32 bytes, not {len(public_key)}")
    recipient = X25519PublicKey.from_public_bytes(public_key)
    return HPKE_PREFIX + _text(_SUITE.encrypt(secret.encode(), recipient, info))


def open_hpke(sealed: str, *, private_key: X25519PrivateKey, info: bytes) -> str:
    """The secret inside.

    Raises:
        SealBroken: it does not open with this key and info.
    """
    if not sealed.startswith(HPKE_PREFIX):
        raise SealBroken("the sealed key does not begin with HPKE:")
    try:
        opened = _SUITE.decrypt(_bytes(sealed[len(HPKE_PREFIX) :]), private_key, info)
    except (InvalidTag, ValueError) as error:
        raise SealBroken("the sealed key does not open with this runtime's key") from error
    return opened.decode()


def seal_aes256(secret: str, *, ic_token: str, salt: bytes, info: bytes) -> str:
    """`AES256:<iv>:<ciphertext>:<tag>`, each part in base64."""
    iv = os.urandom(_IV_BYTES)
    sealed = AESGCM(_derive(ic_token, salt, info)).encrypt(iv, secret.encode(), None)
    parts = (iv, sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:])
    return AES256_PREFIX + ":".join(_text(part) for part in parts)


def open_aes256(sealed: str, *, ic_token: str, salt: bytes, info: bytes) -> str:
    """The secret inside.

    Raises:
        SealBroken: it does not open with this token, salt and info.
    """
    parts = sealed.split(":")
    if len(parts) != 4 or parts[0] + ":" != AES256_PREFIX:
        raise SealBroken("the sealed key is not AES256:<iv>:<ciphertext>:<tag>")
    iv, ciphertext, tag = (_bytes(part) for part in parts[1:])
    if len(iv) != _IV_BYTES or len(tag) != _TAG_BYTES:
        raise SealBroken(f"an iv has 12 and a tag 16 bytes, not {len(iv)} and {len(tag)}")
    try:
        opened = AESGCM(_derive(ic_token, salt, info)).decrypt(iv, ciphertext + tag, None)
    except InvalidTag as error:
        raise SealBroken("the sealed key does not open with this token") from error
    return opened.decode()


def open_ip_token(sealed: SealedKey, opener: X25519PrivateKey | str) -> str:
    """The provider key of a handshake: `opener` is the runtime's private key or its IC token.

    Raises:
        SealBroken: it does not open, or was sealed in the form for the other kind of opener.
    """
    if isinstance(opener, str):
        return open_aes256(
            sealed.ip_token, ic_token=opener, salt=sealed.seal_salt, info=sealed.seal_info
        )
    return open_hpke(sealed.ip_token, private_key=opener, info=sealed.seal_info)


def _derive(ic_token: str, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(ic_token.encode())


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SealBroken("a part of the sealed key is not base64") from error
