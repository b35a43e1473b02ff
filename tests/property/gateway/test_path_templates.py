"""Paths made from a template lead back to the values they were made from."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from steward_gateway.templates import Trie, parse_template

values = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
words = st.from_regex(r"[a-z]{1,3}", fullmatch=True)


@given(values, values)
def test_any_value_survives_a_path_of_single_segments(first: str, second: str) -> None:
    template = parse_template("/v1/{first}/between/{second}")
    trie: Trie[str] = Trie()
    trie.add(template, "GET", "target")
    found = trie.find(f"/v1/{quote(first, safe='')}/between/{quote(second, safe='')}", "GET")
    assert found is not None
    assert template.values(found.segments) == [first, second]


@given(st.lists(values, max_size=4))
def test_a_variable_of_many_segments_keeps_only_escaped_slashes(parts: list[str]) -> None:
    template = parse_template("/v1/{rest=**}")
    trie: Trie[str] = Trie()
    trie.add(template, "GET", "target")
    path = "/".join(quote(part, safe="") for part in parts)
    found = trie.find(f"/v1/{path}" if parts else "/v1", "GET")
    assert found is not None
    expected = "/".join(part.replace("/", "%2F") for part in parts)
    assert template.values(found.segments) == [expected]


@given(st.lists(st.lists(st.one_of(words, st.just("*")), min_size=1, max_size=4), max_size=12))
def test_the_trie_finds_what_a_search_one_by_one_finds(shapes: list[list[str]]) -> None:
    trie: Trie[str] = Trie()
    known = {"/".join(shape): shape for shape in shapes}
    for text, shape in known.items():
        written = "/" + "/".join(f"{{v{i}}}" if s == "*" else s for i, s in enumerate(shape))
        trie.add(parse_template(written), "GET", text)
    for text, shape in known.items():
        path = ["x-y" if segment == "*" else segment for segment in shape]
        matching = [
            other
            for other, pattern in known.items()
            if len(pattern) == len(path)
            and all(p in ("*", s) for p, s in zip(pattern, path, strict=True))
        ]
        # The most specific: a literal is better the earlier it stands.
        best = min(matching, key=lambda other: [part == "*" for part in known[other]])
        found = trie.find("/" + "/".join(path), "GET")
        assert found is not None, text
        assert found.targets["GET"] == best
