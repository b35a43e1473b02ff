"""The audit log's chain: every way to alter it is found."""

from __future__ import annotations

from typing import Any

import pytest

from steward_server.audit.trail import GENESIS, AuditEntry, Change, verify


def entry(number: int) -> AuditEntry:
    return AuditEntry(
        number,
        1_700_000_000_000_000 + number,
        "agent.created",
        "agent",
        f"agent_{number}",
        "person",
        "user_1",
        "admin",
        "session_1",
        "192.0.2.1",
        "curl/8",
        f"req_{number}",
        "/steward.agents.v1.AgentService/CreateAgent",
        None,
        '{"name":"a"}',
        "",
    )


def chain(size: int) -> list[tuple[AuditEntry, bytes]]:
    rows, previous = [], GENESIS
    for number in range(1, size + 1):
        previous = entry(number).hash(previous)
        rows.append((entry(number), previous))
    return rows


def test_an_untouched_chain_is_sound() -> None:
    assert verify(chain(5)) is None
    assert verify([]) is None


@pytest.mark.parametrize("field", AuditEntry._fields[1:])
def test_a_changed_field_is_found_at_its_entry(field: str) -> None:
    rows = chain(5)
    old = getattr(rows[2][0], field)
    new: Any = old + 1 if isinstance(old, int) else f"{old or ''}x"
    rows[2] = (rows[2][0]._replace(**{field: new}), rows[2][1])
    found = verify(rows)
    assert found is not None
    assert found.number == 3


def test_a_missing_entry_is_found() -> None:
    rows = chain(5)
    found = verify(rows[:2] + rows[3:])
    assert found is not None
    assert (found.number, found.what) == (4, "follows entry 2")


def test_an_entry_whose_hash_was_made_to_fit_breaks_the_next() -> None:
    rows = chain(5)
    forged = rows[2][0]._replace(actor_id="user_2")
    rows[2] = (forged, forged.hash(rows[1][1]))
    found = verify(rows)
    assert found is not None
    assert found.number == 4


def test_text_cannot_move_from_one_field_to_the_next() -> None:
    one = entry(1)._replace(resource_id="ab", actor_kind="c")
    other = entry(1)._replace(resource_id="a", actor_kind="bc")
    assert one.hash(GENESIS) != other.hash(GENESIS)


def test_the_type_of_what_changed_is_the_first_part_of_the_action() -> None:
    assert Change("api_key.revoked", "key_1").resource_type == "api_key"


def test_a_chain_can_be_verified_in_parts() -> None:
    rows = chain(5)
    assert verify(rows[3:], number=3, previous=rows[2][1]) is None
