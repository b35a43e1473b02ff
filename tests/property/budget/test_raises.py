"""Any history of raises and leases, against a model that knows nothing of who owes what.

Once what is over has been taken back, an agent has what it has for good and what raises that hold
have added, or what is spent and lent, if that is more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from steward_server.budget.raises import Raise, grant, take_back
from steward_server.budget.values import Account, AccountId, ScopeId

Step = tuple[str, int, int | None]
OFTEN = [
    *("raise", "raise", "lend", "lend", "lend", "spend", "spend", "give back"),
    *("wait", "sweep"),
]
steps = st.tuples(
    st.sampled_from([*OFTEN, *OFTEN, "set"]), st.integers(1, 9), st.none() | st.integers(1, 9)
)


@dataclass
class Agent:
    """The rules, applied, and beside them what the model expects."""

    account: Account
    raises: dict[str, Raise] = field(default_factory=dict)
    now_us: int = 0
    base: int = 0
    added: dict[str, tuple[int, int]] = field(default_factory=dict)
    expected: int = 0

    @property
    def held(self) -> int:
        return sum(added for added, ends_at_us in self.added.values() if ends_at_us > self.now_us)

    def take(self, step: Step) -> None:
        what, amount, holds_us = step
        account = self.account
        match what:
            case "wait":
                self.now_us += amount
            case "sweep":
                self.settle()
            case "raise":
                self.settle()
                self.raise_by(amount, holds_us)
            case "set":
                self.set_to(account.committed_nanousd + amount)
            case "lend":
                self.settle()
                lent = min(amount, self.account.free_nanousd or 0)
                self.move(leased=lent)
            case "spend":
                spent = min(amount, account.leased_nanousd)
                self.move(spent=spent, leased=-spent)
            case "give back":
                self.move(leased=-min(amount, account.leased_nanousd))

    def move(self, *, spent: int = 0, leased: int = 0) -> None:
        self.account = self.account._replace(
            spent_nanousd=self.account.spent_nanousd + spent,
            leased_nanousd=self.account.leased_nanousd + leased,
        )

    def settle(self) -> None:
        taken = take_back(self.account, self.raises.values(), self.now_us)
        self.raises |= {each.raised.request_id: each.raised for each in taken}
        total = sum(each.taken_nanousd for each in taken)
        self.account = self.account._replace(allocated_nanousd=self.allocated - total)
        self.expected = min(self.expected, max(self.base + self.held, self.committed))

    @property
    def allocated(self) -> int:
        return self.account.allocated_nanousd or 0

    @property
    def committed(self) -> int:
        return self.account.committed_nanousd

    def raise_by(self, amount: int, holds_us: int | None) -> None:
        request_id = f"breq_{len(self.raises)}"
        allocated = self.allocated + amount
        ends_at_us = None if holds_us is None else self.now_us + holds_us
        changed = grant(
            self.allocated,
            self.raises.values(),
            agent_id="agent",
            request_id=request_id,
            allocated_nanousd=allocated,
            ends_at_us=ends_at_us,
            now_us=self.now_us,
        )
        self.raises |= {each.request_id: each for each in changed}
        self.account = self.account._replace(allocated_nanousd=allocated)
        surplus = self.expected - self.base - self.held
        still_lent = min(surplus, self.account.leased_nanousd)
        if ends_at_us is None:
            self.base = allocated - self.held
        else:
            self.base += surplus - still_lent
            self.added[request_id] = amount + still_lent, ends_at_us
        self.expected = allocated

    def set_to(self, allocated: int) -> None:
        self.raises = {name: each._replace(owed_nanousd=0) for name, each in self.raises.items()}
        self.account = self.account._replace(allocated_nanousd=allocated)
        self.base = self.expected = allocated
        self.added.clear()


@settings(max_examples=400)
@given(budget=st.integers(0, 9), history=st.lists(steps, min_size=15, max_size=40))
def test_an_agent_has_what_holds_or_what_it_used(budget: int, history: list[Step]) -> None:
    agent = Agent(
        Account(AccountId("agent"), ScopeId("agent:agent"), budget, 0, 0, 0),
        base=budget,
        expected=budget,
    )
    for step in history:
        agent.take(step)
        assert (agent.account.free_nanousd or 0) >= 0
        assert agent.account.allocated_nanousd == agent.expected
    agent.now_us += 100
    agent.move(leased=-agent.account.leased_nanousd)
    agent.settle()
    assert agent.account.allocated_nanousd == max(agent.base, agent.account.spent_nanousd)
    assert not any(each.owed_nanousd for each in agent.raises.values())
