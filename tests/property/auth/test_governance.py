"""Whatever administrators do to each other, one of them stays, and nobody touches themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.auth.accounts import Attempts, Role, User, UserState
from steward_server.auth.governance import Authority, Forbidden, LastAdministrator

PEOPLE = 4
DEEDS = st.tuples(
    st.integers(0, PEOPLE - 1),
    st.integers(0, PEOPLE - 1),
    st.sampled_from(["suspend", "activate", "delete", "reset", *Role]),
)


def person(number: int, role: Role, state: UserState = UserState.ACTIVE) -> User:
    return User(f"user_{number}", f"p{number}", None, "hash", role, state, Attempts(), number)


def apply(authority: Authority, user: User, deed: Any) -> User | None:
    """What becomes of a person; None if they are deleted."""
    match deed:
        case "suspend":
            return authority.suspend(user, "why", 1)
        case "activate":
            return authority.activate(user)
        case "reset":
            return authority.reset_password(user, "other", must_change=True)
        case "delete":
            authority.check_delete(user)
            return None
        case _:
            return authority.give_role(user, deed)


@given(roles=st.lists(st.sampled_from(Role), max_size=PEOPLE - 1), deeds=st.lists(DEEDS))
def test_one_active_administrator_always_stays(roles: list[Role], deeds: list[Any]) -> None:
    people = {0: person(0, Role.ADMIN)}
    people |= {number: person(number, role) for number, role in enumerate(roles, 1)}
    for actor, target, deed in deeds:
        if actor not in people or target not in people or not people[actor].is_active_admin:
            continue
        before = people[target]
        admins = sum(each.is_active_admin for each in people.values())
        try:
            after = apply(Authority(people[actor].user_id, admins), before, deed)
        except Forbidden:
            continue
        if after is None:
            del people[target]
        else:
            people[target] = after
            assert after != before or deed == "reset"  # the same password once more
        assert actor != target
        assert any(each.is_active_admin for each in people.values())


@given(st.sampled_from(["suspend", "delete", Role.USER, Role.VIEWER]), st.booleans())
def test_the_last_one_is_kept_whoever_asks(deed: Any, asks_themselves: bool) -> None:  # noqa: FBT001
    last = person(0, Role.ADMIN)
    authority = Authority(last.user_id if asks_themselves else "user_other", 1)
    with pytest.raises(LastAdministrator, match="'p0' is the last active administrator"):
        apply(authority, last, deed)


def test_a_reset_lifts_a_lock_and_changes_nothing_else() -> None:
    locked = replace(person(1, Role.USER), attempts=Attempts(0, 99))
    reset = Authority("user_0", 1).reset_password(locked, "new", must_change=True)
    assert reset == replace(
        locked, password_hash="new", must_change_password=True, attempts=Attempts()
    )
