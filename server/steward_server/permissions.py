"""What an API key may do with which environment. Pure; whoever serves environments asks `may`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Permission(IntEnum):
    """What may be done with an environment; each includes the ones before it."""

    READ = 1
    """See it and its logs."""
    WRITE = 2
    """Execute commands in it."""
    ADMIN = 3
    """Delete it."""

    @property
    def word(self) -> str:
        return self.name.lower()


Permissions = Mapping[str, Permission]
"""By environment id. Empty: not limited to any."""


def may(permissions: Permissions, environment_id: str, needed: Permission) -> bool:
    """Whether a caller's permissions let it do this with an environment.

    They only ever take away: whose the environment is, is asked as of any caller.
    """
    return not permissions or permissions.get(environment_id, 0) >= needed
