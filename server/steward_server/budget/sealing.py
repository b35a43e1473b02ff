"""Seals a provider key to the runtime that asked for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from steward.budget.v1 import budget_pb2 as pb
from steward_client import seal
from steward_server.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Sealed:
    """The key as it travels."""

    text: str = field(repr=False)
    format: pb.SealFormat.ValueType
    salt: bytes
    info: bytes


@dataclass(frozen=True, slots=True)
class Sealer:
    """One provider key and whom to seal it to: a public key, or the holder of an IC token."""

    secret: str = field(repr=False)
    public_key: bytes
    ic_token: str = field(repr=False)

    def seal(self, lease_id: str, agent_id: str, expires_at_us: int) -> Sealed:
        """Seal, bound to this lease, agent and expiry.

        Raises:
            InvalidArgument: nothing can be sealed to the public key.
        """
        info = seal.seal_info(
            lease_id=lease_id, agent_id=agent_id, expires_at_ms=expires_at_us // 1_000
        )
        if not self.public_key:
            salt = os.urandom(seal.SALT_BYTES)
            text = seal.seal_aes256(self.secret, ic_token=self.ic_token, salt=salt, info=info)
            return Sealed(text, pb.SEAL_FORMAT_AES256, salt, info)
        try:
            text = seal.seal_hpke(self.secret, public_key=self.public_key, info=info)
        except ValueError as error:
            raise InvalidArgument(
                "public_key is not a usable X25519 key; make a fresh one for each handshake",
                fields={"public_key": "is not a usable X25519 key"},
            ) from error
        return Sealed(text, pb.SEAL_FORMAT_HPKE, b"", info)
