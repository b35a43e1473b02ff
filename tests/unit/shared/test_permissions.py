"""What a key may do with an environment."""

from __future__ import annotations

import pytest

from steward_server.permissions import Permission, may

READ, WRITE, ADMIN = Permission


@pytest.mark.parametrize(
    ("given", "allowed"),
    [(READ, {READ}), (WRITE, {READ, WRITE}), (ADMIN, {READ, WRITE, ADMIN})],
)
def test_each_permission_includes_the_ones_before(
    given: Permission, allowed: set[Permission]
) -> None:
    assert {needed for needed in Permission if may({"env-1": given}, "env-1", needed)} == allowed


def test_an_environment_that_is_not_named_is_closed() -> None:
    assert not may({"env-1": ADMIN}, "env-2", READ)
    assert not may({"env-1": ADMIN}, "", READ)


def test_without_permissions_nothing_is_taken_away() -> None:
    assert may({}, "env-1", ADMIN)
