"""Were refusals and readings true? Neither names an exact commit, so some moment must bear it out.

The moment lies between the newest commit that had been answered when the call was made and the
oldest that was asked for after it had returned.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from steward_server.budget.values import Account, AccountId, ScopeId
from steward_server.events.journal import JournalEntry
from tests.changed import replace
from tests.property.budget.history import Call


@dataclass(frozen=True, slots=True)
class Observation:
    """Something a caller was told of an account, without a commit of its own."""

    what: str
    account: str
    invoked: int
    returned: int
    is_true_of: Callable[[Account], bool]
    least_lsn: int = 0
    """The answer claims to be no older than this."""


def check(
    observations: Iterable[Observation], calls: Iterable[Call], entries: Iterable[JournalEntry]
) -> list[str]:
    """What no moment bears out, as sentences."""
    wrote = [call for call in calls if call.wrote]
    by_return = sorted(wrote, key=lambda call: call.returned)
    returned = [call.returned for call in by_return]
    newest = list(accumulate((call.lsn for call in by_return), max))
    by_invocation = sorted(wrote, key=lambda call: -call.invoked)
    invoked = [-call.invoked for call in by_invocation]
    oldest = list(accumulate((call.lsn for call in by_invocation), min))
    states = _states(entries)
    wrong = []
    for each in observations:
        answered = bisect_left(returned, each.invoked)
        asked_later = bisect_left(invoked, -each.returned)
        from_lsn = max(each.least_lsn, newest[answered - 1] if answered else 0)
        before_lsn = oldest[asked_later - 1] if asked_later else 2**63
        moments = _between(states[each.account], from_lsn, before_lsn)
        if not any(each.is_true_of(account) for account in moments):
            wrong.append(f"{each.what} was true at no commit from {from_lsn} to {before_lsn}")
    return wrong


def _between(
    states: Sequence[tuple[int, Account]], from_lsn: int, before_lsn: int
) -> list[Account]:
    """The account as it stood at `from_lsn` and after each change up to `before_lsn`."""
    first = bisect_right(states, from_lsn, key=lambda state: state[0]) - 1
    last = bisect_left(states, before_lsn, key=lambda state: state[0])
    return [account for _, account in states[max(first, 0) : max(last, first + 1)]]


def _states(entries: Iterable[JournalEntry]) -> defaultdict[str, list[tuple[int, Account]]]:
    """Every state each account was in, and from which commit on."""
    states: defaultdict[str, list[tuple[int, Account]]] = defaultdict(list)
    account_of: dict[str, str] = {}
    for entry in entries:
        body = entry.body
        spent = leased = overrun = 0
        match entry.kind:
            case "account.opened":
                opened = Account(
                    AccountId(entry.subject), ScopeId(body["scope"]), body["allocated"], 0, 0, 0
                )
                states[entry.subject].append((entry.lsn, opened))
                continue
            case "account.reallocated":
                _, before = states[entry.subject][-1]
                after = replace(before, allocated_nanousd=body["allocated"])
                states[entry.subject].append((entry.lsn, after))
                continue
            case "lease.opened":
                account_of[entry.subject] = body["account"]
                leased = body["granted"]
            case "lease.grown":
                leased = body["added"]
            case "usage":
                overrun = body["over"]
                spent = body["cost"] - overrun
                leased = -spent
            case "lease.ended":
                leased = -body["returned"]
            case _:
                continue
        account_id = account_of[entry.subject]
        _, before = states[account_id][-1]
        after = replace(
            before,
            spent_nanousd=before.spent_nanousd + spent,
            leased_nanousd=before.leased_nanousd + leased,
            overrun_nanousd=before.overrun_nanousd + overrun,
        )
        states[account_id].append((entry.lsn, after))
    return states
