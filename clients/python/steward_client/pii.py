"""Personal data in text: five kinds, found by pattern and proven by check digits. Pure.

Findings are kinds and counts; a value never leaves this module. A match is a property of its place
alone (it fits into `OVERLAP_BYTES`), so text that comes in pieces gives the same findings however
it is cut.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, cast

OVERLAP_BYTES = 64
"""No match is longer, so a piece is decided once this many bytes after it are known."""


class PiiKind(Enum):
    EMAIL = "email"
    PHONE = "phone"
    SSN = "ssn"
    CARD = "card"
    IBAN = "iban"


class PiiAction(Enum):
    ALERT = "alert"
    """Report it and let it through."""
    REDACT = "redact"
    """Replace it, in what is sent and in whole answers; answers that stream are only reported."""
    BLOCK = "block"
    """Refuse the call; end an answer that holds some."""


class _Match(Protocol):
    def start(self, group: int = 0) -> int: ...

    def end(self, group: int = 0) -> int: ...


class _Pattern(Protocol):
    def search(self, text: bytes, pos: int = 0) -> _Match | None: ...

    def match(self, text: bytes) -> _Match | None: ...


def _compile(pattern: bytes) -> _Pattern:
    """On re2, which is linear in the text whatever the pattern; on `re` where it is not installed.

    Both read the patterns below alike: bytes, no anchors, no look-around.
    """
    try:
        import re2
    except ImportError:
        return cast(_Pattern, re.compile(pattern))
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return cast(_Pattern, re2.compile(pattern, options))


def _digits(value: bytes) -> bytes:
    return bytes(byte for byte in value if 48 <= byte <= 57)


def _is_email(value: bytes) -> bool:
    local, _, domain = value.partition(b"@")
    if local.endswith(b".") or b".." in value:
        return False
    return all(
        label and not label.startswith(b"-") and not label.endswith(b"-")
        for label in domain.split(b".")
    )


def _is_phone(value: bytes) -> bool:
    """North American, whose area codes begin with 2 to 9, or a plus and 8 to 15 digits (E.164)."""
    digits = _digits(value)
    if value.startswith(b"+") and not value.startswith(b"+1"):
        return 8 <= len(digits) <= 15
    national = digits[1:] if len(digits) == 11 and digits.startswith(b"1") else digits
    return len(national) == 10 and national[0] >= 50


def _is_ssn(value: bytes) -> bool:
    """Never issued: area 000, 666 and 900 up, group 00, serial 0000.

    https://www.ssa.gov/employer/randomization.html
    """
    area, group, serial = value[:3], value[4:6], value[7:]
    if value[3] != value[6]:
        return False
    return area not in (b"000", b"666") and area[0] != 57 and group != b"00" and serial != b"0000"


def _is_card(value: bytes) -> bool:
    """13 to 19 digits that begin as cards do and pass Luhn's check (ISO/IEC 7812-1)."""
    digits = _digits(value)
    if not 13 <= len(digits) <= 19 or digits[0] not in b"3456":
        return False
    total = 0
    for place, byte in enumerate(reversed(digits)):
        digit = byte - 48
        if place % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


_IBAN_LENGTHS = {
    **dict.fromkeys((b"NO",), 15),
    **dict.fromkeys((b"BE",), 16),
    **dict.fromkeys((b"DK", b"FI", b"FO", b"GL", b"NL"), 18),
    **dict.fromkeys((b"MK", b"SI"), 19),
    **dict.fromkeys((b"AT", b"BA", b"EE", b"KZ", b"LT", b"LU", b"MN", b"XK"), 20),
    **dict.fromkeys((b"CH", b"CR", b"HR", b"LI", b"LV"), 21),
    **dict.fromkeys((b"BG", b"BH", b"DE", b"GB", b"GE", b"IE", b"ME", b"RS", b"VA"), 22),
    **dict.fromkeys((b"AE", b"GI", b"IL", b"IQ", b"OM", b"SO", b"TL"), 23),
    **dict.fromkeys((b"AD", b"CZ", b"ES", b"MD", b"PK", b"RO", b"SA", b"SE", b"SK", b"TN"), 24),
    **dict.fromkeys((b"VG",), 24),
    **dict.fromkeys((b"LY", b"PT", b"ST"), 25),
    **dict.fromkeys((b"IS", b"TR"), 26),
    **dict.fromkeys((b"BI", b"DJ", b"FR", b"GR", b"IT", b"MC", b"MR", b"SM"), 27),
    **dict.fromkeys((b"AL", b"AZ", b"BY", b"CY", b"DO", b"GT", b"HU", b"LB", b"NI", b"PL"), 28),
    **dict.fromkeys((b"BR", b"EG", b"PS", b"QA", b"SV", b"UA"), 29),
    **dict.fromkeys((b"JO", b"KW", b"MU", b"YE"), 30),
    **dict.fromkeys((b"MT", b"SC"), 31),
    **dict.fromkeys((b"LC",), 32),
    **dict.fromkeys((b"RU",), 33),
}
"""Characters per country: SWIFT IBAN registry, release 99."""


def _iban_length(window: bytes) -> int:
    """The length its country prescribes, single spaces apart, if modulo 97 leaves 1 (ISO 13616)."""
    wanted = _IBAN_LENGTHS.get(window[:2].upper(), 0)
    compact = bytearray()
    for length, byte in enumerate(window, 1):
        if byte == 32 and compact and window[length - 2] != 32:
            continue
        if not chr(byte).isalnum() or byte > 127:
            return 0
        compact.append(byte)
        if len(compact) == wanted:
            turned = compact[4:] + compact[:4]
            number = int("".join(str(int(chr(character), 36)) for character in turned))
            return length if number % 97 == 1 else 0
    return 0


def _measured(pattern: bytes, valid: Callable[[bytes], bool]) -> Callable[[bytes], int]:
    compiled = _compile(pattern)

    def length(window: bytes) -> int:
        found = compiled.match(window)
        return found.end() if found and valid(window[: found.end()]) else 0

    return length


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: PiiKind
    length: Callable[[bytes], int]
    """Of what the window begins with; 0 if that is none of this kind."""
    not_after: bytes
    """Bytes it does not directly follow."""
    is_number: bool
    """A number is not followed by a separator and more digits."""


_RULES = (
    _Rule(
        PiiKind.EMAIL,
        _measured(
            rb"[0-9A-Za-z][0-9A-Za-z._%+-]{0,58}@[0-9A-Za-z][0-9A-Za-z.-]{0,58}\.[A-Za-z]{2,24}",
            _is_email,
        ),
        b"._%+-",
        is_number=False,
    ),
    _Rule(PiiKind.IBAN, _iban_length, b"_-", is_number=False),
    _Rule(
        PiiKind.CARD,
        _measured(
            rb"[3-6][0-9]{3}(?:[ -][0-9]{4}){3}"
            rb"|3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5}"
            rb"|[3-6][0-9]{12,18}",
            _is_card,
        ),
        b"._-+$",
        is_number=True,
    ),
    _Rule(
        PiiKind.SSN,
        _measured(rb"[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}", _is_ssn),
        b"._-+$",
        is_number=True,
    ),
    _Rule(
        PiiKind.PHONE,
        _measured(
            rb"(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-]?[0-9]{4}"
            rb"|\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,4}\)?){2,6}",
            _is_phone,
        ),
        b"._-+$",
        is_number=True,
    ),
)

_CANDIDATE = _compile(
    rb"[^0-9A-Za-z]("
    rb"[0-9A-Za-z][0-9A-Za-z._%+-]*@[0-9A-Za-z]"
    rb"|[+(]?[0-9](?:[ ().-]{0,2}[0-9]){7}"
    rb"|[A-Za-z]{2}[0-9]{2} ?[0-9A-Za-z]{4})"
)
"""Where any of the kinds may begin: cheap, and true of every place that one does."""

_LONGEST_BYTES = OVERLAP_BYTES - 2
_NO_TEXT = b"\n"


def _finds(text: bytes, pos: int, until: int) -> Iterator[tuple[PiiKind, int, int]]:
    """(kind, start, end) of what begins before `until`, left to right, never overlapping.

    The byte before `pos` must exist: it decides whether something may begin there.
    """
    while True:
        candidate = _CANDIDATE.search(text, pos - 1)
        if candidate is None:
            return
        start = candidate.start(1)
        if start >= until:
            return
        found = _at(text, start)
        if found is None:
            pos = start + 1
            continue
        kind, length = found
        pos = start + length
        yield kind, start, pos


def _at(text: bytes, start: int) -> tuple[PiiKind, int] | None:
    window = text[start : start + _LONGEST_BYTES]
    before = text[start - 1]
    for rule in _RULES:
        if before in rule.not_after:
            continue
        length = rule.length(window)
        if length and _ends(text, start + length, is_number=rule.is_number):
            return rule.kind, length
    return None


def _ends(text: bytes, end: int, *, is_number: bool) -> bool:
    after = text[end : end + 2]
    if not after:
        return True
    if after[:1].isalnum() or after[:1] == b"_":
        return False
    return not (is_number and after[:1] in (b"-", b".") and after[1:].isdigit())


def scan(text: str) -> Counter[PiiKind]:
    """How many of each kind stand in the text."""
    encoded = _NO_TEXT + text.encode("utf-8", "replace")
    return Counter(kind for kind, _, _ in _finds(encoded, 1, len(encoded)))


def redact(text: str) -> tuple[str, Counter[PiiKind]]:
    """The text with each finding replaced by its kind, like `[email]`, and how many there were."""
    encoded = _NO_TEXT + text.encode("utf-8", "replace")
    found: Counter[PiiKind] = Counter()
    pieces = []
    kept_to = 1
    for kind, start, end in _finds(encoded, 1, len(encoded)):
        found[kind] += 1
        pieces += [encoded[kept_to:start], f"[{kind.value}]".encode()]
        kept_to = end
    if not found:
        return text, found
    pieces.append(encoded[kept_to:])
    return b"".join(pieces).decode(), found


class PiiStream:
    """Scans text that comes in pieces; the same findings, however it is cut."""

    def __init__(self) -> None:
        self._text = _NO_TEXT
        self._pos = 1

    def feed(self, piece: bytes) -> Counter[PiiKind]:
        """What is certain now and was not before; at most `OVERLAP_BYTES` stay undecided."""
        self._text += piece
        return self._decide(len(self._text) - OVERLAP_BYTES + 1)

    def finish(self) -> Counter[PiiKind]:
        """What the end of the text makes certain."""
        return self._decide(len(self._text))

    def _decide(self, until: int) -> Counter[PiiKind]:
        found: Counter[PiiKind] = Counter()
        if until <= self._pos:
            return found
        pos = until
        for kind, _, end in _finds(self._text, self._pos, until):
            found[kind] += 1
            pos = max(until, end)
        self._text = self._text[pos - 1 :]
        self._pos = 1
        return found


_UNREAD_KEYS = frozenset({"data", "signature", "encrypted_content"})
"""Members of a call's JSON that hold pictures or seals, not text."""


_ESCAPED_SPACE = re.compile(rb"\\[nrtbf]")


def may_hold(json_text: bytes) -> bool:
    """Whether a JSON text may hold personal data; False is certain, and cheap to have."""
    if b"\\" in json_text:
        if b"\\u" in json_text:
            return True
        json_text = _ESCAPED_SPACE.sub(b"  ", json_text)
    # A time in seconds that stands in every completion, and is as long as some telephone numbers.
    json_text = json_text.replace(b'"created":', b'"created":x', 1)
    return _CANDIDATE.search(json_text, 0) is not None


def scan_json(value: Any) -> Counter[PiiKind]:
    """How many of each kind stand in the strings of a JSON value."""
    return scan("\n".join(_strings(value)))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            if key not in _UNREAD_KEYS:
                yield from _strings(member)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def redact_json(value: Any) -> tuple[Any, Counter[PiiKind]]:
    """The value with what its strings hold replaced, and how many of each kind there were."""
    found: Counter[PiiKind] = Counter()

    def rewritten(member: Any) -> Any:
        if isinstance(member, str):
            if member.startswith("data:"):
                return member
            text, here = redact(member)
            found.update(here)
            return text
        if isinstance(member, dict):
            return {
                key: inner if key in _UNREAD_KEYS else rewritten(inner)
                for key, inner in member.items()
            }
        if isinstance(member, list):
            return [rewritten(item) for item in member]
        return member

    return rewritten(value), found
