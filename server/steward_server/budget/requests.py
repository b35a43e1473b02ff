"""What runtimes send, checked and turned into what the desk takes, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.rpc import status_pb2

from steward.budget.v1 import budget_pb2 as pb
from steward_client.prices import TokenUsage
from steward_server.budget.bookings import Booked, Fact, Outcome
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.pricing import PriceBook
from steward_server.budget.refusals import refused
from steward_server.budget.store import Terms
from steward_server.budget.values import MAX_BALANCE_NANOUSD, MAX_COST_NANOUSD, LeaseState
from steward_server.checks import Checks
from steward_server.clock import microseconds
from steward_server.errors import StewardError

MAX_TOKENS = 10**12
MAX_DURATION_MS = 7 * 86_400 * 1_000
MAX_REQUEST_NANOUSD = MAX_BALANCE_NANOUSD
MAX_TIMESTAMP_S = 253_402_300_799  # the last second of the year 9999, as protobuf has it

LEASE_STATES = {
    LeaseState.ACTIVE: pb.LEASE_STATE_ACTIVE,
    LeaseState.DRAINING: pb.LEASE_STATE_DRAINING,
    LeaseState.CLOSED: pb.LEASE_STATE_CLOSED,
    LeaseState.EXPIRED: pb.LEASE_STATE_EXPIRED,
    LeaseState.REVOKED: pb.LEASE_STATE_REVOKED,
}
CERTAINTIES = {
    pb.CERTAINTY_UNSPECIFIED: "measured",
    pb.CERTAINTY_MEASURED: "measured",
    pb.CERTAINTY_COUNTED: "counted",
    pb.CERTAINTY_ASSUMED: "assumed",
}


def check_handshake(request: pb.HandshakeRequest) -> None:
    """Refuse a handshake that cannot be meant.

    Raises:
        InvalidArgument: with every field that is wrong.
    """
    with Checks() as checks:
        if request.HasField("requested_budget_nanousd"):
            checks.between(
                "requested_budget_usd", request.requested_budget_nanousd, 1, MAX_REQUEST_NANOUSD
            )
        checks.between("minimum_budget_usd", request.minimum_budget_nanousd, 0, MAX_REQUEST_NANOUSD)
        checks.text("provider", request.provider, 0, 50)
        checks.text("runtime_id", request.runtime_id, 0, 100)
        checks.text("runtime_version", request.runtime_version, 0, 100)
        checks.text("request_id", request.request_id, 0, 100)
        if len(request.public_key) not in (0, 32):
            checks.add(
                "public_key",
                f"has {len(request.public_key)} bytes; an X25519 public key has 32",
            )


def handshake_digest(request: pb.HandshakeRequest) -> bytes:
    """What makes a repetition the same handshake. The key may be fresh: it is sealed anew."""
    parts = (
        request.HasField("requested_budget_nanousd"),
        request.requested_budget_nanousd,
        request.minimum_budget_nanousd,
        request.provider,
    )
    return hashlib.sha256(repr(parts).encode()).digest()


def check_amount(request: pb.RefreshRequest) -> int | None:
    """The amount a refresh asks for.

    Raises:
        InvalidArgument: it is out of range.
    """
    with Checks() as checks:
        checks.text("lease_id", request.lease_id, 1, 100)
        checks.text("request_id", request.request_id, 0, 100)
        if not request.HasField("requested_budget_nanousd"):
            return None
        checks.between(
            "requested_budget_usd", request.requested_budget_nanousd, 1, MAX_REQUEST_NANOUSD
        )
    return request.requested_budget_nanousd


def fact_of(usage: pb.Usage | pb.ReportRequest, terms: Terms, prices: PriceBook) -> Fact:
    """A usage, checked and priced.

    Raises:
        InvalidArgument: with every field that is wrong, or reason PRICE_UNKNOWN.
    """
    # Read once each: a field of a message costs more than a name.
    request_id, model, provider = usage.request_id, usage.model, usage.provider
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    cache_read_tokens, cache_write_tokens = usage.cache_read_tokens, usage.cache_write_tokens
    cost_nanousd, price_version = usage.cost_nanousd, usage.price_version
    sequence, certainty = usage.sequence, CERTAINTIES.get(usage.certainty)
    duration_ms = usage.duration_ms
    is_timed = usage.HasField("timestamp")
    parts = input_tokens + output_tokens + cache_read_tokens + cache_write_tokens
    # One test for what is nearly always right keeps the hot path short.
    if (
        certainty is None
        or not 0 < len(request_id) <= 100
        or not 0 < len(model) <= 100
        or len(provider) > 50
        or len(price_version) > 100
        or not (request_id + model + provider + price_version).isprintable()
        or min(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, sequence) < 0
        or parts > MAX_TOKENS
        or usage.tokens not in (0, parts)
        or not 0 <= cost_nanousd <= MAX_COST_NANOUSD
        or not 0 <= duration_ms <= MAX_DURATION_MS
        or (is_timed and not _is_time(usage))
    ):
        _check_usage(usage, parts)
        certainty = CERTAINTIES[usage.certainty]
        if not parts:
            input_tokens = usage.tokens
    is_priced_here = not usage.HasField("cost_nanousd")
    if is_priced_here:
        tokens = TokenUsage(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
        kind = provider if provider in ("openai", "anthropic") else terms.provider_kind
        cost_nanousd, price_version = prices.priced(kind, model, tokens)
    return Fact(
        request_id,
        sequence,
        provider or terms.provider,
        model,
        input_tokens,
        output_tokens,
        cache_read_tokens,
        cache_write_tokens,
        cost_nanousd,
        price_version,
        certainty,
        microseconds(usage.timestamp) if is_timed else 0,
        is_priced_here,
        duration_ms,
    )


def facts_of(
    usages: Iterable[pb.Usage | pb.ReportRequest], terms: Terms, prices: PriceBook
) -> list[Fact | StewardError]:
    """Each usage checked and priced, or its refusal."""
    facts: list[Fact | StewardError] = []
    for usage in usages:
        try:
            facts.append(fact_of(usage, terms, prices))
        except StewardError as refusal:
            facts.append(refusal)
    return facts


def _check_usage(usage: pb.Usage | pb.ReportRequest, parts: int) -> None:
    with Checks() as checks:
        checks.text("request_id", usage.request_id, 1, 100)
        checks.text("model", usage.model, 1, 100)
        checks.text("provider", usage.provider, 0, 50)
        checks.text("price_version", usage.price_version, 0, 100)
        checks.between("sequence", usage.sequence, 0, 2**53)
        for field in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
            checks.between(field, getattr(usage, field), 0, MAX_TOKENS)
        checks.between("tokens", usage.tokens, 0, MAX_TOKENS)
        if usage.tokens and parts and usage.tokens != parts:
            checks.add("tokens", f"is {usage.tokens}; its parts add up to {parts}")
        checks.between("cost_usd", usage.cost_nanousd, 0, MAX_COST_NANOUSD)
        checks.between("duration_ms", usage.duration_ms, 0, MAX_DURATION_MS)
        if usage.certainty not in CERTAINTIES:
            checks.add("certainty", f"is {usage.certainty}; there is no such value")
        if not _is_time(usage):
            checks.add("timestamp", "must be from the years 1970 to 9999")


def _is_time(usage: pb.Usage | pb.ReportRequest) -> bool:
    stamp = usage.timestamp
    return 0 <= stamp.seconds <= MAX_TIMESTAMP_S and 0 <= stamp.nanos < 1_000_000_000


def status_of(outcome: Outcome) -> status_pb2.Status:
    """A refusal as a status."""
    if isinstance(outcome, LedgerError):
        return refused(outcome).to_status()
    if isinstance(outcome, StewardError):
        return outcome.to_status()
    raise TypeError("a booked usage has no status")


def booked_or_raise(outcome: Outcome) -> Booked:
    """The booking, or its refusal raised."""
    if isinstance(outcome, LedgerError):
        raise refused(outcome)
    if isinstance(outcome, StewardError):
        raise outcome
    return outcome
