"""Passwords that are quick to hash: they are slow on purpose, and tests hash thousands."""

from __future__ import annotations

from functools import cache

from argon2 import PasswordHasher

from steward_server.auth import passwords

recommended = passwords._hasher
"""As servers hash that are started anew."""


@cache
def cheap() -> tuple[PasswordHasher, str]:
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return hasher, hasher.hash("the password of nobody")
