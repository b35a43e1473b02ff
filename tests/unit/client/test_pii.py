"""Five kinds of personal data and what only looks like them."""

from __future__ import annotations

import builtins
import importlib
from collections import Counter
from typing import Any

import pytest

from steward_client import pii
from steward_client.pii import PiiKind, PiiStream, may_hold, redact, redact_json, scan, scan_json

FOUND = [
    ("write to bob.smith+x@mail.example.com.", PiiKind.EMAIL),
    ("<a@b.io>", PiiKind.EMAIL),
    ("call (555) 123-4567 today", PiiKind.PHONE),
    ("call 555-123-4567", PiiKind.PHONE),
    ("call 555.123.4567", PiiKind.PHONE),
    ("+1 555 123 4567", PiiKind.PHONE),
    ("+15551234567", PiiKind.PHONE),
    ("+44 20 7946 0958", PiiKind.PHONE),
    ("ssn 123-45-6789", PiiKind.SSN),
    ("ssn 123 45 6789.", PiiKind.SSN),
    ("card 4111 1111 1111 1111", PiiKind.CARD),
    ("card 4111111111111111,", PiiKind.CARD),
    ("card 3782 822463 10005", PiiKind.CARD),
    ("card 4111 1111 1111 1111 2027", PiiKind.CARD),
    ("iban DE89 3704 0044 0532 0130 00 please", PiiKind.IBAN),
    ("iban gb82west12345698765432", PiiKind.IBAN),
    ("iban NO93 8601 1117 947", PiiKind.IBAN),
]

TRAPS = [
    "version 1.2.3-4567",
    "4111 1111 1111 1112",
    "000-12-3456",
    "666-12-3456",
    "900-12-3456",
    "123-00-4567",
    "123-45-0000",
    "123-45 6789",
    "DE89 3704 0044 0532 0130 01",
    "3.1415926535 and 2.7182818284",
    "1732180000",
    "2026-11-21 09:15:00",
    "10.0.0.255",
    "user@localhost",
    "@example.com",
    "a@-b.com",
    "0f8a2c4e-5551-1234-5678-000000000000",
    "id_555-123-4567",
    "AB12 CDEF",
    "$4111111111111111",
]


@pytest.mark.parametrize(("text", "kind"), FOUND)
def test_what_is_personal_is_found_as_its_kind(text: str, kind: PiiKind) -> None:
    assert scan(text) == {kind: 1}


@pytest.mark.parametrize("text", TRAPS)
def test_what_only_looks_personal_is_not_found(text: str) -> None:
    assert scan(text) == {}


def test_several_are_counted() -> None:
    text = " ".join(text for text, _ in FOUND)

    assert scan(text) == Counter(kind for _, kind in FOUND)


def test_redacting_leaves_the_kind_and_nothing_of_the_value() -> None:
    text, found = redact("Ann (ann@example.com, 555-123-4567) owes DE89370400440532013000 €5.")

    assert text == "Ann ([email], [phone]) owes [iban] €5."
    assert found == {PiiKind.EMAIL: 1, PiiKind.PHONE: 1, PiiKind.IBAN: 1}


def test_redacting_clean_text_changes_nothing() -> None:
    text = "Zażółć gęślą jaźń 🙂"

    assert redact(text) == (text, {})


def test_json_is_read_string_by_string_without_pictures() -> None:
    body = {
        "messages": [
            {"role": "user", "content": "ann@example.com\nbob@example.com"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "555-123-4567"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,ann@ex.com"}},
                    {"type": "image", "source": {"data": "ann@example.com"}},
                ],
            },
        ],
        "seed": 4111111111111111,
    }
    redacted, found = redact_json(body)

    assert scan_json(body) == found == {PiiKind.EMAIL: 2, PiiKind.PHONE: 1}
    assert redacted["messages"][0]["content"] == "[email]\n[email]"
    assert redacted["messages"][1]["content"][0]["text"] == "[phone]"
    assert redacted["messages"][1]["content"][1:] == body["messages"][1]["content"][1:]  # type: ignore[index]
    assert redacted["seed"] == body["seed"]


@pytest.mark.parametrize(
    "text",
    [
        rb'{"a":"x\nann@example.com"}',
        rb'{"a":"\t555-123-4567"}',
        rb'{"a":"ann\u0040example.com"}',
        rb'{"a":"ann@example.com"}',
        rb'{"a":"\"ann@example.com\""}',
        rb'{"a":"\"created\":4111111111111111"}',
    ],
)
def test_a_json_text_that_may_hold_some_is_never_passed_over(text: bytes) -> None:
    assert may_hold(text)


def test_a_clean_json_text_is_passed_over() -> None:
    assert not may_hold(
        rb'{"model":"gpt-4o","created":1700000000,"content":"What?\nTell me \"all\"."}'
    )


def test_a_value_split_over_pieces_is_found_once() -> None:
    stream = PiiStream()
    found: Counter[PiiKind] = Counter()
    for piece in (b"mail ann", b"@exam", b"ple.com", b" or 555-12", b"3-4567"):
        found += stream.feed(piece)
    found += stream.finish()

    assert found == {PiiKind.EMAIL: 1, PiiKind.PHONE: 1}


@pytest.mark.parametrize(("text", "kind"), FOUND)
def test_without_re2_the_same_is_found(
    text: str, kind: PiiKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = builtins.__import__

    def without_re2(name: str, *args: Any) -> Any:
        if name == "re2":
            raise ImportError(name)
        return plain(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_re2)
    spec = importlib.util.find_spec("steward_client.pii")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(importlib.import_module("sys").modules, spec.name, module)
    spec.loader.exec_module(module)

    assert [(each.value, count) for each, count in module.scan(text).items()] == [(kind.value, 1)]
    assert all(not module.scan(trap) for trap in TRAPS)
    assert module is not pii
