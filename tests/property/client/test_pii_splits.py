"""Personal data in text that comes in any pieces."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from steward_client.pii import PiiKind, PiiStream, may_hold, redact, scan

VALUES = st.sampled_from(
    [
        "ann@example.com",
        "555-123-4567",
        "+44 20 7946 0958",
        "(555) 123-4567",
        "123-45-6789",
        "4111 1111 1111 1111",
        "4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 00",
        "GB82WEST12345698765432",
    ]
)
NOISE = st.text(alphabet="ab1 4@.-+()\n:é5", max_size=12)
TEXTS = st.lists(st.one_of(VALUES, NOISE), max_size=12).map("".join)


@settings(max_examples=400)
@given(text=TEXTS, data=st.data())
def test_findings_do_not_depend_on_where_a_text_is_cut(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=30)))
    stream = PiiStream()
    found: Counter[PiiKind] = Counter()
    for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        found += stream.feed(encoded[start:end])
    found += stream.finish()

    assert found == scan(text)


@settings(max_examples=300)
@given(text=TEXTS)
def test_redacting_counts_what_scanning_finds_and_leaves_no_value(text: str) -> None:
    redacted, found = redact(text)

    assert found == scan(text)
    assert sum(redacted.count(f"[{kind.value}]") for kind in PiiKind) >= sum(found.values())


@settings(max_examples=300)
@given(text=st.one_of(TEXTS, st.text(max_size=80)))
def test_no_finding_is_passed_over_by_the_quick_look(text: str) -> None:
    import json

    for encoded in (json.dumps({"a": text}), json.dumps({"a": text}, ensure_ascii=False)):
        if scan(text):
            assert may_hold(encoded.encode("utf-8", "replace"))
