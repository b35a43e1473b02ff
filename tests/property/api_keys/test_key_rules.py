"""Rules of API keys that hold for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steward.gateway.v1 import options_pb2 as options
from steward_server.api_keys.key import KeyRole, KeyText
from steward_server.api_keys.room import FROM_ROLE, ROLES
from steward_server.interceptors.authorization import allows
from steward_server.permissions import Permission, may
from steward_server.principals import Kind, Principal

KEY_ROLES = st.sampled_from(KeyRole)
NAMES = st.sampled_from(["env-1", "env-2", "env-3"])
PERMISSIONS = st.dictionaries(NAMES, st.sampled_from(Permission))


@given(KEY_ROLES, KEY_ROLES, KEY_ROLES)
def test_the_lesser_of_two_roles_is_neither_above(
    one: KeyRole, two: KeyRole, three: KeyRole
) -> None:
    lesser = one.at_most(two)
    assert lesser in (one, two)
    assert lesser.rank <= min(one.rank, two.rank)
    assert lesser == two.at_most(one)
    assert lesser.at_most(three) == one.at_most(two.at_most(three))


@given(KEY_ROLES, st.sampled_from([options.ROLE_ADMIN, options.ROLE_USER, options.ROLE_VIEWER]))
def test_a_key_reaches_nothing_that_its_owner_does_not(role: KeyRole, owner: int) -> None:
    """For rules that name roles as ours do: whoever may more is let in wherever others are."""
    rules = [
        options.MethodRule(access=options.ACCESS_PEOPLE, roles=roles)
        for roles in (
            [],
            [options.ROLE_ADMIN],
            [options.ROLE_ADMIN, options.ROLE_USER],
            [options.ROLE_ADMIN, options.ROLE_USER, options.ROLE_EXECUTOR],
        )
    ]
    granted = ROLES[role.at_most(FROM_ROLE[owner])]  # type: ignore[index]
    for rule in rules:
        if allows(rule, Principal(Kind.KEY, "user_1", role=granted)):
            assert allows(rule, Principal(Kind.PERSON, "user_1", role=owner))  # type: ignore[arg-type]


@given(PERMISSIONS, NAMES, st.sampled_from(Permission))
def test_a_permission_includes_every_lesser_one(
    permissions: dict[str, Permission], name: str, needed: Permission
) -> None:
    if may(permissions, name, needed):
        assert all(may(permissions, name, lesser) for lesser in Permission if lesser <= needed)


@given(PERMISSIONS.filter(bool), NAMES, st.sampled_from(Permission))
def test_permissions_open_only_what_they_name(
    permissions: dict[str, Permission], name: str, needed: Permission
) -> None:
    if may(permissions, name, needed):
        assert name in permissions


@given(st.text(max_size=90))
def test_a_text_of_any_shape_is_parsed_to_itself_or_not_at_all(text: str) -> None:
    parsed = KeyText.parse(text)
    assert parsed is None or parsed.text == text
