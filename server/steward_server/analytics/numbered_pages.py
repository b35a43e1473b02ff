"""Pages by number, as the analytics paths have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from steward.analytics.v1 import analytics_pb2 as pb
from steward_server.checks import Checks

T = TypeVar("T")

MAX_PAGE = 2**31 - 1
MAX_PER_PAGE = 100
DEFAULT_PER_PAGE = 50


class Page(NamedTuple):
    """Which page, and how long it is."""

    number: int
    per_page: int

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """The part of all items that is on it; nothing past the end."""
        first = (self.number - 1) * self.per_page
        return items[first : first + self.per_page]

    def described(self, total: int) -> pb.Pagination:
        return pb.Pagination(
            page=self.number,
            per_page=self.per_page,
            total=total,
            total_pages=-(-total // self.per_page),
        )


def page_of(checks: Checks, request: Any) -> Page:
    """The page a request asks for; the first 50 if it does not say."""
    number = request.page if request.HasField("page") else 1
    per_page = request.per_page if request.HasField("per_page") else DEFAULT_PER_PAGE
    checks.between("page", number, 1, MAX_PAGE)
    checks.between("per_page", per_page, 1, MAX_PER_PAGE)
    return Page(number, per_page)
