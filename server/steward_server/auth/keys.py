"""The keys that sign access tokens: made once, kept sealed."""

from __future__ import annotations

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from steward_server.auth import store
from steward_server.auth.access_tokens import Signer
from steward_server.db import Database, Transaction
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id
from steward_server.resealing import Sealed
from steward_server.vault import Vault, VaultError

log = structlog.get_logger(__name__)


async def load_signer(database: Database, vault: Vault, now_us: int) -> Signer:
    """The signer of every stored key that opens; makes the first, or one in place of a lost one.

    A key that does not open is passed over with a warning: tokens it signed are then refused, and
    people sign in again.
    """
    keys: dict[str, Ed25519PrivateKey] = {}
    for key_id, sealed in await store.signing_keys(database):
        try:
            raw = vault.open_sealed(sealed, _context(key_id))
        except VaultError as error:
            log.warning("auth.signing_key_lost", key_id=key_id, why=str(error))
        else:
            keys[key_id] = Ed25519PrivateKey.from_private_bytes(raw)
    if not keys:
        key_id = new_id("key")
        keys[key_id] = Ed25519PrivateKey.generate()
        sealed = vault.seal(keys[key_id].private_bytes_raw(), _context(key_id))

        async def work(transaction: Transaction) -> None:
            await store.insert_signing_key(transaction, key_id, sealed, now_us)
            await append(transaction, now_us, NewEntry("signing_key.created", {}, subject=key_id))

        await database.run(work)
    return Signer(keys, newest=list(keys)[-1])


def _context(key_id: str) -> str:
    return f"auth/signing_key/{key_id}"


SEALED = Sealed("signing_key", "key_id", "sealed", _context)
