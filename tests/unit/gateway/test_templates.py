"""Path templates: their grammar, and which of several a path leads to."""

from __future__ import annotations

import pytest

from steward_gateway.templates import BadPath, BadTemplate, Trie, parse_template


@pytest.mark.parametrize(
    ("text", "segments", "verb", "variables"),
    [
        ("/", (), "", []),
        ("/a/b", ("a", "b"), "", []),
        ("/a/*", ("a", "*"), "", []),
        ("/a/**", ("a", "**"), "", []),
        ("/a/{b}", ("a", "*"), "", [("b", 1, 2, False)]),
        ("/a/{b.c=*}/d", ("a", "*", "d"), "", [("b.c", 1, 2, False)]),
        ("/{name=a/*/b/*}", ("a", "*", "b", "*"), "", [("name", 0, 4, True)]),
        ("/a/{rest=**}:copy", ("a", "**"), "copy", [("rest", 1, None, True)]),
        ("/{name=logs/**}", ("logs", "**"), "", [("name", 0, None, True)]),
        ("/a%20b/c", ("a b", "c"), "", []),
    ],
)
def test_a_template_is_read(
    text: str, segments: tuple[str, ...], verb: str, variables: list[tuple[str, int, int, bool]]
) -> None:
    template = parse_template(text)
    assert template.segments == segments
    assert template.verb == verb
    read = [(".".join(v.field_path), v.start, v.end, v.multi) for v in template.variables]
    assert read == variables


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "lacks '/' at position 0"),
        ("a", "lacks '/' at position 0"),
        ("/a/", "lacks a path segment at position 3"),
        ("//a", "lacks a path segment at position 1"),
        ("/a/{", "lacks a field name at position 4"),
        ("/a/{b", "lacks '}' at position 5"),
        ("/a/{b=}", "lacks a path segment at position 6"),
        ("/a/{1b}", "lacks a field name at position 4"),
        ("/a/{b={c}}", "has a variable inside a variable at position 6"),
        ("/a/**/b", "has something after `**`, which must be last"),
        ("/{a=**}/{b}", "has something after `**`, which must be last"),
        ("/{a}/{a}", "names a variable twice"),
        ("/a:", "lacks a path segment at position 3"),
        ("/a:b:c", "has an unexpected ':' at position 4"),
        ("/a b", "has an unexpected ' ' at position 2"),
        ("/a?b", "has an unexpected '?' at position 2"),
        ("/***", "has an unexpected '*' at position 3"),
    ],
)
def test_a_broken_template_is_refused_with_its_position(text: str, complaint: str) -> None:
    with pytest.raises(BadTemplate) as refused:
        parse_template(text)
    assert str(refused.value) == complaint


def trie_of(*texts: str) -> Trie[str]:
    trie: Trie[str] = Trie()
    for text in texts:
        method, _, path = text.partition(" ")
        trie.add(parse_template(path), method, text)
    return trie


ROUTES = (
    "GET /a",
    "GET /a/{b}",
    "GET /a/fixed",
    "POST /a/{b}",
    "POST /a/{b}:copy",
    "GET /a/{b}/c/{d}",
    "GET /a/{rest=**}",
    "GET /a/x/y",
    "GET /deep/{p=x/*}/end",
    "* /any",
)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/a", "GET /a"),
        ("GET", "/a/1", "GET /a/{b}"),
        ("GET", "/a/fixed", "GET /a/fixed"),
        ("POST", "/a/fixed", "POST /a/{b}"),
        ("GET", "/a/x/y", "GET /a/x/y"),
        ("GET", "/a/x/z", "GET /a/{rest=**}"),
        ("GET", "/a/1/c/2", "GET /a/{b}/c/{d}"),
        ("GET", "/a/1/c", "GET /a/{rest=**}"),
        ("GET", "/a/", "GET /a/{rest=**}"),
        ("POST", "/a/1:copy", "POST /a/{b}:copy"),
        ("POST", "/a/1:other", "POST /a/{b}"),
        ("GET", "/a/1:copy", "GET /a/{b}"),
        ("POST", "/a/1%3Acopy", "POST /a/{b}"),
        ("GET", "/deep/x/1/end", "GET /deep/{p=x/*}/end"),
        ("GET", "/%61/fixed", "GET /a/fixed"),
        ("PURGE", "/any", "* /any"),
    ],
)
def test_the_most_specific_route_wins(method: str, path: str, expected: str) -> None:
    found = trie_of(*ROUTES).find(path, method)
    assert found is not None
    assert found.targets.get(method, found.targets.get("*")) == expected


@pytest.mark.parametrize("path", ["/", "/b", "/deep/x/1", "/deep/y/1/end", "/any/more", "//a"])
def test_what_matches_nothing_is_not_found(path: str) -> None:
    assert trie_of(*ROUTES).find(path, "GET") is None


def test_a_known_path_with_another_method_gives_what_is_allowed() -> None:
    found = trie_of(*ROUTES).find("/a/1", "DELETE")
    assert found is not None
    assert set(found.targets) == {"GET", "POST"}


def test_an_empty_segment_is_no_value() -> None:
    assert trie_of("GET /a/{b}/c").find("/a//c", "GET") is None


def test_the_routes_around_an_unknown_path_are_known() -> None:
    trie = trie_of("GET /a/b/c", "GET /a/b/{d}", "GET /x")
    assert set(trie.nearest("/a/b/q/r")) == {"GET /a/b/{d}"}
    assert set(trie.nearest("/a/nothing")) == {"GET /a/b/c", "GET /a/b/{d}"}


@pytest.mark.parametrize("path", ["/a/%", "/a/%2", "/a/%zz", "/a/%ff", "/%c3/x"])
def test_a_path_that_cannot_be_decoded_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        trie_of(*ROUTES).find(path, "GET")
