"""Handshakes over a real port: what is lent, to whom the key is sealed, what a refusal leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from steward.budget.v1 import budget_pb2 as pb
from steward_client.seal import SealBroken, open_ip_token
from tests.books import DATABASE
from tests.integration.budget.conftest import USD, Bank, open_bank
from tests.integration.conftest import refusal
from tests.live import PROVIDER_KEY, Agent, create_provider

pytestmark = pytest.mark.asyncio(loop_scope="module")

INT64_MAX = 2**63 - 1
MAX_REQUEST = 10**18


async def test_money_is_lent_and_the_answer_says_all_of_it(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=5)

    granted = await bank.handshake(agent, 2 * USD, runtime_id="laptop", runtime_version="1.2")

    lease = bank.sound_books().lease(granted.lease_id)
    assert (lease.agent_id, lease.granted_nanousd, lease.state) == (
        agent.agent_id,
        2 * USD,
        "active",
    )
    assert granted.agent_id == agent.agent_id
    assert granted.budget_requested_nanousd == granted.budget_granted_nanousd == 2 * USD
    assert granted.budget_remaining_nanousd == 3 * USD
    assert not granted.partial
    assert (granted.provider, granted.provider_kind) == ("openai", "openai")
    assert granted.base_url == "http://127.0.0.1:9"
    assert granted.expires_at.ToMicroseconds() == bank.clock() + 900_000_000
    assert (granted.lease_duration_ms, granted.settle_grace_ms) == (900_000, 60_000)
    assert granted.desired_state == pb.DESIRED_STATE_RUNNING
    assert granted.price_version == await bank.price_version()
    opened = bank.books().of_kind("lease.opened")[0]
    assert (opened.lsn, opened.subject) == (granted.commit_number, granted.lease_id)


async def test_who_names_no_amount_gets_the_default_tranche(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=50)
    granted = await bank.handshake(agent, None)
    assert granted.budget_requested_nanousd == granted.budget_granted_nanousd == 10 * USD


async def test_a_partial_grant_says_so(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=5)
    granted = await bank.handshake(agent, 8 * USD)
    assert (granted.budget_requested_nanousd, granted.budget_granted_nanousd) == (8 * USD, 5 * USD)
    assert granted.partial
    assert granted.budget_remaining_nanousd == 0


async def test_what_is_above_the_largest_tranche_is_cut_to_it(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=5_000)
    granted = await bank.handshake(agent, MAX_REQUEST)
    assert granted.budget_granted_nanousd == 1_000 * USD
    assert granted.partial


# Refusals.


async def changes_nothing(bank: Bank, agent: Agent, **fields: Any) -> Any:
    """The refusal of a handshake, having seen that it left every row as it was."""
    before = bank.books()
    refused = await refusal(bank.handshake(agent, **fields))
    assert bank.books() == before
    return refused


async def test_an_empty_budget_refuses_with_402_and_says_how_much_is_left(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=2)
    await bank.handshake(agent, 2 * USD)

    refused = await changes_nothing(bank, agent, amount_nanousd=1)
    rest = bank.live.api.acting_as(x_ic_key=agent.ic_token)
    answer = await rest.call("POST", "/api/budget/handshake", {"requested_budget_usd": 0.5})

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.reason == "BUDGET_EXCEEDED"
    assert refused.facts["available_nanousd"] == "0"
    assert answer.status == 402
    assert answer.body["error"]["code"] == "BUDGET_EXCEEDED"


async def test_less_than_the_minimum_is_refused_instead_of_lent(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=5)
    refused = await changes_nothing(
        bank, agent, amount_nanousd=8 * USD, minimum_budget_nanousd=5 * USD + 1
    )
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "BUDGET_EXCEEDED",
    )
    granted = await bank.handshake(agent, 8 * USD, minimum_budget_nanousd=5 * USD)
    assert granted.budget_granted_nanousd == 5 * USD


async def test_fields_that_cannot_be_meant_are_all_named(bank: Bank) -> None:
    agent = await bank.agent()
    long, hostile = "x" * 101, "a\0b"
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"amount_nanousd": 0}, {"requested_budget_usd"}),
        ({"amount_nanousd": -1}, {"requested_budget_usd"}),
        ({"amount_nanousd": MAX_REQUEST + 1}, {"requested_budget_usd"}),
        ({"amount_nanousd": INT64_MAX}, {"requested_budget_usd"}),
        ({"amount_nanousd": -INT64_MAX - 1}, {"requested_budget_usd"}),
        ({"minimum_budget_nanousd": -1}, {"minimum_budget_usd"}),
        ({"minimum_budget_nanousd": INT64_MAX}, {"minimum_budget_usd"}),
        ({"minimum_budget_nanousd": USD + 1}, {"minimum_budget_usd"}),
        ({"provider": "p" * 51}, {"provider"}),
        ({"provider": hostile}, {"provider"}),
        ({"runtime_id": long}, {"runtime_id"}),
        ({"runtime_id": hostile}, {"runtime_id"}),
        ({"runtime_version": long}, {"runtime_version"}),
        ({"request_id": long}, {"request_id"}),
        ({"request_id": hostile}, {"request_id"}),
        ({"public_key": bytes(31)}, {"public_key"}),
        ({"public_key": b"\1" * 33}, {"public_key"}),
        ({"public_key": b"\1" * 100_000}, {"public_key"}),
        ({"public_key": bytes(32)}, {"public_key"}),
        (
            {"amount_nanousd": 0, "runtime_id": long, "public_key": b"\1"},
            {"requested_budget_usd", "runtime_id", "public_key"},
        ),
    ]
    for fields, wrong in cases:
        refused = await changes_nothing(bank, agent, **fields)
        assert (refused.code, set(refused.fields)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            wrong,
        ), fields


async def test_the_longest_and_largest_values_are_taken(bank: Bank) -> None:
    agent = await bank.agent()
    granted = await bank.handshake(
        agent,
        MAX_REQUEST,
        minimum_budget_nanousd=10 * USD,
        runtime_id="x" * 100,
        runtime_version="ä" * 100,
        request_id=" " * 100,
    )
    assert granted.budget_granted_nanousd == 10 * USD


async def test_a_minimum_above_the_default_tranche_is_named(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=100)
    refused = await changes_nothing(
        bank, agent, amount_nanousd=None, minimum_budget_nanousd=11 * USD
    )
    assert set(refused.fields) == {"minimum_budget_usd"}


async def test_an_agent_that_was_told_to_stop_gets_nothing(bank: Bank) -> None:
    agent = await bank.agent()
    await bank.stop(agent)
    refused = await changes_nothing(bank, agent)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "AGENT_STOPPED",
    )
    await bank.start(agent)
    assert (await bank.handshake(agent)).lease_id


async def test_a_provider_that_is_not_the_agents_own_is_refused(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await create_provider(bank.live.admin, name="anthropic")
        agent = await bank.agent()
        path = f"/api/v1/agents/{agent.agent_id}"
        changed = await bank.live.admin.call("PATCH", path, {"provider": "anthropic"})
        assert changed.status == 200

        refused = await changes_nothing(bank, agent, provider="openai")
        granted = await bank.handshake(agent)

        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "PROVIDER_NOT_ALLOWED",
        )
        assert refused.facts["allowed"] == "anthropic"
        assert granted.provider_kind == "anthropic"


async def test_a_provider_must_be_there_and_be_named_if_there_are_several(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        agent = await bank.agent()
        unknown = await changes_nothing(bank, agent, provider="mistral")
        await create_provider(bank.live.admin, name="anthropic")
        ambiguous = await changes_nothing(bank, agent)
        assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND")
        assert (ambiguous.code, ambiguous.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "PROVIDER_AMBIGUOUS",
        )
        assert (await bank.handshake(agent, provider="anthropic")).provider == "anthropic"


async def test_a_key_that_cannot_be_decrypted_lends_nothing(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        agent = await bank.agent()
        _change_every_provider_key(bank)

        refused = await changes_nothing(bank, agent)

        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNUSABLE")
        assert bank.sound_books().account(agent.agent_id).leased_nanousd == 0


async def test_nobody_but_an_agent_borrows(bank: Bank) -> None:
    agent = await bank.agent()
    before = bank.books()
    request = pb.HandshakeRequest(requested_budget_nanousd=1)
    person = await refusal(bank.budget.Handshake(request, metadata=bank.admin))
    nobody = await refusal(bank.budget.Handshake(request))
    await bank.revoke_token(agent)
    revoked = await refusal(bank.handshake(agent))
    assert person.code is grpc.StatusCode.PERMISSION_DENIED
    assert nobody.code is revoked.code is grpc.StatusCode.UNAUTHENTICATED
    assert bank.books().leases == before.leases


# The key.


async def test_a_key_sealed_to_a_public_key_opens_with_its_private_key_alone(bank: Bank) -> None:
    agent, private_key = await bank.agent(), X25519PrivateKey.generate()
    public_key = private_key.public_key().public_bytes_raw()

    granted = await bank.handshake(agent, public_key=public_key)

    assert granted.seal_format == pb.SEAL_FORMAT_HPKE
    assert granted.ip_token.startswith("HPKE:")
    assert open_ip_token(granted, private_key) == PROVIDER_KEY
    with pytest.raises(SealBroken):
        open_ip_token(granted, X25519PrivateKey.generate())
    with pytest.raises(SealBroken):
        open_ip_token(granted, agent.ic_token)


async def test_a_key_sealed_in_text_opens_with_the_ic_token_alone(bank: Bank) -> None:
    agent = await bank.agent()

    granted = await bank.handshake(agent)

    assert granted.seal_format == pb.SEAL_FORMAT_AES256
    assert granted.ip_token.startswith("AES256:")
    assert len(granted.seal_salt) == 32
    assert open_ip_token(granted, agent.ic_token) == PROVIDER_KEY
    with pytest.raises(SealBroken):
        open_ip_token(granted, (await bank.agent()).ic_token)


async def test_a_token_in_the_body_borrows_and_opens_as_well(bank: Bank) -> None:
    agent = await bank.agent()
    granted = await bank.budget.Handshake(pb.HandshakeRequest(ic_token=agent.ic_token))
    assert granted.agent_id == agent.agent_id
    assert open_ip_token(granted, agent.ic_token) == PROVIDER_KEY


async def test_a_seal_is_bound_to_lease_agent_and_expiry(bank: Bank) -> None:
    agent = await bank.agent()
    granted, other = await bank.handshake(agent), await bank.handshake(agent)
    assert granted.lease_id.encode() in granted.seal_info
    assert agent.agent_id.encode() in granted.seal_info
    other.ip_token, other.seal_salt = granted.ip_token, granted.seal_salt
    with pytest.raises(SealBroken):
        open_ip_token(other, agent.ic_token)


# Repetitions.


async def test_a_repeated_handshake_gives_the_same_lease_sealed_anew(bank: Bank) -> None:
    agent, key = await bank.agent(), X25519PrivateKey.generate()
    fresh_key = X25519PrivateKey.generate()
    first = await bank.handshake(
        agent, 8 * USD, request_id="once", public_key=key.public_key().public_bytes_raw()
    )
    before = bank.books()

    again = await bank.handshake(
        agent, 8 * USD, request_id="once", public_key=fresh_key.public_key().public_bytes_raw()
    )
    in_text = await bank.handshake(agent, 8 * USD, request_id="once")

    assert open_ip_token(again, fresh_key) == PROVIDER_KEY
    assert open_ip_token(in_text, agent.ic_token) == PROVIDER_KEY
    assert _but_the_seal(first) == _but_the_seal(again) == _but_the_seal(in_text)
    assert bank.sound_books() == before


async def test_the_first_answer_is_given_although_the_lease_has_grown(bank: Bank) -> None:
    agent = await bank.agent()
    first = await bank.handshake(agent, 4 * USD, request_id="once")
    await bank.refresh(agent, first.lease_id, 3 * USD)
    grown = await bank.handshake(agent, 4 * USD, request_id="once")
    assert _but_the_seal(grown) == _but_the_seal(first)


async def test_no_key_is_handed_over_for_a_lease_that_has_ended(bank: Bank) -> None:
    agent = await bank.agent()
    first = await bank.handshake(agent, 4 * USD, request_id="once")
    await bank.give_back(agent, first.lease_id)
    refused = await changes_nothing(bank, agent, amount_nanousd=4 * USD, request_id="once")
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LEASE_CLOSED",
    )
    assert refused.facts["lease_id"] == first.lease_id


async def test_the_lease_keeps_its_provider_when_the_agents_changes(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        agent = await bank.agent()
        first = await bank.handshake(agent, request_id="once")
        await create_provider(bank.live.admin, name="anthropic", key="sk-another-key-0123456789")
        path = f"/api/v1/agents/{agent.agent_id}"
        changed = await bank.live.admin.call("PATCH", path, {"provider": "anthropic"})
        assert changed.status == 200
        again = await bank.handshake(agent, request_id="once")
        assert _but_the_seal(again) == _but_the_seal(first)
        assert open_ip_token(again, agent.ic_token) == PROVIDER_KEY


async def test_another_body_under_the_same_id_is_a_conflict(bank: Bank) -> None:
    agent = await bank.agent()
    await bank.handshake(agent, 4 * USD, request_id="once")
    bodies: list[dict[str, Any]] = [
        {"amount_nanousd": 4 * USD + 1},
        {"amount_nanousd": None},
        {"amount_nanousd": 4 * USD, "minimum_budget_nanousd": 1},
        {"amount_nanousd": 4 * USD, "provider": "openai"},
    ]
    for fields in bodies:
        refused = await changes_nothing(bank, agent, request_id="once", **fields)
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
        )
    rest = bank.live.api.acting_as(x_ic_key=agent.ic_token)
    body = {"requested_budget_usd": 1, "request_id": "once"}
    assert (await rest.call("POST", "/api/budget/handshake", body)).status == 409


async def test_over_rest_the_id_may_be_a_header(bank: Bank) -> None:
    agent = await bank.agent()
    rest = bank.live.api.acting_as(x_ic_key=agent.ic_token)
    path, body = "/api/budget/handshake", {"requested_budget_usd": 1}
    first = await rest.call("POST", path, body, Idempotency_Key="once")
    again = await rest.call("POST", path, body, Idempotency_Key="once")
    other = await rest.call("POST", path, {"requested_budget_usd": 2}, Idempotency_Key="once")
    assert first.status == again.status == 200
    assert first.body["lease_id"] == again.body["lease_id"]
    assert (other.status, other.body["error"]["reason"]) == (409, "REQUEST_ID_REUSED")


async def test_request_ids_of_different_agents_have_nothing_to_do_with_each_other(
    bank: Bank,
) -> None:
    one, other = await bank.agent(), await bank.agent()
    first = await bank.handshake(one, request_id="once")
    second = await bank.handshake(other, request_id="once")
    assert first.lease_id != second.lease_id


async def test_a_handshake_repeated_at_the_same_time_lends_once(bank: Bank) -> None:
    agent = await bank.agent()
    answers = await asyncio.gather(
        *(bank.handshake(agent, USD, request_id="once") for _ in range(20))
    )
    assert len({answer.lease_id for answer in answers}) == 1
    assert len({answer.commit_number for answer in answers}) == 1
    assert bank.sound_books().account(agent.agent_id).leased_nanousd == USD


async def test_money_lent_before_a_restart_is_lent_after_it(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        agent = await bank.agent()
        first = await bank.handshake(agent, request_id="once")
    async with open_bank(tmp_path) as bank:
        again = await bank.handshake(agent, request_id="once")
        again.lease_duration_ms = first.lease_duration_ms  # the restart took some of it
        assert _but_the_seal(again) == _but_the_seal(first)
        assert open_ip_token(again, agent.ic_token) == PROVIDER_KEY
        assert (await bank.report(agent, first.lease_id)).sequence == 1
        bank.sound_books()


def _but_the_seal(answer: Any) -> Any:
    rest = pb.HandshakeResponse()
    rest.CopyFrom(answer)
    for field in ("ip_token", "seal_format", "seal_salt", "seal_info"):
        rest.ClearField(field)
    return rest


def _change_every_provider_key(bank: Bank) -> None:
    with sqlite3.connect(bank.folder / DATABASE, timeout=5) as connection:
        row = connection.execute("SELECT sealed_key FROM provider").fetchone()
        changed = bytes([*row[0][:-1], row[0][-1] ^ 1])
        connection.execute("UPDATE provider SET sealed_key = ?", (changed,))
    connection.close()


async def test_an_agent_that_is_lent_nothing_was_heard_all_the_same(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=1)
    await bank.handshake(agent, USD)
    bank.clock.advance(60)
    refused = await refusal(bank.handshake(agent, USD))
    assert refused.reason == "BUDGET_EXCEEDED"
    assert (await bank.status(agent)).last_seen_at.ToMicroseconds() == bank.clock()
