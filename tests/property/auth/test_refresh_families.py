"""Refresh families under any order of use, theft and time, against a model."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from steward_server.auth.refresh import RefreshToken, Verdict, successor_text

GRACE_US = 10
LIFETIME_US = 100
KEY = bytes(32)


class Families(RuleBasedStateMachine):
    """One family; every text ever handed out may be presented by anyone at any time."""

    texts = Bundle("texts")

    @initialize(target=texts)
    def sign_in(self) -> str:
        self.now_us = 0
        self.is_revoked = False
        self.tokens = {"rt_root": RefreshToken("r0", "f", "u", "s0", LIFETIME_US)}
        return "rt_root"

    @rule(step_us=st.integers(1, 40))
    def time_passes(self, step_us: int) -> None:
        self.now_us += step_us

    @rule(target=texts, text=texts)
    def present(self, text: str) -> str:
        token = self.tokens[text]
        verdict = token.verdict(self.now_us, GRACE_US)
        following = successor_text(KEY, text)
        if self.is_revoked:
            assert verdict is Verdict.REVOKED
            return text
        if self.now_us >= token.expires_at_us:
            assert verdict is Verdict.EXPIRED
            return text
        match verdict:
            case Verdict.RENEW:
                assert following not in self.tokens
                successor = RefreshToken(
                    f"r{len(self.tokens)}", "f", "u", "s", self.now_us + LIFETIME_US
                )
                self.tokens[following] = successor
                self.tokens[text] = replace(
                    token, spent_at_us=self.now_us, successor_id=successor.refresh_token_id
                )
            case Verdict.REPEAT:
                assert token.spent_at_us is not None
                assert self.now_us - token.spent_at_us <= GRACE_US
                assert self.tokens[following].refresh_token_id == token.successor_id
            case Verdict.REUSED:
                assert token.spent_at_us is not None
                assert self.now_us - token.spent_at_us > GRACE_US
                self.is_revoked = True
                self.tokens = {
                    each: replace(held, revoked_at_us=self.now_us)
                    for each, held in self.tokens.items()
                }
                return text
            case _:
                raise AssertionError(verdict)
        return following

    @rule(text=consumes(texts))
    def forget(self, text: str) -> None:
        """A holder loses a text."""

    @invariant()
    def at_most_one_token_is_unspent(self) -> None:
        unspent = [token for token in self.tokens.values() if token.spent_at_us is None]
        assert len(unspent) == 1

    @invariant()
    def a_token_has_one_successor(self) -> None:
        successors = [
            token.successor_id for token in self.tokens.values() if token.successor_id is not None
        ]
        assert len(successors) == len(set(successors)) == len(self.tokens) - 1


Families.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_a_family_is_a_chain_that_ends_whole = Families.TestCase


def test_successors_need_the_key_and_the_parent() -> None:
    texts = {
        successor_text(KEY, "rt_a"),
        successor_text(KEY, "rt_b"),
        successor_text(bytes([1] * 32), "rt_a"),
    }
    assert len(texts) == 3
    assert all(len(text) == 46 for text in texts)
