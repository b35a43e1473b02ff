"""What pages say, in a form that can be told and kept."""

from __future__ import annotations

from urllib.parse import urlsplit

from steward_server.executions.work import StepFailed

MAX_URL = 500
"""Characters of a URL or a title that are told."""


class NoAnswer(StepFailed):
    """There is no page that could tell any more: it was not opened, or is busy."""


def bounded(text: object, most: int) -> str:
    """Text of a page, not too long; half characters, which nothing else takes, become `?`."""
    return str(text)[:most].encode("utf-8", "replace").decode("utf-8")


def shown_url(url: str) -> str:
    """A URL without a name and a password in it, and not too long."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return bounded(parts._replace(netloc=host).geturl(), MAX_URL)
