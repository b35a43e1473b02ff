"""Ranges of user ids: each is a living machine's alone, and no stranger can keep them all."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.sandbox import ids
from steward_server.environments.sandbox.inside.build import RANGE


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ids, "CLAIMS", tmp_path / "uids")
    return tmp_path / "uids"


def test_a_range_is_claimed_once_and_free_again_with_its_holder(claims: Path) -> None:
    first, claim = ids.claim_range(ids.RANGE_COUNT - 1)
    second, other = ids.claim_range(ids.RANGE_COUNT - 1)
    with other:
        assert first == ids.FIRST_UID + (ids.RANGE_COUNT - 1) * RANGE
        assert second == ids.FIRST_UID
        assert claims.stat().st_mode & 0o777 == 0o700
        with claim, subprocess.Popen(("sleep", "60"), pass_fds=[claim.fileno()]) as holder:
            claim.close()
            assert _number(ids.RANGE_COUNT - 1) == 1
            holder.kill()
        assert _number(ids.RANGE_COUNT - 1) == ids.RANGE_COUNT - 1


def test_when_all_are_claimed_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "RANGE_COUNT", 2)
    with ids.claim_range(0)[1], ids.claim_range(0)[1]:
        before = list(Path("/proc/self/fd").iterdir())
        with pytest.raises(Unusable) as refusal:
            ids.claim_range(0)
        assert refusal.value.reason == "TOO_MANY_MACHINES"
        assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


@pytest.mark.attack
def test_an_abstract_address_which_anybody_can_bind_claims_nothing() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind("\0steward-uids-7")
        assert _number(7) == 7


def _number(first: int) -> int:
    """The number of the range that whoever looks from there on gets."""
    base, claim = ids.claim_range(first)
    claim.close()
    return (base - ids.FIRST_UID) // RANGE
