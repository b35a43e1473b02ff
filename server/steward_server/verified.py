"""Credentials found good, kept in memory so that a call costs a look-up and not a signature check.

They are kept by the hash of their text, until they expire, or their id or whom they stand for is
forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable

from steward_server.errors import Unavailable
from steward_server.ids import digest
from steward_server.principals import Principal

MAX_KEPT = 20_000  # about 1 KiB each
MAX_TRIES = 8


class Verified:
    """Principals by credential. Forgetting takes effect before `forget` returns."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Principal] = OrderedDict()
        self._hashes: defaultdict[str, set[bytes]] = defaultdict(set)
        """By the id of the credential, and by whom it stands for."""
        self._forgotten_count = 0

    async def find(
        self, text: str, now_us: int, load: Callable[[], Awaitable[Principal]]
    ) -> Principal:
        """Who a credential stands for: from memory, or else as `load` says.

        `load` reads the store and raises Unauthenticated; it is asked again if any credential was
        forgotten while it read, because it may have read what is no longer true.

        Raises:
            Unauthenticated: `load` raised it.
            Unavailable: credentials are being forgotten faster than they can be read.
        """
        text_hash = digest(text)
        kept = self._kept.get(text_hash)
        if kept is not None and (kept.expires_at_us is None or now_us < kept.expires_at_us):
            self._kept.move_to_end(text_hash)
            return kept
        for _ in range(MAX_TRIES):
            before = self._forgotten_count
            principal = await load()
            if self._forgotten_count == before:
                self._keep(text_hash, principal)
                return principal
        raise Unavailable("credentials are changing too fast to check yours; try again")

    def forget(self, names: Iterable[str]) -> None:
        """Have credentials looked up again when they are used next.

        A name is the id of a credential, or of the user or agent that any number of them stand for.
        """
        self._forgotten_count += 1
        for name in names:
            for text_hash in list(self._hashes.get(name, ())):
                self._drop(text_hash)

    def _keep(self, text_hash: bytes, principal: Principal) -> None:
        self._kept[text_hash] = principal
        self._kept.move_to_end(text_hash)
        for name in (principal.credential, principal.subject):
            self._hashes[name].add(text_hash)
        while len(self._kept) > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, text_hash: bytes) -> None:
        principal = self._kept.pop(text_hash)
        for name in (principal.credential, principal.subject):
            hashes = self._hashes[name]
            hashes.discard(text_hash)
            if not hashes:
                del self._hashes[name]
