"""How the driver names and marks what it makes, and knows it again. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "steward"
SERVER = "steward.dev/server"
"""Whose it is: two servers on one cluster do not meet."""
ENVIRONMENT = "steward.dev/environment"
MAKING = "steward.dev/making"
"""An annotation: which making a namespace is of, to know it again where the answer was lost."""

POD = "main"
CONTAINER = "main"

_OURS = ("kubernetes.io", "k8s.io", "steward.dev")
_KEY = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Owner:
    """The server that machines belong to."""

    server: str
    """A label's value, such as the hash of a data folder."""
    prefix: str = "agentbox-"
    """What the names of its namespaces begin with."""

    def namespace(self, environment_id: str) -> str | None:
        """The namespace of an environment; None if its id cannot be in the name of one."""
        name = self.prefix + environment_id
        return name if _DNS_LABEL.fullmatch(name) else None

    def labels(
        self, environment_id: str, others: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """What everything of an environment carries; others' labels never stand for ours."""
        return {**of_users(others or {}), **self._own, ENVIRONMENT: environment_id}

    @property
    def selector(self) -> str:
        """What finds everything that is this server's."""
        return ",".join(f"{key}={value}" for key, value in sorted(self._own.items()))

    @property
    def _own(self) -> dict[str, str]:
        return {MANAGED_BY: MANAGER, SERVER: self.server}

    def environment_of(self, labels: Mapping[str, str]) -> str | None:
        """The environment that something with these labels belongs to, if it is this server's."""
        if any(labels.get(key) != value for key, value in self._own.items()):
            return None
        return labels.get(ENVIRONMENT) or None


def of_users(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a user's labels that a cluster takes and that mean nothing to it or to us.

    The rest is left out: it is kept by the environment, and no pod security level, network policy
    or owner may hang on what a user writes.
    """
    return {
        key: value
        for key, value in labels.items()
        if _KEY.fullmatch(key) and _VALUE.fullmatch(value) and not _is_ours(key)
    }


def _is_ours(key: str) -> bool:
    domain, slash, _ = key.rpartition("/")
    return bool(slash) and any(domain == each or domain.endswith(f".{each}") for each in _OURS)
