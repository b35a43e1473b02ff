"""The hash chain of the journal: nothing in it can be changed without a trace."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.events.journal import (
    GENESIS,
    JournalEntry,
    JournalRow,
    entry_hash,
    verify_chain,
)

Fields = tuple[int, int, str, str, str, str | None, bytes]

numbers = st.integers(0, 2**63 - 1)
texts = st.text(alphabet="aé{\x00", max_size=3)
fields = st.tuples(numbers, numbers, texts, texts, texts, st.none() | texts, st.binary(max_size=4))


def chain(*bodies: bytes, previous: bytes = GENESIS, first_lsn: int = 1) -> list[JournalRow]:
    rows = []
    for lsn, body in enumerate(bodies, first_lsn):
        said: Fields = (lsn, lsn * 10, "usage", "agent", "lease", f"request_{lsn}", body)
        previous = entry_hash(previous, *said)
        rows.append(JournalRow(*said, previous))
    return rows


def test_a_chain_as_it_was_written_is_sound() -> None:
    assert verify_chain(chain(b"{}", b'{"cost":1}', b"{}")) is None
    assert verify_chain([]) is None


def test_a_chain_may_be_verified_from_the_middle() -> None:
    rows = chain(b"1", b"2", b"3")
    assert verify_chain(rows[1:], previous=rows[0].hash) is None


@pytest.mark.parametrize(
    "change",
    [
        {"at_us": 21},
        {"kind": "usages"},
        {"agent_id": "agenT"},
        {"subject": "leasf"},
        {"key": "request_3"},
        {"key": None},
        {"body": b'{"cost":2}'},
        {"hash": bytes(32)},
    ],
)
def test_a_changed_row_breaks_the_chain_there(change: dict[str, Any]) -> None:
    rows = chain(b"{}", b'{"cost":1}', b"{}")
    rows[1] = replace(rows[1], **change)
    found = verify_chain(rows)
    assert found is not None
    assert found.lsn == 2


def test_a_changed_row_hashed_anew_breaks_the_chain_at_the_next() -> None:
    rows = chain(b"{}", b'{"cost":1}', b"{}")
    rows[1] = chain(b'{"cost":2}', previous=rows[0].hash, first_lsn=2)[0]
    found = verify_chain(rows)
    assert found is not None
    assert found.lsn == 3


def test_a_row_taken_out_put_in_or_moved_breaks_the_chain() -> None:
    first, second, third = chain(b"1", b"2", b"3")
    for rows in ([first, third], [second, third], [first, second, second, third]):
        assert verify_chain(rows) is not None
    moved = verify_chain([second, first, third])
    assert moved is not None
    assert moved.lsn == 2


def test_numbers_that_do_not_grow_are_named() -> None:
    rows = chain(b"1", b"2")
    again = verify_chain([*rows, rows[1]])
    assert again is not None
    assert again.what == "follows row 2"


def test_the_encoding_is_the_documented_one() -> None:
    said: Fields = (1, 2, "k", "a", "s", None, b"b")
    header = (1).to_bytes(8) + (2).to_bytes(8) + (1).to_bytes(4) * 3
    lengths = header + b"\xff" * 4 + (1).to_bytes(8)
    assert entry_hash(GENESIS, *said) == hashlib.sha256(bytes(32) + lengths + b"kasb").digest()


@given(one=fields, other=fields)
def test_different_rows_have_different_hashes(one: Fields, other: Fields) -> None:
    assert (entry_hash(GENESIS, *one) == entry_hash(GENESIS, *other)) == (one == other)


@given(cut=st.integers(0, 6), parts=st.tuples(texts, texts, texts))
def test_text_moved_from_one_field_to_the_next_is_another_row(
    cut: int, parts: tuple[str, str, str]
) -> None:
    text = "".join(parts)
    moved = (text[:cut], text[cut:], "")
    same = moved == parts
    one = entry_hash(GENESIS, 1, 2, *parts, None, b"")
    assert (one == entry_hash(GENESIS, 1, 2, *moved, None, b"")) == same


def test_no_key_is_not_an_empty_key() -> None:
    said = (GENESIS, 1, 2, "usage", "agent", "lease")
    assert entry_hash(*said, None, b"{}") != entry_hash(*said, "", b"{}")


def test_a_row_reads_as_its_entry() -> None:
    (row,) = chain(b'{"seq":1,"cost":9007199254740993,"over":0}')
    assert row.entry() == JournalEntry(
        1,
        10,
        "usage",
        "agent",
        "lease",
        "request_1",
        {"seq": 1, "cost": 9_007_199_254_740_993, "over": 0},
    )


def test_a_row_does_not_print_its_hash() -> None:
    (row,) = chain(b"{}")
    assert "hash" not in repr(row)
