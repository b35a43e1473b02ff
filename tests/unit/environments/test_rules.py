"""Small rules: rights, quotas, signals, output and tickets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.gateway.v1 import options_pb2 as options
from steward_server.environments.driver import Stream
from steward_server.environments.environment import Resources
from steward_server.environments.output import (
    MAX_LINE_BYTES,
    Bounded,
    Lines,
    Texts,
    without_beginning,
)
from steward_server.environments.quota import Quota, Use
from steward_server.environments.rights import level_of, must_have
from steward_server.environments.signals import signal_name, signal_number
from steward_server.environments.tickets import (
    LIFE_US,
    MAX_OF_CALLER,
    MAX_TICKETS,
    Tickets,
)
from steward_server.errors import (
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from steward_server.permissions import Permission
from steward_server.principals import Kind, Principal

ROLES = (options.ROLE_ADMIN, options.ROLE_USER, options.ROLE_EXECUTOR, options.ROLE_VIEWER)
CAPS = {options.ROLE_EXECUTOR: 2, options.ROLE_VIEWER: 1}
permissions = st.none() | st.sampled_from(Permission)


@given(
    st.sampled_from(ROLES),
    st.booleans(),
    permissions,
    st.dictionaries(st.sampled_from(["env-1", "env-2"]), st.sampled_from(Permission)),
)
def test_the_right_is_the_least_of_role_person_and_key(
    role: options.Role.ValueType,
    owns: bool,  # noqa: FBT001 - hypothesis gives it
    shared: Permission | None,
    key: dict[str, Permission],
) -> None:
    caller = Principal(Kind.KEY, "user_1", role=role, permissions=key)
    level = level_of(caller, "env-1", "user_1" if owns else "user_2", shared)
    persons = 3 if owns or role == options.ROLE_ADMIN else (shared or 0)
    keys = key.get("env-1", 0) if key else 3
    assert (level or 0) == min(persons, keys, CAPS.get(role, 3))


@given(st.sampled_from(["agent_1", "agent_2", ""]), st.booleans(), permissions)
def test_an_agent_may_do_anything_with_what_it_has_created_and_nothing_else(
    created_by: str,
    owns: bool,  # noqa: FBT001 - hypothesis gives it
    shared: Permission | None,
) -> None:
    caller = Principal(Kind.AGENT, "agent_1")
    owner_id = "agent_1" if owns else "user_1"
    level = level_of(caller, "env-1", owner_id, shared, agent_id=created_by)
    assert level is (Permission.ADMIN if created_by == "agent_1" else None)


def test_what_may_not_be_read_does_not_exist() -> None:
    with pytest.raises(NotFound, match="no environment 'env-1'"):
        must_have(None, Permission.READ, "env-1")
    with pytest.raises(PermissionDenied) as refused:
        must_have(Permission.READ, Permission.WRITE, "env-1")
    assert refused.value.facts["needed"] == "write"
    assert must_have(Permission.ADMIN, Permission.WRITE, "env-1") is Permission.ADMIN


def test_a_quota_names_every_amount_that_is_beyond_it() -> None:
    before = Use(2, 1500, 2**30, 2**30)
    after = before.plus(Resources(1000, 2**30, 2**30))
    Quota(3, 2500, 2**31, 2**31).must_hold(before, after, "you")
    Quota().must_hold(before, after, "you")
    with pytest.raises(ResourceExhausted) as refused:
        Quota(2, 2000, 2**30, 2**31).must_hold(before, after, "you")
    assert refused.value.reason == "QUOTA_EXCEEDED"
    assert refused.value.facts == {
        "count_limit": "2",
        "count_used": "2",
        "count_wanted": "3",
        "cpu_limit": "2",
        "cpu_used": "1500m",
        "cpu_wanted": "2500m",
        "memory_limit": "1Gi",
        "memory_used": "1Gi",
        "memory_wanted": "2Gi",
    }


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "sigterm", " term ", "15"])
def test_signals_are_read_as_people_write_them(text: str) -> None:
    assert signal_number(text) == 15


@pytest.mark.parametrize("text", ["", "SIG", "LOUD", "0", "65", "-9", "9.0", "٩", "BLOCK"])
def test_what_is_no_signal_is_none(text: str) -> None:
    assert signal_number(text) is None


def test_signals_have_names() -> None:
    assert [signal_name(each) for each in (9, None, 40)] == ["SIGKILL", "", "40"]


@given(st.text(max_size=50), st.integers(0, 120), st.integers(1, 7))
def test_what_is_kept_is_the_beginning_in_whole_characters(
    text: str, limit: int, step: int
) -> None:
    kept, data = Bounded(limit), text.encode()
    for at in range(0, len(data), step):
        kept.add(data[at : at + step])
    assert text.startswith(kept.text())
    assert kept.is_truncated is (len(data) > limit)
    assert len(kept.text().encode()) > limit - 4 or not kept.is_truncated


@given(st.text(max_size=50), st.lists(st.integers(1, 5), min_size=1, max_size=100))
def test_pieces_of_text_together_are_the_text(text: str, steps: list[int]) -> None:
    texts, data, shown = Texts(), text.encode(), ""
    for step in steps:
        shown += texts.text(Stream.STDOUT, data[:step])
        data = data[step:]
    shown += texts.text(Stream.STDOUT, data, final=True)
    assert shown == text


@given(st.binary(max_size=200), st.integers(1, 9))
def test_lines_are_cut_where_they_end(data: bytes, step: int) -> None:
    lines, cut = Lines(1_000), []
    for at in range(0, len(data), step):
        cut += lines.add(Stream.STDOUT, data[at : at + step])
    cut += lines.rest(Stream.STDOUT)
    wanted = data.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    assert cut == [each.removesuffix(b"\r").decode(errors="replace") for each in wanted]
    assert not lines.is_full()


def test_a_log_takes_so_much_and_says_once_that_there_is_more() -> None:
    lines = Lines(10)
    assert lines.add(Stream.STDOUT, b"12345\n") == ["12345"]
    assert not lines.is_full()
    assert lines.add(Stream.STDERR, b"1234567\n") == []
    assert lines.is_full()
    assert not lines.is_full()
    assert lines.rest(Stream.STDERR) == ["1234"]
    assert lines.add(Stream.STDOUT, b"more\n") == []


def test_a_line_without_end_is_cut() -> None:
    lines = Lines(10 * MAX_LINE_BYTES)
    cut = lines.add(Stream.STDOUT, b"x" * (2 * MAX_LINE_BYTES + 1))
    assert [len(each) for each in cut] == [MAX_LINE_BYTES, MAX_LINE_BYTES]
    assert lines.rest(Stream.STDOUT) == ["x"]


def test_bytes_from_the_middle_begin_with_a_character() -> None:
    assert without_beginning("é".encode()[1:] + b"a") == b"a"
    assert without_beginning("aé".encode()) == "aé".encode()
    assert without_beginning(b"") == b""


# Tickets.

NOW_US = 1_000_000_000
METHOD = "/s/Attach"


class Clock:
    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


def test_a_ticket_stands_once_for_what_its_caller_showed() -> None:
    tickets = Tickets(Clock())
    shown = {"authorization": "Bearer x", "user-agent": "curl", "x-api-key": ""}
    text, expires_at_us = tickets.give("u-1", shown, "env-1", frozenset({METHOD}))
    assert expires_at_us == NOW_US + LIFE_US
    assert "Bearer" not in repr(tickets._open)
    ticket = tickets.take(text, METHOD)
    assert (ticket.environment_id, ticket.credentials) == ("env-1", {"authorization": "Bearer x"})
    with pytest.raises(Unauthenticated):
        tickets.take(text, METHOD)


def test_a_ticket_for_something_else_is_refused_and_gone() -> None:
    tickets = Tickets(Clock())
    text, _ = tickets.give("u-1", {}, "env-1", frozenset({METHOD}))
    with pytest.raises(PermissionDenied):
        tickets.take(text, "/s/Other")
    with pytest.raises(Unauthenticated):
        tickets.take(text, METHOD)


def test_tickets_end_and_are_bounded() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    for number in range(MAX_TICKETS):
        text, _ = tickets.give(f"u-{number % 100}", {}, "env-1", frozenset({METHOD}))
    with pytest.raises(ResourceExhausted):
        tickets.give("u-another", {}, "env-1", frozenset({METHOD}))
    clock.now_us += LIFE_US
    with pytest.raises(Unauthenticated):
        tickets.take(text, METHOD)
    tickets.give("u-another", {}, "env-1", frozenset({METHOD}))
    assert (len(tickets._open), tickets._of_callers) == (1, {"u-another": 1})


def test_nobody_has_so_many_tickets_that_others_have_none() -> None:
    tickets = Tickets(Clock())
    for _ in range(MAX_OF_CALLER):
        text, _ = tickets.give("u-1", {}, "env-1", frozenset({METHOD}))
    with pytest.raises(ResourceExhausted) as refused:
        tickets.give("u-1", {}, "env-2", frozenset({METHOD}))
    assert refused.value.reason == "TOO_MANY_TICKETS"
    tickets.give("u-2", {}, "env-1", frozenset({METHOD}))
    tickets.take(text, METHOD)
    tickets.give("u-1", {}, "env-2", frozenset({METHOD}))
