"""Makes the steps of `clients/conformance/script.json` through this client, and prints TAP.

The format is told beside the script.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc.aio
import numpy as np
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

import steward
from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward.inference.v1 import inference_pb2
from steward_client import AsyncClient
from steward_client.channels import Address
from steward_client.client.agent_streams import AsyncAgentStream, StreamAgent
from steward_client.client.conversation import Conversation, Read, bearer
from steward_client.client.methods import call_of
from steward_client.client.steps import Step, Steps
from steward_client.errors import StewardError, Unavailable, error_of
from steward_client.stream import Stream

Json = Any
M = TypeVar("M", bound=Message)
ATTEMPTS = 4
PUSH_WITHIN_S = 5.0


class Failed(Exception):
    """Something else came than was expected."""


class Variables(dict[str, str]):
    """What `${NAME}` stands for."""

    def filled(self, template: Json) -> Json:
        match template:
            case str():
                return re.sub(r"\$\{(\w+)\}", lambda found: self[found[1]], template)
            case list():
                return [self.filled(each) for each in template]
            case dict():
                return {name: self.filled(each) for name, each in template.items()}
        return template

    def keep(self, paths: Mapping[str, str], answer: Json) -> None:
        for name, path in paths.items():
            value = answer
            for part in path.split("."):
                value = value[int(part)] if isinstance(value, list) else value[part]
            self[name] = str(value)


def hold(pattern: Json, came: Json, where: str = "the answer") -> None:
    """Hold a pattern against what came.

    Raises:
        Failed: they do not match.
    """
    match pattern:
        case {"$match": expression}:
            good = isinstance(came, str) and re.fullmatch(expression, came) is not None
        case {"$any": True}:
            good = came is not None
        case {"$has": patterns}:
            for each in patterns:
                if not any(_matches(each, one) for one in _list(came, where)):
                    raise Failed(f"expected {where} to have {json.dumps(each)}")
            return
        case dict():
            if not isinstance(came, dict):
                raise Failed(f"expected {where} to be an object, and it is {json.dumps(came)}")
            for name, each in pattern.items():
                hold(each, came.get(name), f"{where}.{name}")
            return
        case list():
            if len(pattern) != len(_list(came, where)):
                raise Failed(f"expected {len(pattern)} elements in {where}, not {len(came)}")
            for at, (each, one) in enumerate(zip(pattern, came, strict=True)):
                hold(each, one, f"{where}.{at}")
            return
        case bool() | str() | None:
            good = type(pattern) is type(came) and pattern == came
        case _:
            good = (
                isinstance(came, int | float)
                and not isinstance(came, bool)
                and abs(pattern - came) <= 1e-6 * max(1.0, abs(pattern), abs(came))
            )
    if not good:
        raise Failed(f"expected {where} to be {json.dumps(pattern)}, and it is {json.dumps(came)}")


def _list(came: Json, where: str) -> list[Json]:
    if not isinstance(came, list):
        raise Failed(f"expected {where} to be a list, and it is {json.dumps(came)}")
    return came


def _matches(pattern: Json, came: Json) -> bool:
    try:
        hold(pattern, came)
    except Failed:
        return False
    return True


def hold_refusal(expected: Json, error: StewardError) -> None:
    """Hold what is expected of a refusal against it.

    Raises:
        Failed: it is another one.
    """
    errors = [
        {"line": each.line, "column": each.column, "path": each.path, "message": each.message}
        for each in error.errors
    ]
    came = {
        "kind": type(error).__name__,
        "code": error.code,
        "reason": error.reason,
        "facts": error.facts,
        "fields": sorted(error.fields),
        "errors": errors,
        "retry_after": error.retry_after_s is not None,
    }
    if "fields" in expected:
        expected = expected | {"fields": sorted(expected["fields"])}
    try:
        hold(expected, came, "the refusal")
    except Failed as failed:
        raise Failed(f"{failed}\ncame {json.dumps(came)}: {error.message}") from None


def hold_outcome(expected: Json, outcome: Json | StewardError) -> None:
    """Hold a step's or an exchange's `answer` or `refusal` against what came."""
    if isinstance(outcome, StewardError):
        if "refusal" not in expected:
            raise Failed(f"expected an answer\ncame {type(outcome).__name__}: {outcome}")
        hold_refusal(expected["refusal"], outcome)
    elif "refusal" in expected:
        raise Failed(f"expected to be refused\ncame {json.dumps(outcome)}")
    else:
        hold(expected.get("answer", {}), outcome)


def read(message: M, fields: Json) -> M:
    """A message of its JSON."""
    json_format.ParseDict(fields, message)
    return message


def shown(message: Message) -> Json:
    return json_format.MessageToDict(message)


def request_of(call: str, fields: Json) -> Message:
    service, _, name = call.partition("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return read(message_factory.GetMessageClass(method.input_type)(), fields)


class Runner:
    """Makes steps, at the server and at the shaky address."""

    def __init__(self, server: str, shaky: str, variables: Variables) -> None:
        self._server = server
        self._shaky = shaky
        self._variables = variables

    async def make(self, step: Json) -> None:
        """Make a step.

        Raises:
            Failed: it went otherwise than expected.
        """
        begun_s = time.monotonic()
        if "session" in step:
            async with _Session(self._server, self._variables.filled(step["as"])) as session:
                await self._converse(step["session"], session.ask, session.pushed)
        elif "stream" in step:
            async with self._client(self._variables.filled(step)) as client:
                stream = _Steps(client)
                try:
                    await self._converse(step["stream"], stream.ask, _nothing_is_pushed)
                finally:
                    await stream.close()
        elif "answers" in step:
            await self._read_stream(self._variables.filled(step))
        else:
            await self._call(self._variables.filled(step))
        took_s = time.monotonic() - begun_s
        if not step.get("at_least_s", 0) <= took_s <= step.get("at_most_s", float("inf")):
            raise Failed(f"it took {took_s:.3f} s")

    def _client(self, step: Json) -> AsyncClient:
        address = self._shaky if step.get("at") == "shaky" else self._server
        return AsyncClient(address, token=step.get("as", ""), attempts=ATTEMPTS)

    async def _call(self, step: Json) -> None:
        request = request_of(step["call"], step["send"])
        outcome: Json | StewardError
        async with self._client(step) as client:
            try:
                if call_of(step["call"], request).streams:
                    outcome = await client.hold(_messages(client, step, 1))
                else:
                    outcome = shown(
                        await client.call(step["call"], request, timeout_s=step.get("timeout_s"))
                    )
            except StewardError as error:
                outcome = error
        hold_outcome(step, outcome)
        self._variables.keep(step.get("keep", {}), outcome)

    async def _read_stream(self, step: Json) -> None:
        count = len(step["answers"])
        async with self._client(step) as client:
            try:
                came = await client.hold(
                    _messages(client, step, count + 1 if step.get("ends") else count)
                )
            except StewardError as error:
                raise Failed(f"expected answers\ncame {type(error).__name__}: {error}") from error
        hold(step["answers"], came, "the answers")
        self._variables.keep(step.get("keep", {}), came[-1])

    async def _converse(
        self,
        exchanges: list[Json],
        ask: Callable[[Json], Any],
        pushed: Callable[[], Any],
    ) -> None:
        asked: list[tuple[Json, asyncio.Task[Json | StewardError]]] = []
        for at, raw in enumerate(exchanges):
            exchange = self._variables.filled(raw)
            if "meanwhile" in exchange:
                await self._call(exchange["meanwhile"])
            if "push" in exchange:
                came = await pushed()
                hold(exchange["push"], came, "the push")
                self._variables.keep(exchange.get("keep", {}), came)
            if "send" not in exchange:
                continue
            asked.append((exchange, asyncio.create_task(_outcome(ask(exchange["send"])))))
            if (
                exchange.get("together")
                and exchanges[at + 1 : at + 2]
                and (exchanges[at + 1].get("together"))
            ):
                await asyncio.sleep(0)  # it is sent before the next
                continue
            for each, task in asked:
                outcome = await task
                hold_outcome(each, outcome)
                self._variables.keep(each.get("keep", {}), outcome)
            asked.clear()


async def _outcome(asking: Any) -> Json | StewardError:
    try:
        return await asking
    except StewardError as error:
        return error


def _messages(client: AsyncClient, step: Json, count: int) -> Conversation[list[Json]]:
    """So many messages of a stream, or all that it has if those are fewer."""
    stream = yield from client.manners.ask(
        call_of(step["call"], request_of(step["call"], step["send"]))
    )
    try:
        came: list[Json] = []
        while len(came) < count and (message := (yield Read(stream, may_end=True))) is not None:
            came.append(shown(message))
        return came
    finally:
        stream.cancel()


async def _nothing_is_pushed() -> Json:
    raise Failed("nothing is pushed over this stream")


class _Session:
    """A conversation over `BudgetService.Session`."""

    def __init__(self, server: str, token: str) -> None:
        self._channel = Address.parse(server).open_async()
        self._pushed: asyncio.Queue[budget_pb2.Control] = asyncio.Queue()
        self._call = BudgetServiceStub(self._channel).Session(metadata=bearer(token))
        self._stream = Stream(self._call, answer_timeout_s=10.0, on_control=self._pushed.put_nowait)
        self._reading = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await self._reading
        await self._channel.close()

    async def _read(self) -> None:
        try:
            await self._stream.read()
        finally:
            self._stream.cut()

    async def ask(self, member: Json) -> Json:
        message = read(budget_pb2.SessionRequest(), member)
        [(field, value)] = message.ListFields()
        try:
            return shown(await self._stream.ask(**{field.name: value}))
        except Unavailable:
            # Why the stream ended is the reader's to know.
            try:
                await self._reading
            except grpc.aio.AioRpcError as error:
                raise error_of(error) from error
            raise

    async def pushed(self) -> Json:
        try:
            async with asyncio.timeout(PUSH_WITHIN_S):
                return {"control": shown(await self._pushed.get())}
        except TimeoutError:
            raise Failed(f"expected a push, and none came in {PUSH_WITHIN_S:g} s") from None


class _Steps:
    """A conversation over `InferenceService.Stream`, by the client's stream of agents."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._stream: AsyncAgentStream | None = None

    async def ask(self, member: Json) -> Json:
        message = read(inference_pb2.StreamRequest(), member)
        if message.HasField("open"):
            self._stream = await self._client.inference.stream(
                [
                    StreamAgent(
                        each.agent_id,
                        each.policy,
                        each.seed if each.HasField("seed") else None,
                        each.reset,
                    )
                    for each in message.open.agents
                ]
            )
            return {
                "opened": {
                    "policies": list(self._stream.policies),
                    "begun": list(self._stream.begun),
                }
            }
        if self._stream is None:
            raise Failed("a stream begins with an open")
        if message.HasField("step"):
            step = message.step
            return {
                "step": _step_json(
                    await self._stream.step_one(
                        step.agent, step.observation, deterministic=step.deterministic
                    )
                )
            }
        packed = message.packed
        count = len(packed.agents) or len(self._stream)
        steps = await self._stream.step(
            np.frombuffer(packed.observations, "<f4").reshape(count, -1),
            agents=list(packed.agents) or None,
            deterministic=packed.deterministic,
        )
        return {"packed": _packed_json(steps)}

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()


def _step_json(step: Step) -> Json:
    action = (
        inference_pb2.Action(choice=step.action)
        if isinstance(step.action, int)
        else inference_pb2.Action(numbers=inference_pb2.Vector(values=step.action))
    )
    return shown(
        inference_pb2.StepResponse(
            action=action,
            value=step.value,
            log_prob=step.log_prob,
            agent_id=step.agent_id,
            pressure=step.pressure,
        )
    )


def _packed_json(steps: Steps) -> Json:
    numbers = {
        "actions": steps.actions,
        "values": steps.values,
        "logProbs": steps.log_probs,
        "pressures": steps.pressures,
    }
    packed = {name: base64.b64encode(each.tobytes()).decode() for name, each in numbers.items()}
    return packed | ({"failed": list(steps.failed)} if steps.failed else {})


def import_contracts() -> None:
    """Have every contract at hand by its name."""
    [root] = (Path(each) for each in steward.__path__)
    for file in sorted(root.rglob("*_pb2.py")):
        import_module(".".join(("steward", *file.relative_to(root).with_suffix("").parts)))


async def run(runner: Runner, steps: list[Json]) -> bool:
    """Make the steps in order, up to the first that fails; whether none did."""
    print(f"1..{len(steps)}")
    for number, step in enumerate(steps, 1):
        try:
            await runner.make(step)
        except (Failed, LookupError, json_format.ParseError) as error:
            print(f"not ok {number} - {step['say']}")
            print("\n".join(f"# {line}" for line in (str(error) or repr(error)).splitlines()))
            return False
        print(f"ok {number} - {step['say']}", flush=True)
    return True


def main() -> int:
    import_contracts()
    steps = json.loads(Path(os.environ["CONFORMANCE_SCRIPT"]).read_text())["steps"]
    mark = "STEWARD_VAR_"
    variables = Variables(
        (name.removeprefix(mark), value)
        for name, value in os.environ.items()
        if name.startswith(mark)
    )
    runner = Runner(os.environ["STEWARD_SERVER"], os.environ["STEWARD_SHAKY"], variables)
    return 0 if asyncio.run(run(runner, steps)) else 1


if __name__ == "__main__":
    sys.exit(main())
