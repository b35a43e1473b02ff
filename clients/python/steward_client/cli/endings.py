"""How commands and streams end: the exit code and the sentence of each kind of refusal."""

from __future__ import annotations

from steward_client.cli.output import say
from steward_client.errors import (
    BudgetExceeded,
    CircuitOpen,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    StewardError,
    Unauthorized,
    Unavailable,
)

FAILED = 1
CANCELLED = 10
"""Of what was followed to its end, when somebody had cancelled it."""
INTERRUPTED = 130

_CODES: list[tuple[type[StewardError], int]] = [
    (InvalidRequest, 2),
    (Unauthorized, 3),
    (Forbidden, 4),
    (NotFound, 5),
    (Conflict, 6),
    (BudgetExceeded, 7),
    (RateLimited, 8),
    (CircuitOpen, 9),
    (Unavailable, 9),
    (DeadlineExceeded, 9),
]


def exit_code(error: StewardError) -> int:
    """The exit code of a refusal.

    2 a wrong value, 3 not signed in, 4 not allowed, 5 not there, 6 not in this state, 7 no money
    left, 8 too many calls, 9 no answer, 1 anything else.
    """
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def describe(error: StewardError) -> str:
    """What went wrong and what to do about it, in a sentence."""
    match error:
        case Unauthorized(reason="INVALID_CREDENTIALS"):
            return error.message
        case Forbidden(reason="PASSWORD_CHANGE_REQUIRED"):
            return "your password must be changed first, with: steward password"
        case Unauthorized():
            return f"{error.message}; sign in with: steward login"
        case Unavailable() if error.reason != Unavailable.default_reason:
            return error.message
        case Unavailable():
            # What grpc says of each address it tried comes last.
            cause = error.message.rpartition("last error: ")[2]
            return (
                f"the server does not answer ({cause}); start one with: steward serve, "
                "or name another with --server or STEWARD_SERVER"
            )
        case RateLimited() if error.retry_after_s:
            return f"{error.message} (in {error.retry_after_s:.0f} s)"
    return error.message


def tell_cut(cut: StewardError) -> None:
    """Say that a stream was cut, and is opened again."""
    if isinstance(cut, Unauthorized):
        return  # the sign-in it was opened with is over, and is renewed
    why = "no connection" if isinstance(cut, Unavailable) else describe(cut)
    say(f"the stream was cut ({why}); trying again")
