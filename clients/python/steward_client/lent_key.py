"""The provider a lease is for, and the key to it, which stays in this process."""

from __future__ import annotations

from dataclasses import dataclass, field

from multidict import CIMultiDict
from yarl import URL


@dataclass(frozen=True, slots=True)
class LentKey:
    """The provider a lease is for, and the key to it."""

    kind: str
    base_url: str
    api_key: str = field(repr=False)

    def url(self, path: str) -> URL:
        """Where a route is: the address may or may not name the version."""
        base = self.base_url.rstrip("/")
        return URL(f"{base}{path}" if base.endswith("/v1") else f"{base}/v1{path}", encoded=True)

    @property
    def is_local(self) -> bool:
        """The provider is on this machine."""
        return URL(self.base_url).host in ("127.0.0.1", "localhost", "::1")

    def authorize(self, headers: CIMultiDict[str]) -> None:
        if self.kind == "anthropic":
            headers["x-api-key"] = self.api_key
            headers.setdefault("anthropic-version", "2023-06-01")
        else:
            headers["authorization"] = f"Bearer {self.api_key}"
