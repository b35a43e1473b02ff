"""Checks of a request's fields that tell everything wrong at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from steward_server.errors import InvalidArgument

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BREAKS = str.maketrans("\n\r\t", "   ")


class Checks:
    """Collects what is wrong; leaving the block raises it together.

    Raises:
        InvalidArgument: at the end of the block, if any check failed.
    """

    def __init__(self) -> None:
        self.wrong: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self.wrong:
            raise InvalidArgument.of(self.wrong)

    def add(self, field: str, text: str) -> None:
        """Note what is wrong with a field; the first finding of a field counts."""
        self.wrong.setdefault(field, text)

    def given(self, field: str, *, is_given: bool) -> None:
        """A field that has to be there: what is left out must not count as 0."""
        if not is_given:
            self.add(field, "is missing")

    def text(self, field: str, value: str, least: int, most: int) -> None:
        """A text of `least` to `most` characters without control characters."""
        if len(value) < least:
            self.add(field, "is missing" if not value else f"must have at least {least} characters")
        elif len(value) > most:
            self.add(field, f"has {len(value)} characters; at most {most} are allowed")
        elif found := CONTROL.search(value):
            self.add(field, f"holds the control character U+{ord(found[0]):04X}")

    def prose(self, field: str, value: str, least: int, most: int) -> str:
        """Sentences of `least` to `most` characters without the white space around them.

        Lines may break and tabs stand in it; other control characters may not.
        """
        told = value.strip()
        self.text(field, told.translate(_BREAKS), least, most)
        return told

    def between(self, field: str, value: int, least: int, most: int) -> None:
        """A number from `least` to `most`, both included."""
        if not least <= value <= most:
            self.add(field, f"is {value}; it must be from {least} to {most}")

    def one_of(self, field: str, value: str, allowed: Sequence[str]) -> None:
        if value not in allowed:
            self.add(field, f"is {value!r}; it must be one of {', '.join(allowed)}")
