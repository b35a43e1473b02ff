"""Was it as if one caller had come after the other? Decided in linear time by commit number.

Every answer names the commit it reflects. So a history of concurrent calls needs no search: put
in that order, the model must give the same answers, and no call may have returned before one of
an earlier commit was even made.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from tests.property.budget.model import Model

WRITES = frozenset({"opened", "reallocated", "granted", "booked", "grown", "draining", "ended"})
"""Outcomes that are a commit of their own; any other answer reflects the commit it names."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its caller saw it; `invoked` and `returned` are by one clock for all callers."""

    caller: str
    invoked: int
    returned: int
    operation: str
    """A method of `Model`; `arguments` are its arguments, without the time."""
    arguments: Mapping[str, Any]
    answer: Mapping[str, Any]
    """`outcome`, and whatever else of the model's answer was told; only that is compared."""
    lsn: int
    at_us: int | None = field(default=None)
    """The server's time, if known; without it no lease expires unless told to."""

    @property
    def wrote(self) -> bool:
        return self.answer["outcome"] in WRITES

    @property
    def order(self) -> tuple[int, bool]:
        """What reflects a commit comes after the one that made it."""
        return self.lsn, not self.wrote

    def __str__(self) -> str:
        return f"{self.caller}'s {self.operation} {dict(self.arguments)} at commit {self.lsn}"


def check(history: Iterable[Call], *, model: Model | None = None) -> list[str]:
    """What contradicts a single order of the calls, as sentences; empty if nothing does.

    The history must hold every call that wrote, from the opening of the accounts on; `model` is
    what there was before it, and is used up. A repetition that was told its first answer, commit
    included, is recognised as such.
    """
    calls = sorted(history, key=lambda call: (call.order, call.invoked))
    firsts, wrong = _without_repetitions(calls)
    return wrong + _wrong_answers(firsts, model or Model()) + _wrong_order(firsts, calls)


def _without_repetitions(calls: list[Call]) -> tuple[list[Call], list[str]]:
    firsts: list[Call] = []
    wrong: list[str] = []
    for call in calls:
        if call.returned < call.invoked:
            wrong.append(f"{call} returned before it was made")
        first = firsts[-1] if firsts else None
        if first is None or not call.wrote or first.order != call.order:
            firsts.append(call)
        elif (first.operation, first.arguments) != (call.operation, call.arguments):
            wrong.append(f"{call} shares its commit with {first}")
        elif first.answer != call.answer:
            wrong.append(f"{call} was told {dict(call.answer)}, and before {dict(first.answer)}")
    return firsts, wrong


def _wrong_answers(calls: list[Call], model: Model) -> list[str]:
    wrong = []
    for call in calls:
        try:
            expected = model.do(call.operation, dict(call.arguments), _time_us(call, model))
        except KeyError as unknown:
            wrong.append(f"{call} is about {unknown}, which does not exist yet")
            continue
        told = {name: expected.get(name) for name in call.answer}
        if told != call.answer:
            wrong.append(f"{call} answered {dict(call.answer)}; it should have been {told}")
    return wrong


def _time_us(call: Call, model: Model) -> int:
    if call.at_us is not None:
        return call.at_us
    if call.operation == "expire":
        return model.loans[call.arguments["lease"]].expires_at_us
    if call.operation == "end":
        return model.loans[call.arguments["lease"]].settle_until_us
    return 0


def _wrong_order(firsts: list[Call], calls: list[Call]) -> list[str]:
    """Calls made after one of a later commit had returned. Repetitions may look back."""
    wrong = []
    looks_back = {id(call) for call in calls} - {id(call) for call in firsts}
    later: Call | None = None
    for _, group in groupby(reversed(calls), key=lambda call: call.order):
        together = list(group)
        wrong += [
            f"{call} was made after {later} had returned"
            for call in together
            if later is not None and later.returned < call.invoked and id(call) not in looks_back
        ]
        earliest = min(together, key=lambda call: call.returned)
        if later is None or earliest.returned < later.returned:
            later = earliest
    return wrong
