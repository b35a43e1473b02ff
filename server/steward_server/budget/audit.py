"""Checks the ledger against its own laws, and rebuilds it from the journal alone.

Shares the ledger's values but none of its rules: a second opinion, not an echo.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from steward_server.budget.values import (
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeaseState,
    Mode,
    ScopeId,
)
from steward_server.events.journal import JournalEntry

_ENDED = frozenset({LeaseState.CLOSED, LeaseState.EXPIRED, LeaseState.REVOKED})
_ENDINGS = frozenset({LeaseState.EXPIRED, LeaseState.REVOKED})


class JournalContradiction(Exception):
    """The journal says something that cannot follow from what it said before."""

    def __init__(self, entry: JournalEntry, what: str) -> None:
        super().__init__(f"entry {entry.lsn}, {entry.kind} of {entry.subject!r}: {what}")
        self.lsn = entry.lsn


@dataclass(slots=True)
class _Sums:
    spent_nanousd: int = 0
    leased_nanousd: int = 0
    overrun_nanousd: int = 0

    def add(self, spent_nanousd: int, leased_nanousd: int, overrun_nanousd: int) -> None:
        self.spent_nanousd += spent_nanousd
        self.leased_nanousd += leased_nanousd
        self.overrun_nanousd += overrun_nanousd


def check(
    accounts: Iterable[Account], leases: Iterable[Lease], *, complete: bool = False
) -> list[str]:
    """What is wrong with these balances, as sentences; empty if nothing is.

    Args:
        accounts: all there are, of periods that are over too.
        leases: at least every open one.
        complete: `leases` holds the ended ones too, so that spent and overrun must add up as well.
    """
    by_id = {account.account_id: account for account in accounts}
    leases = list(leases)
    wrong = [text for account in by_id.values() for text in _wrong_in_account(account)]
    wrong += [text for lease in leases for text in _wrong_in_lease(lease)]
    return wrong + _wrong_in_sums(by_id, leases, complete=complete)


def _wrong_in_account(account: Account) -> list[str]:
    amounts = {
        "spent": account.spent_nanousd,
        "leased": account.leased_nanousd,
        "overrun": account.overrun_nanousd,
    }
    if account.allocated_nanousd is not None:
        amounts["allocated"] = account.allocated_nanousd
        if account.mode is Mode.RESTRICTIVE:
            amounts["free"] = (
                account.allocated_nanousd - account.spent_nanousd - account.leased_nanousd
            )
    return [
        f"account {account.account_id!r}: {name} is {amount}"
        for name, amount in amounts.items()
        if amount < 0
    ]


def _wrong_in_lease(lease: Lease) -> list[str]:
    wrong: list[str] = []
    if not 0 <= lease.spent_nanousd <= lease.granted_nanousd:
        wrong.append(f"spent {lease.spent_nanousd} of {lease.granted_nanousd} granted")
    if lease.overrun_nanousd < 0:
        wrong.append(f"overrun is {lease.overrun_nanousd}")
    if lease.overrun_nanousd and lease.state is LeaseState.ACTIVE:
        wrong.append(f"active with an overrun of {lease.overrun_nanousd}")
    if lease.sequence < 0:
        wrong.append(f"sequence is {lease.sequence}")
    if lease.sequence == 0 and (lease.spent_nanousd or lease.overrun_nanousd):
        wrong.append("spent without a report")
    if (lease.state is LeaseState.DRAINING) != (lease.ending in _ENDINGS):
        wrong.append(f"{lease.state} with ending {lease.ending}")
    if lease.period_ends_at_us is not None and lease.expires_at_us > lease.period_ends_at_us:
        wrong.append(f"lives to {lease.expires_at_us}, its period to {lease.period_ends_at_us}")
    if len(set(lease.account_ids)) < len(lease.account_ids):
        wrong.append(f"draws twice on one of {lease.account_ids}")
    return [f"lease {lease.lease_id!r}: {text}" for text in wrong]


def _wrong_in_sums(
    by_id: Mapping[AccountId, Account], leases: Iterable[Lease], *, complete: bool
) -> list[str]:
    wrong: list[str] = []
    sums: defaultdict[AccountId, _Sums] = defaultdict(_Sums)
    for lease in leases:
        leased_nanousd = 0 if lease.state in _ENDED else lease.granted_nanousd - lease.spent_nanousd
        for account_id in lease.account_ids:
            if account_id not in by_id:
                wrong.append(f"lease {lease.lease_id!r}: no account {account_id!r}")
                continue
            sums[account_id].add(lease.spent_nanousd, leased_nanousd, lease.overrun_nanousd)
    for account in by_id.values():
        of_leases = sums[account.account_id]
        pairs = [("leased", account.leased_nanousd, of_leases.leased_nanousd)]
        if complete:
            pairs.append(("spent", account.spent_nanousd, of_leases.spent_nanousd))
            pairs.append(("overrun", account.overrun_nanousd, of_leases.overrun_nanousd))
        wrong += [
            f"account {account.account_id!r}: {name} is {own}, and its leases' is {below}"
            for name, own, below in pairs
            if own != below
        ]
    return wrong


@dataclass(frozen=True, slots=True)
class Balances:
    """What a journal adds up to, as of its entry `lsn`.

    Expiries are as last written down: signs of life move them further without an entry.
    """

    lsn: int
    accounts: Mapping[AccountId, Account]
    leases: Mapping[LeaseId, Lease]


EMPTY = Balances(0, {}, {})


def replay(entries: Iterable[JournalEntry], *, onto: Balances = EMPTY) -> Balances:
    """Rebuild the balances by following the journal from where `onto` stands.

    Entries come in the order of their numbers; kinds that move no money are passed over.

    Raises:
        JournalContradiction: an entry is out of order, names what does not exist, or moves money
            that is not there.
    """
    fold = _Fold(onto)
    for entry in entries:
        fold.take(entry)
    return fold.balances()


@dataclass(slots=True)
class _Purse:
    """An account under reconstruction."""

    scope_id: ScopeId
    allocated: int | None
    mode: Mode
    ends_at_us: int | None
    spent: int = 0
    leased: int = 0
    overrun: int = 0

    def holds(self, allocated: int | None, mode: Mode) -> bool:
        """Whether what is spent and leased fits into such an allocation."""
        if allocated is None or mode is not Mode.RESTRICTIVE:
            return True
        return self.spent + self.leased <= allocated


@dataclass(slots=True)
class _Loan:
    """A lease under reconstruction."""

    account_ids: tuple[AccountId, ...]
    agent_id: AgentId
    granted: int
    expires_at_us: int
    period_ends_at_us: int | None
    spent: int = 0
    overrun: int = 0
    sequence: int = 0
    state: LeaseState = LeaseState.ACTIVE
    ending: LeaseState | None = None
    settle_until_us: int = 0

    @property
    def left(self) -> int:
        return self.granted - self.spent


class _Fold:
    """Balances under reconstruction; never handed out."""

    def __init__(self, onto: Balances) -> None:
        self._lsn = onto.lsn
        self._purses = {
            account_id: _Purse(
                account.scope_id,
                account.allocated_nanousd,
                account.mode,
                account.ends_at_us,
                account.spent_nanousd,
                account.leased_nanousd,
                account.overrun_nanousd,
            )
            for account_id, account in onto.accounts.items()
        }
        self._loans = {
            lease_id: _Loan(
                lease.account_ids,
                lease.agent_id,
                lease.granted_nanousd,
                lease.expires_at_us,
                lease.period_ends_at_us,
                lease.spent_nanousd,
                lease.overrun_nanousd,
                lease.sequence,
                lease.state,
                lease.ending,
                lease.settle_until_us,
            )
            for lease_id, lease in onto.leases.items()
        }
        self._takers: dict[str, Callable[[JournalEntry], None]] = {
            "account.opened": self._open_account,
            "account.reallocated": self._reallocate,
            "lease.opened": self._open_lease,
            "usage": self._use,
            "lease.grown": self._grow,
            "lease.draining": self._drain,
            "lease.ended": self._end,
        }

    def balances(self) -> Balances:
        accounts = {
            account_id: Account(
                account_id,
                purse.scope_id,
                purse.allocated,
                purse.spent,
                purse.leased,
                purse.overrun,
                purse.mode,
                purse.ends_at_us,
            )
            for account_id, purse in self._purses.items()
        }
        leases = {
            lease_id: Lease(
                lease_id,
                loan.account_ids,
                loan.agent_id,
                loan.granted,
                loan.spent,
                loan.overrun,
                loan.sequence,
                loan.state,
                loan.ending,
                loan.expires_at_us,
                loan.settle_until_us,
                loan.period_ends_at_us,
            )
            for lease_id, loan in self._loans.items()
        }
        return Balances(self._lsn, accounts, leases)

    def take(self, entry: JournalEntry) -> None:
        if entry.lsn <= self._lsn:
            raise JournalContradiction(entry, f"comes after entry {self._lsn}")
        self._lsn = entry.lsn
        taker = self._takers.get(entry.kind)
        if taker is not None:
            taker(entry)

    def _open_account(self, entry: JournalEntry) -> None:
        body = entry.body
        if entry.subject in self._purses:
            raise JournalContradiction(entry, "it exists already")
        self._purses[AccountId(entry.subject)] = _Purse(
            # Before there were scopes, every account was an agent's.
            ScopeId(body.get("scope", f"agent:{entry.subject}")),
            body["allocated"],
            Mode(body.get("mode", Mode.RESTRICTIVE)),
            body.get("ends_at_us"),
        )

    def _reallocate(self, entry: JournalEntry) -> None:
        purse = self._purses.get(AccountId(entry.subject))
        if purse is None:
            raise JournalContradiction(entry, "it does not exist")
        previous, allocated = entry.body["previous"], entry.body["allocated"]
        mode = Mode(entry.body.get("mode", purse.mode))
        if purse.allocated != previous:
            raise JournalContradiction(entry, f"{purse.allocated} was allocated, not {previous}")
        if not purse.holds(allocated, mode):
            raise JournalContradiction(entry, f"{purse.spent + purse.leased} is spent and leased")
        purse.allocated, purse.mode = allocated, mode

    def _open_lease(self, entry: JournalEntry) -> None:
        if entry.subject in self._loans:
            raise JournalContradiction(entry, "it exists already")
        body = entry.body
        loan = _Loan(
            (AccountId(body["account"]), *map(AccountId, body.get("above", ()))),
            AgentId(entry.agent_id),
            body["granted"],
            body["expires_at_us"],
            body.get("period_ends_at_us"),
        )
        for account_id in loan.account_ids:
            purse = self._purses.get(account_id)
            if purse and purse.ends_at_us is not None and entry.at_us >= purse.ends_at_us:
                raise JournalContradiction(entry, f"account {account_id!r} was over")
        self._loans[LeaseId(entry.subject)] = loan
        self._move(entry, loan, leased=loan.granted)

    def _use(self, entry: JournalEntry) -> None:
        loan = self._loan(entry)
        cost, over, sequence = entry.body["cost"], entry.body["over"], entry.body["seq"]
        covered = cost - over
        if sequence != loan.sequence + 1:
            raise JournalContradiction(entry, f"report {sequence} follows {loan.sequence}")
        if not 0 <= over <= cost:
            raise JournalContradiction(entry, f"{over} of a cost of {cost} is overrun")
        if loan.state is LeaseState.CLOSED:
            raise JournalContradiction(entry, "its runtime had returned it")
        if covered and loan.state in _ENDED:
            raise JournalContradiction(entry, f"{covered} was spent from a lease that had ended")
        if covered > loan.left:
            raise JournalContradiction(entry, f"{covered} was spent; {loan.left} was left")
        loan.spent += covered
        loan.overrun += over
        loan.sequence = sequence
        self._move(entry, loan, spent=covered, leased=-covered, overrun=over)

    def _grow(self, entry: JournalEntry) -> None:
        loan = self._loan(entry)
        if loan.state is not LeaseState.ACTIVE:
            raise JournalContradiction(entry, f"it grew while {loan.state}")
        added = entry.body["added"]
        loan.granted += added
        loan.expires_at_us = entry.body["expires_at_us"]
        self._move(entry, loan, leased=added)

    def _drain(self, entry: JournalEntry) -> None:
        loan = self._loan(entry)
        if loan.state in _ENDED:
            raise JournalContradiction(entry, f"it drained while {loan.state}")
        loan.state = LeaseState.DRAINING
        loan.ending = LeaseState(entry.body["ending"])
        loan.settle_until_us = entry.body["settle_until_us"]

    def _end(self, entry: JournalEntry) -> None:
        loan = self._loan(entry)
        state, returned = LeaseState(entry.body["state"]), entry.body["returned"]
        if loan.state in _ENDED:
            raise JournalContradiction(entry, f"it ended while {loan.state}")
        if state not in _ENDED:
            raise JournalContradiction(entry, f"it ended as {state}")
        if returned != loan.left:
            raise JournalContradiction(entry, f"{returned} was returned; {loan.left} was left")
        loan.state, loan.ending = state, None
        self._move(entry, loan, leased=-returned)

    def _loan(self, entry: JournalEntry) -> _Loan:
        loan = self._loans.get(LeaseId(entry.subject))
        if loan is None:
            raise JournalContradiction(entry, "it does not exist")
        return loan

    def _move(
        self,
        entry: JournalEntry,
        loan: _Loan,
        *,
        spent: int = 0,
        leased: int = 0,
        overrun: int = 0,
    ) -> None:
        for account_id in loan.account_ids:
            purse = self._purses.get(account_id)
            if purse is None:
                raise JournalContradiction(entry, f"account {account_id!r} does not exist")
            purse.spent += spent
            purse.leased += leased
            purse.overrun += overrun
            if purse.leased < 0 or not purse.holds(purse.allocated, purse.mode):
                raise JournalContradiction(
                    entry,
                    f"account {account_id!r} would have {purse.leased} leased and {purse.spent} "
                    f"spent of {purse.allocated}",
                )
