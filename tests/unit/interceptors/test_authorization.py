"""Which rule lets whom in."""

from __future__ import annotations

import pytest

from steward.gateway.v1 import options_pb2 as options
from steward_server.interceptors.authorization import allows, wanted
from steward_server.principals import Kind, Principal

ADMIN, USER, VIEWER, EXECUTOR = (
    options.ROLE_ADMIN,
    options.ROLE_USER,
    options.ROLE_VIEWER,
    options.ROLE_EXECUTOR,
)
FOR_PEOPLE = options.MethodRule(access=options.ACCESS_PEOPLE)
FOR_DOERS = options.MethodRule(access=options.ACCESS_PEOPLE, roles=[ADMIN, USER, EXECUTOR])
FOR_OWNERS = options.MethodRule(access=options.ACCESS_PEOPLE, roles=[ADMIN, USER])
BY_SIGN_IN = options.MethodRule(access=options.ACCESS_PEOPLE, no_keys=True)
FOR_AGENTS = options.MethodRule(access=options.ACCESS_AGENT)
FOR_BOTH = options.MethodRule(access=options.ACCESS_PEOPLE_AND_AGENT, scope="events")


@pytest.mark.parametrize(
    ("rule", "roles"),
    [
        (FOR_PEOPLE, {ADMIN, USER, VIEWER, EXECUTOR}),
        (FOR_DOERS, {ADMIN, USER, EXECUTOR}),
        (FOR_OWNERS, {ADMIN, USER}),
        (FOR_BOTH, {ADMIN, USER, VIEWER, EXECUTOR}),
        (BY_SIGN_IN, set()),
        (FOR_AGENTS, set()),
        (options.MethodRule(), set()),
    ],
)
def test_a_key_reaches_what_its_role_does(rule: options.MethodRule, roles: set[int]) -> None:
    let_in = {
        role
        for role in (ADMIN, USER, VIEWER, EXECUTOR)
        if allows(rule, Principal(Kind.KEY, "user_1", role=role))
    }
    assert let_in == roles


def test_a_person_reaches_what_keys_may_not() -> None:
    assert allows(BY_SIGN_IN, Principal(Kind.PERSON, "user_1", role=VIEWER))


def test_only_a_person_or_their_key_is_an_administrator() -> None:
    admins = {kind for kind in Kind if Principal(kind, "x", role=ADMIN).is_admin}
    assert admins == {Kind.PERSON, Kind.KEY}


def test_a_refusal_says_that_keys_are_not_wanted() -> None:
    assert wanted(BY_SIGN_IN) == "people, not their API keys"
