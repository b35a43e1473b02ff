"""Masking, whatever the secrets are, whatever is around them and however the text is cut."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from steward_server.automaton import Automaton
from steward_server.masking import MARKER, SHORTEST, Taint
from steward_server.spellings import spellings

# Few characters, so that texts and secrets have much in common; all that encoders treat apart.
# The marker's own is not among them: what is left around markers could spell such a secret anew.
ALPHABET = st.sampled_from("abA01 %&+/\\\"'<>;#=-_~.!(\n\x7f\xa0üé€\u2028😀") | st.characters(
    exclude_characters="*", exclude_categories=["Cs"]
)
LONG = st.text(ALPHABET, min_size=SHORTEST, max_size=12)
SECRETS = st.lists(LONG, min_size=1, max_size=4)

SPELLED: list[Callable[[str], str]] = [
    str,
    lambda text: repr(text)[1:-1],
    lambda text: urllib.parse.quote(text, safe=""),
    urllib.parse.quote,
    urllib.parse.quote_plus,
    lambda text: urllib.parse.quote(text, safe="!'()*"),
    lambda text: urllib.parse.quote(text, safe="!'()*;,/?:@&=+$#"),
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    html.escape,
    lambda text: html.escape(text, quote=False),
    lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    lambda text: text.encode().hex(),
    lambda text: text.encode().hex().upper(),
]
"""Written with other people's encoders, not with ours."""


def in_base64(secret: str) -> Iterator[str]:
    """What of a secret in base64 is there at each alignment, with anything around it."""
    for before in range(3):
        after = -(before + len(secret.encode())) % 3
        one, other = (
            base64.b64encode(side * before + secret.encode() + side * after).decode()
            for side in (b"\0", b"\xff")
        )
        yield "".join(each for each, its in zip(one, other, strict=True) if each == its)


def spelled(secret: str) -> set[str]:
    return {spell(secret) for spell in SPELLED} | set(in_base64(secret))


@st.composite
def texts(draw: st.DrawFn, secrets: list[str]) -> str:
    """Secrets in all spellings, parts of them, and other text, in any order."""
    whole = sorted({each for secret in secrets for each in spelled(secret)})
    spelling = st.sampled_from(whole)
    part = st.builds(
        lambda text, begin, end: text[begin:end], spelling, st.integers(0, 6), st.integers(1, 12)
    )
    within = st.builds(
        lambda left, secret, right, encode: encode(left + secret.encode() + right).decode(),
        st.binary(max_size=4),
        st.sampled_from(secrets),
        st.binary(max_size=4),
        st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
    )
    pieces = spelling | part | within | st.text(ALPHABET, max_size=6)
    return "".join(draw(st.lists(pieces, max_size=10)))


def cut(text: str, places: Iterable[int]) -> Iterator[str]:
    begin = 0
    for place in [*sorted(min(each, len(text)) for each in places), len(text)]:
        yield text[begin:place]
        begin = place


def masked_slowly(text: str, wanted: Iterable[str]) -> str:
    """What masking is: every occurrence, those that overlap together, each group a marker."""
    spans = sorted(
        (start, start + len(each))
        for each in wanted
        for start in range(len(text))
        if text.startswith(each, start)
    )
    told, position, index = "", 0, 0
    while index < len(spans):
        start, end = spans[index]
        while index < len(spans) and spans[index][0] < end:
            end = max(end, spans[index][1])
            index += 1
        told += text[position:start] + MARKER
        position = end
    return told + text[position:]


@given(st.data(), SECRETS)
def test_no_secret_survives_in_any_spelling(data: st.DataObject, secrets: list[str]) -> None:
    masked = Taint(secrets).mask(data.draw(texts(secrets)))
    for secret in secrets:
        for each in spelled(secret):
            assert each not in masked


@given(st.data(), SECRETS)
def test_masking_replaces_every_occurrence_and_nothing_else(
    data: st.DataObject, secrets: list[str]
) -> None:
    text = data.draw(texts(secrets))
    wanted = {each for secret in secrets for each in spellings(secret)}
    assert Taint(secrets).mask(text) == masked_slowly(text, wanted)


@given(st.data(), SECRETS, st.lists(st.integers(0, 200), max_size=12) | st.just([*range(200)]))
def test_it_makes_no_difference_where_a_text_is_cut(
    data: st.DataObject, secrets: list[str], places: list[int]
) -> None:
    taint = Taint(secrets)
    text = data.draw(texts(secrets))
    stream = taint.stream()
    for _ in range(2):  # a stream that has ended is as good as a new one
        told = "".join([stream.feed(piece) for piece in cut(text, places)]) + stream.flush()
        assert told == taint.mask(text)


@given(SECRETS, st.text(ALPHABET, max_size=60))
def test_a_text_without_secrets_is_unchanged(secrets: list[str], text: str) -> None:
    assume(not any(each in text for secret in secrets for each in spellings(secret)))
    assert Taint(secrets).mask(text) == text
    assert Taint(secrets).mask_value({"text": [text, 0.5, None]}) == {"text": [text, 0.5, None]}


def values(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


@given(
    st.data(),
    st.lists(LONG | st.text("0123456789", min_size=1, max_size=6), min_size=1, max_size=3),
)
def test_no_secret_survives_in_a_value(data: st.DataObject, secrets: list[str]) -> None:
    long_enough = [each for each in secrets if len(each) >= SHORTEST]
    text = texts(long_enough or ["long enough"])
    leaves = (
        text
        | st.sampled_from(secrets)
        | st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
    )
    value = data.draw(values(leaves, text))
    masked = Taint(secrets).mask_value(value)
    for found in texts_in(masked):
        assert found not in secrets
        for secret in long_enough:
            assert not any(each in found for each in spelled(secret))


@given(
    st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5),
    st.text("abc", max_size=30),
    st.integers(0, 30),
)
def test_the_automaton_finds_the_longest_text_that_ends_at_each_place(
    wanted: list[str], text: str, cut_at: int
) -> None:
    automaton = Automaton(wanted)
    state, found = automaton.scan(text[:cut_at], 0, 0)
    state, more = automaton.scan(text, len(text[:cut_at]), state)
    expected = {
        end: max(len(each) for each in wanted if text[:end].endswith(each))
        for end in range(len(text) + 1)
        if any(text[:end].endswith(each) for each in wanted)
    }
    assert dict(found + more) == expected
    awaited = automaton.awaited(state)
    begun = [
        size
        for size in range(1, len(text) + 1)
        if any(each.startswith(text[len(text) - size :]) and len(each) > size for each in wanted)
    ]
    assert awaited == max(begun, default=0)
