"""How a secret may be written down by those who do not know that it is one. Pure.

Encoders differ in what they leave alone and in the case of their digits. Each way below is one that
a well-known encoder has; a secret without special characters looks the same in most of them.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import product, starmap

Encoder = Callable[[str], str]
"""One character as it is written."""


def spellings(secret: str) -> frozenset[str]:
    """A text as it is, and encoded for URLs, JSON, HTML and Python, in hexadecimal and base64.

    JSON also within JSON, and within the last two.
    Of base64 only the characters that do not depend on what stands before and after the secret.
    """
    characters = set(secret) - _PLAIN
    encoded = {
        secret.translate({ord(each): encode(each) for each in characters}) for encode in _ENCODERS
    }
    once = {secret, repr(secret)[1:-1], *encoded, *_in_bytes(secret)}
    return frozenset(once | {each for json in _in_json(secret) for each in _again(json)})


def _in_json(text: str) -> set[str]:
    characters = set(text) - _PLAIN
    forms = (
        text.translate({ord(each): encode(each) for each in characters})
        for encode in _JSON_ENCODERS
    )
    return {each for each in forms if each != text}


def _again(json: str) -> Iterator[str]:
    """What is sent as JSON is wrapped once more: in JSON, by sites that echo it, or in bytes."""
    yield from _in_json(json)
    yield from _in_bytes(json)


def _in_bytes(text: str) -> Iterator[str]:
    raw = _bytes(text)
    yield raw.hex()
    yield raw.hex().upper()
    yield from _in_base64(raw)


def _in_base64(raw: bytes) -> Iterator[str]:
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode()
        whole = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _url_encoder(leaves: Collection[str], space: str, layout: str) -> Encoder:
    def encode(character: str) -> str:
        if character == " ":
            return space
        if character in leaves:
            return character
        return "".join(map(layout.format, _bytes(character)))

    return encode


def _json_encoder(escapes: Collection[str], last: str, slash: str, layout: str) -> Encoder:
    short = {**_JSON_SHORT, "/": slash}

    def encode(character: str) -> str:
        if character in short and character not in escapes:
            return short[character]
        if character >= " " and character <= last and character not in escapes:
            return character
        units = character.encode("utf-16-be", "surrogatepass")
        pairs = zip(units[::2], units[1::2], strict=True)
        return "".join(layout.format(high << 8 | low) for high, low in pairs)

    return encode


def _html_encoder(
    angles: Mapping[str, str], quote: str, apostrophe: str, space: Mapping[str, str], others: str
) -> Encoder:
    names = {"&": "&amp;", '"': quote, "'": apostrophe, **angles, **space}

    def encode(character: str) -> str:
        if character in names:
            return names[character]
        return character if character.isascii() else others.format(character, ord(character))

    return encode


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_PLAIN = frozenset(string.ascii_letters + string.digits)
"""What every encoder leaves alone."""
_UNRESERVED = _PLAIN | set("-._~")
_VISIBLE = _PLAIN | set(string.punctuation)
_LAST = chr(0x10FFFF)
_URL_LEAVES = [
    _UNRESERVED,  # RFC 3986
    _UNRESERVED | set("/"),  # Python's `quote`
    _UNRESERVED | set("!'()*"),  # encodeURIComponent
    _UNRESERVED | set("!'()*;,/?:@&=+$#"),  # encodeURI
    # Browsers, in a query, a path, a user's name and a form.
    _VISIBLE - set('"#<>'),
    _VISIBLE - set("\"#<>'"),
    _VISIBLE - set('"#<>?`{}^'),
    _VISIBLE - set('"#<>?`{}^/:;=@[\\]|'),
    _VISIBLE - set('"#<>?`{}^/:;=@[\\]|$&+,%' + "!'()~"),
]
_JSON_SHORT = {
    "\\": "\\\\",
    '"': '\\"',
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_JSON_ESCAPES = ["", "<>&\u2028\u2029", "<>&\"'+`\u2028\u2029"]
_JSON_ENCODERS = [
    *starmap(
        _json_encoder,
        product(_JSON_ESCAPES, ("~", "\x7f", _LAST), ("/", "\\/"), ("\\u{:04x}", "\\u{:04X}")),
    )
]
_ENCODERS = [
    *starmap(_url_encoder, product(_URL_LEAVES, ("%20", "+"), ("%{:02X}", "%{:02x}"))),
    *_JSON_ENCODERS,
    *starmap(
        _html_encoder,
        product(
            [{}, {"<": "&lt;", ">": "&gt;"}],
            ['"', "&quot;", "&#34;"],
            ["'", "&#x27;", "&#39;", "&#039;", "&apos;"],
            [{}, {"\xa0": "&nbsp;"}],
            ["{0}", "&#{1};", "&#x{1:x};", "&#x{1:X};"],
        ),
    ),
]
