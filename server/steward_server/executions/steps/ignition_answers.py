"""What an Ignition gateway answered, and what it means where that is no success. Pure.

No query of a URL is told to anybody: it carries codes and tokens. Of what a gateway says no more is
told on than a short line, quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from yarl import URL

from steward_server.executions.work import StepFailed

MAX_SAID = 200
"""Characters of what a gateway says of an error that are told on."""


class Unavailable(StepFailed):
    """It does not serve now, and may later."""


class NotSignedIn(StepFailed):
    """Nobody is signed in, or no longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        where: the method and the URL, without its query.
        location: where a redirect leads; None if it is no redirect.
        leads_away: whether that is another server.
    """

    where: str
    status: int
    content_type: str
    body: bytes
    location: URL | None = None
    leads_away: bool = False

    @property
    def context(self) -> dict[str, Any]:
        return {"request": self.where, "status": self.status, "content_type": self.content_type}

    def json(self) -> Any:
        """What it says.

        Raises:
            StepFailed: it is no JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            if "html" in self.content_type:
                raise StepFailed(
                    f"{self.where} was answered with a page instead of data; is this the address "
                    "of an Ignition gateway, or of something in front of it?",
                    **self.context,
                ) from None
            raise self.odd("JSON") from None

    def odd(self, wanted: str) -> StepFailed:
        """It has another shape."""
        return StepFailed(
            f"{self.where} was answered with something that is not {wanted}; is this an Ignition "
            "gateway, 8.3 or newer?",
            **self.context,
        )

    def said(self) -> str:
        """What a gateway says went wrong, short and on one line; empty if it says nothing."""
        try:
            told = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return ""
        problem = told.get("problem", told) if isinstance(told, dict) else None
        message = problem.get("message") if isinstance(problem, dict) else None
        return f": {message[:MAX_SAID]!r}" if message and isinstance(message, str) else ""


def went_well(answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    raise refused(answer)


def refused(answer: Answer) -> StepFailed:
    """What an answer that is no success means."""
    context = answer.context
    if answer.location is not None:
        return _redirected(answer, answer.location)
    match answer.status:
        case 401:
            return NotSignedIn(
                f"{answer.where} needs somebody who is signed in, and the session has ended; sign "
                "in with gateway.login",
                **context,
            )
        case 403:
            return StepFailed(
                f"{answer.where} is not allowed to whoever is signed in{answer.said()}; give them "
                "the right in the gateway's security settings (an API key may need https)",
                **context,
            )
        case 404:
            return StepFailed(
                f"{answer.where} is not there{answer.said()}; Ignition 8.3 or newer is needed",
                **context,
            )
        case 502 | 503 | 504:
            return Unavailable(
                f"{answer.where} was answered with {answer.status}: the gateway starts, stops, or "
                "cannot be reached by what is in front of it; wait with gateway.wait_for_ready",
                **context,
            )
    if answer.status >= 500:
        return Unavailable(
            f"{answer.where} failed inside the gateway ({answer.status}{answer.said()}); look at "
            "its logs",
            **context,
        )
    return StepFailed(f"{answer.where} was refused ({answer.status}{answer.said()})", **context)


def _redirected(answer: Answer, location: URL) -> StepFailed:
    if location.path.startswith("/welcome"):
        return not_set_up(answer)
    if not answer.leads_away and location.path.startswith(("/idp/", "/data/app/login")):
        return NotSignedIn(
            f"{answer.where} needs somebody who is signed in; sign in with gateway.login",
            **answer.context,
        )
    return StepFailed(
        f"{answer.where} leads to {shown(location)}, which is not followed; if that is the "
        "gateway, name it as its URL",
        **answer.context,
    )


def not_set_up(answer: Answer) -> StepFailed:
    return StepFailed(
        f"the gateway is not set up yet ({answer.where} leads to its welcome page); open it in a "
        "browser and finish that",
        **answer.context,
    )


def without_redirect(answer: Answer) -> StepFailed:
    if answer.status >= 400:
        return refused(answer)
    return answer.odd("a way to sign in")


def shown(url: URL) -> str:
    """A URL as it is told to people: without secrets, and not longer than can be read."""
    return str(url.with_user(None).with_query(None).with_fragment(None))[:MAX_SAID]
