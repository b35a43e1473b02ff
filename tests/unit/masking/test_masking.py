"""Masking: what of a text is replaced, and what is left alone."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from steward_server.masking import MARKER, MAX_DEPTH, Taint

SECRET = "p&ss/<w>ö \"rd'+\\9"


def in_base64(before: str) -> Callable[[str], str]:
    return lambda secret: base64.b64encode(f"{before}{secret} and more".encode()).decode()


SPELT: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "quote": urllib.parse.quote,
    "quote all": lambda text: urllib.parse.quote(text, safe=""),
    "quote_plus": urllib.parse.quote_plus,
    "quote_plus with small digits": lambda text: urllib.parse.quote_plus(text).lower(),
    "encodeURIComponent": lambda text: urllib.parse.quote(text, safe="!'()*"),
    "encodeURI": lambda text: urllib.parse.quote(text, safe="!'()*;,/?:@&=+$#"),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON of PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON of Go": lambda text: (
        json.dumps(text, ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    ),
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "HTML of Jinja": lambda text: (
        html.escape(text, quote=False).replace('"', "&#34;").replace("'", "&#39;")
    ),
    "XML in ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"password": text})),
    "JSON in base64": lambda text: base64.b64encode(json.dumps([text]).encode()).decode(),
    "JSON in hexadecimal": lambda text: json.dumps([text]).encode().hex(),
    "Python": repr,
    "hexadecimal": lambda text: text.encode().hex(),
    "HEXADECIMAL": lambda text: text.encode().hex().upper(),
    "base64": in_base64(""),
    "base64, one before": in_base64("1"),
    "base64, two before": in_base64("12"),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(f"??>{text}".encode()).decode(),
}


@pytest.mark.parametrize("spell", SPELT.values(), ids=SPELT)
def test_a_secret_is_masked_however_it_is_spelled(spell: Callable[[str], str]) -> None:
    spelt = spell(SECRET)
    masked = Taint([SECRET]).mask(f"before {spelt} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert masked.count(MARKER) == 1
    assert len(masked) < len("before  after") + 30  # of base64 its edges are left, and the marker
    assert spelt not in masked


def test_what_stands_before_a_secret_does_not_hide_it() -> None:
    taint = Taint(["41 x/y", 'u0041"!'])
    assert taint.mask("%41%20x%2Fy") == f"%{MARKER}"
    assert taint.mask('\\u0041\\"!') == f"\\{MARKER}"


def test_the_marker_tells_nothing_of_the_length() -> None:
    for secret in ("four", "a much longer secret than that", "x" * 1_000):
        assert Taint([secret]).mask(f"<{secret}>") == f"<{MARKER}>"


def test_of_secrets_in_one_another_the_longest_is_masked() -> None:
    taint = Taint(["pass", "password", "my password is long"])
    assert taint.mask("my password is long") == MARKER
    assert taint.mask("my password is lon") == f"my {MARKER} is lon"
    assert taint.mask("my passwor") == f"my {MARKER}wor"


def test_what_overlaps_is_masked_together() -> None:
    taint = Taint(["abcdef", "defghi"])
    assert taint.mask("-abcdefghi-") == f"-{MARKER}-"
    assert taint.mask("-abcdef-defghi-") == f"-{MARKER}-{MARKER}-"
    assert Taint(["abab"]).mask("-ababababab-") == f"-{MARKER}-"
    # The longer one comes to its end first, and the other began before it.
    assert Taint(["abcdef", "cdefgh", "bcde"]).mask("abcdefgh") == MARKER


def test_a_short_secret_is_masked_only_as_a_whole_value() -> None:
    taint = Taint(["abc", "7", ""])
    assert taint.mask("abc abcd 7") == "abc abcd 7"
    assert taint.mask_value("abc") == MARKER
    assert taint.mask_value({"abc": ["abc", "abcd", "", 7, 71, "7"]}) == {
        MARKER: [MARKER, "abcd", "", MARKER, 71, MARKER]
    }


def test_values_are_masked_in_texts_keys_and_numbers_at_any_depth() -> None:
    taint = Taint(["hunter2!", "4711"])
    value: Any = {
        "login": {"password": "hunter2!", "hunter2!": True, "url": "http://x/?p=hunter2%21"},
        "list": [["hunter2!"], 4711, -4711.5, 47, None, False],
    }
    assert taint.mask_value(value) == {
        "login": {"password": MARKER, MARKER: True, "url": f"http://x/?p={MARKER}"},
        "list": [[MARKER], MARKER, MARKER, 47, None, False],
    }
    assert value["login"]["password"] == "hunter2!"  # whoever gave it still has it


def test_keys_that_look_the_same_when_masked_keep_their_values() -> None:
    taint = Taint(["one secret", "another one"])
    value: Any = {"one secret": 1, "another one": 2, MARKER: 3}
    assert taint.mask_value(value) == {MARKER: 1, f"{MARKER} (2)": 2, f"{MARKER} (3)": 3}


def test_what_lies_too_deep_is_masked_unseen() -> None:
    value: Any = "plain"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert Taint().mask_value(value) == value
    masked: Any = Taint().mask_value([value])
    for _ in range(MAX_DEPTH):
        masked = masked[0]
    assert masked == MARKER


@pytest.mark.parametrize("value", [b"hunter2!", ("hunter2!",), {"hunter2!"}, object()])
def test_what_is_no_value_of_json_is_not_let_through(value: Any) -> None:
    with pytest.raises(TypeError, match="is no value of JSON"):
        Taint(["hunter2!"]).mask_value([value])


def test_a_stream_holds_back_only_what_may_begin_a_secret() -> None:
    stream = Taint(["hunter2!", "hunting season"]).stream()
    assert stream.feed("the password is hun") == "the password is "
    assert stream.feed("gry") == "hungry"
    assert stream.feed(" hunter2") == " "
    assert stream.feed("!") == MARKER  # at once: no secret goes on after it
    assert stream.feed(" hunt") == " "
    assert stream.feed("") == ""
    assert stream.flush() == "hunt"
    assert stream.feed("hunter2! hunt") == f"{MARKER} "


def test_a_secret_that_goes_on_and_on_is_told_once() -> None:
    stream = Taint(["aaaa"]).stream()
    told = "".join(stream.feed("a" * 100) for _ in range(100)) + stream.feed("b") + stream.flush()
    assert told == f"{MARKER}b"


def test_a_secret_after_a_secret_is_told_once_each_however_it_comes() -> None:
    stream = Taint(["0010"]).stream()
    assert "".join(map(stream.feed, "00100010-")) + stream.flush() == f"{MARKER}{MARKER}-"


def test_no_secrets_mask_nothing() -> None:
    assert Taint().mask(MARKER) == MARKER
    assert Taint([""]).mask("text") == "text"
    assert Taint([""]).mask_value("") == ""


def test_a_taint_grows_and_does_not_show_its_secrets() -> None:
    first = Taint(["hunter2!"])
    second = first.including("another one", "hunter2!")
    assert first.mask("another one") == "another one"
    assert second.mask("another one of hunter2!") == f"{MARKER} of {MARKER}"
    assert repr(second) == "Taint(2 secrets)"
