"""A session against a server that behaves badly in one way at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import add_BudgetServiceServicer_to_server
from steward_client.call_bound import CallBound
from steward_client.errors import BudgetExceeded, DeadlineExceeded
from steward_client.flow import MAX_BATCH
from steward_client.lending import NotSpending
from steward_client.lent_key import LentKey
from steward_client.outbox import Outbox
from steward_client.prices import TokenUsage
from steward_client.purse import MEASURED, Hold, Purse, PurseConfig
from steward_client.seal import SealBroken
from steward_client.session import Session, SessionConfig
from tests.integration.client.conftest import price_table, until
from tests.integration.client.service import KEY, TOKEN, Books, refusal


@dataclass
class Desk:
    """A session with its purse, without a proxy."""

    books: Books
    purse: Purse
    session: Session
    outbox: list[Outbox]
    keys: list[LentKey]
    stops: list[str]

    async def spend(self, cost_nanousd: int) -> Hold:
        tariff = price_table().find("openai", "gpt-4o-mini")
        assert tariff is not None
        call = CallBound("gpt-4o-mini", tariff, 10, 100, 10)
        hold = await self.purse.hold(call)
        self.purse.settle(
            hold, cost_nanousd=cost_nanousd, usage=TokenUsage(input=1), certainty=MEASURED
        )
        return hold

    def costs(self, lease_id: str = "lease_1") -> list[int]:
        return [usage.cost_nanousd for usage in self.books.booked[lease_id]]


@asynccontextmanager
async def open_desk(
    path: Path,
    books: Books,
    *,
    budget_nanousd: int = 1_000_000,
    tranche_nanousd: int = 1_000_000,
    answer_timeout_s: float = 5.0,
) -> AsyncIterator[Desk]:
    server = grpc.aio.server()
    add_BudgetServiceServicer_to_server(books, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    purse = Purse(PurseConfig(budget_nanousd=budget_nanousd, tranche_nanousd=tranche_nanousd))
    outboxes: list[Outbox] = []

    def outbox_of(agent_id: str) -> Outbox:
        if not outboxes:
            outboxes.append(Outbox.open(path / agent_id / "outbox.sqlite"))
            outboxes[0].start()
        return outboxes[0]

    keys: list[LentKey] = []
    stops: list[str] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        session = Session(
            channel,
            ic_token=TOKEN,
            purse=purse,
            config=SessionConfig(
                "runtime_1",
                "1",
                backoff_s=0.01,
                heartbeat_s=0.2,
                answer_timeout_s=answer_timeout_s,
            ),
            outbox_of=outbox_of,
            on_lease=lambda key, _: keys.append(key),
            on_stop=stops.append,
        )
        purse.attach(session)
        try:
            await session.open()
            yield Desk(books, purse, session, outboxes, keys, stops)
        finally:
            await session.close(timeout_s=5)
            for outbox in outboxes:
                await outbox.close()
            await server.stop(None)


@pytest.mark.parametrize("form", ["hpke", "text"])
async def test_the_provider_key_comes_sealed(tmp_path: Path, form: str) -> None:
    books = Books(textual_seal=form == "text")
    async with open_desk(tmp_path, books) as desk:
        assert desk.keys == [LentKey("openai", "http://127.0.0.1:9", KEY)]
        assert KEY not in repr(desk.keys)


async def test_a_key_that_does_not_open_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SealBroken):
        async with open_desk(tmp_path, Books(wrong_seal=True)):
            pass


async def test_a_refused_handshake_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded):
        async with open_desk(tmp_path, Books(free_nanousd=0)):
            pass


async def test_a_server_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    books = Books(silent=lambda request: request.HasField("handshake"))
    with pytest.raises(DeadlineExceeded):
        async with open_desk(tmp_path, books, answer_timeout_s=0.2):
            pass


async def test_reports_arrive_in_order_and_the_lease_is_given_back(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Books()) as desk:
        for cost in range(1, 51):
            await desk.spend(cost)
    assert desk.costs() == list(range(1, 51))
    assert [usage.sequence for usage in desk.books.booked["lease_1"]] == list(range(1, 51))
    assert desk.books.closed == {"lease_1": sum(range(1, 51))}


async def test_what_gathers_while_a_batch_is_out_goes_together(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Books(), budget_nanousd=10**9, tranche_nanousd=10**9) as desk:
        await asyncio.gather(*(desk.spend(1) for _ in range(600)))
        await until(lambda: len(desk.books.booked["lease_1"]) == 600)

        assert max(desk.books.batches) <= MAX_BATCH
        assert len(desk.books.batches) < 100


@pytest.mark.parametrize("lost", ["report_batch", "refresh", "return_lease", "heartbeat"])
async def test_an_answer_that_is_lost_loses_and_doubles_nothing(tmp_path: Path, lost: str) -> None:
    books = Books(swallowed=lambda request: request.WhichOneof("message") == lost)
    async with open_desk(tmp_path, books, tranche_nanousd=200_000) as desk:
        for cost in range(1, 31):
            await desk.spend(cost * 1_000)
            await asyncio.sleep(0.005)
        await until(lambda: len(books.booked["lease_1"]) == 30)

        assert desk.costs() == [cost * 1_000 for cost in range(1, 31)]
        if lost != "return_lease":
            await until(lambda: books.streams == 2)
            await until(lambda: desk.purse.granted_nanousd == books.granted["lease_1"])
    assert sum(books.closed.values()) == sum(desk.costs())
    assert books.streams == 2


async def test_a_refresh_whose_answer_is_lost_is_asked_for_again_and_granted_once(
    tmp_path: Path,
) -> None:
    books = Books(swallowed=lambda request: request.HasField("refresh"))
    async with open_desk(tmp_path, books, tranche_nanousd=100_000) as desk:
        assert await desk.session.refresh(50_000)

        assert desk.purse.granted_nanousd == books.granted["lease_1"] == 150_000
        assert books.asked.count("refresh") == 2


async def test_a_report_that_is_refused_is_kept_and_those_behind_it_are_booked(
    tmp_path: Path,
) -> None:
    books = Books()
    async with open_desk(tmp_path, books) as desk:
        first = await desk.spend(1)
        await until(lambda: desk.costs() == [1])
        number = int(first.call_id.rpartition("-")[2])
        name = f"{first.call_id.rpartition('-')[0]}-{number + 1}"
        books.refused[name] = refusal(grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_ERROR")
        await asyncio.gather(*(desk.spend(cost) for cost in (20, 30, 40)))
        await until(lambda: len(books.booked["lease_1"]) == 4)
        path = desk.outbox[0].path

        assert sorted(desk.costs()) == [0, 1, 30, 40]
    assert path.exists()  # for people to look at
    assert books.closed == {"lease_1": 71}


async def test_a_batch_refused_as_a_whole_is_tried_again(tmp_path: Path) -> None:
    books = Books()
    plain = books.book
    tries: list[float] = []

    def refuse_once(batch: pb.ReportBatch) -> pb.SessionResponse:
        tries.append(time.monotonic())
        if len(tries) == 1:
            return pb.SessionResponse(refusal=refusal(grpc.StatusCode.INTERNAL, "INTERNAL_ERROR"))
        return plain(batch)

    books.book = refuse_once  # type: ignore[method-assign]
    async with open_desk(tmp_path, books) as desk:
        await desk.spend(5)
        await until(lambda: desk.costs() == [5])

        assert len(tries) == 2


async def test_a_stop_that_is_pushed_is_obeyed(tmp_path: Path) -> None:
    books = Books()
    async with open_desk(tmp_path, books) as desk:
        books.pushes.put_nowait(pb.Control(desired_state=pb.DESIRED_STATE_STOPPED, reason="lunch"))
        await until(lambda: desk.stops == ["lunch"])

        with pytest.raises(NotSpending, match="lunch"):
            await desk.spend(1)
        await until(lambda: books.closed == {"lease_1": 0})


async def test_a_lease_that_is_taken_back_is_replaced(tmp_path: Path) -> None:
    books = Books()
    async with open_desk(tmp_path, books) as desk:
        await desk.spend(7)
        books.pushes.put_nowait(
            pb.Control(
                desired_state=pb.DESIRED_STATE_STOPPED,
                lease_id="lease_1",
                lease_status=pb.LEASE_STATE_DRAINING,
            )
        )
        await until(lambda: "lease_2" in books.granted)
        await desk.spend(8)
        await until(lambda: books.closed == {"lease_1": 7})

        assert desk.costs("lease_2") in ([], [8])
        assert desk.stops == []
        assert desk.purse.granted_nanousd == 1_000_000
    assert books.closed == {"lease_1": 7, "lease_2": 8}


async def test_a_lease_is_replaced_once_whoever_asks(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Books()) as desk:
        asked = [desk.session.renew("lease_1") for _ in range(3)]
        assert await asyncio.gather(*asked) == [True, True, True]
        assert await desk.session.renew("lease_1")

        assert list(desk.books.granted) == ["lease_1", "lease_2"]


async def test_a_raised_budget_is_asked_for_at_once(tmp_path: Path) -> None:
    books = Books(free_nanousd=100_000)
    async with open_desk(tmp_path, books, tranche_nanousd=100_000) as desk:
        assert not await desk.purse._ask(lambda lender: lender.refresh(50_000))
        books.free_nanousd = 500_000
        books.pushes.put_nowait(pb.Control(budget_remaining_nanousd=500_000))
        await until(lambda: desk.purse._denied_until_s == 0.0)
        for _ in range(10):
            await desk.spend(20_000)

        assert desk.purse.granted_nanousd > 100_000


async def test_signs_of_life_are_given(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Books()) as desk:
        await until(lambda: desk.books.asked.count("heartbeat") >= 2)


async def test_a_server_that_falls_silent_is_called_again(tmp_path: Path) -> None:
    books = Books()
    async with open_desk(tmp_path, books, answer_timeout_s=0.2) as desk:
        books.silent = lambda request: request.HasField("heartbeat")
        await until(lambda: books.streams >= 2)
        books.silent = lambda request: False
        await desk.spend(3)
        await until(lambda: desk.costs() == [3])
