"""Who steps with which policy: agents, versions, and what happens when it is full."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import structlog

from steward_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StewardError,
    Unavailable,
)
from steward_server.inference.arena import Lease
from steward_server.inference.config import InferenceConfig
from steward_server.inference.manifest import Manifest
from steward_server.inference.metering import Meter, Owner
from steward_server.inference.model import BadPolicy, Floats, Model, OutOfReach, load
from steward_server.inference.repository import (
    BUILT_IN,
    BadReference,
    Reference,
    Shelf,
    look,
)
from steward_server.inference.runner import Results, Step
from steward_server.inference.served import Agent, Observe, Served

log = structlog.get_logger(__name__)

Tell: TypeAlias = Callable[[str, Reference, Mapping[str, str | int]], Awaitable[None]]
"""Writes down what became of a version: "policy.loaded", ".unloaded" or ".failed", and facts."""

DEFAULT_AGENT = "default"
"""Everybody has one from the start; others need a reset first."""


@dataclass(frozen=True, slots=True)
class Known:
    """A policy as it is listed.

    Attributes:
        latest: the version of whoever names none; 0 if none can be served.
        faults: of versions that cannot be served, why.
        manifests: of versions, as far as they can be used.
        served: versions that are loaded.
    """

    name: str
    latest: int
    is_default: bool
    versions: frozenset[int]
    faults: Mapping[int, str]
    manifests: Mapping[int, Manifest]
    served: Mapping[int, Served]


class Engine:
    """Serves policies from a folder to agents. Start it, and close it."""

    def __init__(
        self,
        config: InferenceConfig,
        data_dir: Path,
        clock: Callable[[], int],
        observe: Callable[[Reference], Observe] | None = None,
        tell: Tell | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Take settings; `tell` is told what becomes of policies, `meter` what agents pay for.

        Raises:
            BadReference: the default policy is none.
        """
        self._config = config
        self._folders = (config.folder or data_dir / "policies", BUILT_IN)
        self._default = Reference.parse(config.default_policy)
        self._clock = clock
        self._observe = observe
        self._tell = tell
        self._meter = meter
        self._executor = ThreadPoolExecutor(config.threads, "policies")
        self._shelf = Shelf()
        self._served: dict[Reference, Served] = {}
        self._faults: dict[Reference, str] = {}
        self._known_faults: dict[Reference, str] = {}
        """What was told last of each: what is tried again is not told again."""
        self._out_of_reach: set[Reference] = set()
        """Faults of other servers: tried again with every look."""
        self._let_go: set[Reference] = set()
        """Unloaded by somebody: loaded again only if somebody asks for them."""
        self._loading: dict[Reference, asyncio.Task[Served]] = {}
        self._agents: dict[tuple[str, str], Agent] = {}
        """By their owner's name and their own."""
        self._nameless: set[Agent] = set()
        self._owned: Counter[str] = Counter()

    # The beginning and the end.

    async def start(self) -> None:
        """See what there is, and load it if it is to be there from the start."""
        await self.look_again()

    async def keep_looking(self) -> None:
        """Load what comes into the folder, and end what was idle too long, for ever."""
        interval_s = self._config.reload_interval_s
        while True:
            await asyncio.sleep(interval_s or 60.0)
            self.end_idle()
            if interval_s:
                try:
                    await self.look_again()
                except Exception:
                    log.exception("inference.look_failed")

    def close(self) -> None:
        """Let go of the threads; what they compute is dropped."""
        for task in self._loading.values():
            task.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for served in self._served.values():
            served.model.close()

    @property
    def is_ready(self) -> bool:
        """Whether the default policy is loaded and runs."""
        with suppress(NotFound):
            return self.find(self._default) in self._served
        return False

    @property
    def trouble(self) -> str:
        """Why whoever names no policy gets no step; empty if nothing is known against it."""
        try:
            reference = self.find(self._default)
        except NotFound as error:
            return f"the default policy is missing: {error.message}"
        why = self._faults.get(reference, "")
        return f"the default policy {str(reference)!r} cannot be served: {why}" if why else ""

    # Policies.

    async def look(self) -> None:
        """Read the folders."""
        before = self._shelf
        self._shelf = await asyncio.to_thread(look, self._folders, before)
        for place, why in self._shelf.passed_over.items():
            if before.passed_over.get(place) != why:
                log.warning("inference.passed_over", folder=str(place), reason=why)
        self._faults = {
            reference: why
            for reference, why in self._faults.items()
            if self._is_unchanged(reference, before)
        }
        self._out_of_reach &= self._faults.keys()

    async def look_again(self) -> None:
        """Read the folders, and load the newest version of what is to be served."""
        await self.look()
        for name in self._shelf.versions:
            if self._config.load == "start" or any(each.name == name for each in self._served):
                await self._serve_newest(name)
        await self._retire()

    def _is_unchanged(self, reference: Reference, before: Shelf) -> bool:
        """Whether a version lies there as it lay: what was amiss may just not have been all."""
        place = self._shelf.versions.get(reference.name, {}).get(reference.version)
        return place is not None and self._shelf.stamps[place] == before.stamps.get(place)

    async def _serve_newest(self, name: str) -> None:
        """Load the newest version of a policy that can be."""
        for version in sorted(self._shelf.versions[name], reverse=True):
            reference = Reference(name, version)
            if reference in self._served or reference in self._let_go:
                return
            if reference not in self._faults or reference in self._out_of_reach:
                with suppress(FailedPrecondition):
                    await self.load(reference)
                    return

    async def _retire(self) -> None:
        """Begin no sequences on what is gone, and let go of it and of older ones once unused."""
        newest: dict[str, int] = {}
        for reference in self._served:
            newest[reference.name] = max(newest.get(reference.name, 0), reference.version)
        for reference, served in list(self._served.items()):
            served.is_retired = reference.version not in self._shelf.versions.get(
                reference.name, {}
            )
            is_old = served.is_retired or reference.version < newest[reference.name]
            if is_old and served.arena.used == 0 and served.runner.is_idle:
                self._served.pop(reference).model.close()
                log.info("inference.unloaded", policy=str(reference))
                await self._told("policy.unloaded", reference, agents_ended=0)

    async def _told(self, kind: str, reference: Reference, **facts: str | int) -> None:
        if self._tell is not None:
            try:
                await self._tell(kind, reference, facts)
            except StewardError:
                log.exception("inference.not_written_down", kind=kind, policy=str(reference))

    def find(self, reference: Reference) -> Reference:
        """The policy with the version that stands for "latest" now.

        Raises:
            NotFound: there is no such policy or version.
        """
        versions = self._shelf.versions.get(reference.name, {})
        if reference.version:
            if reference.version in versions:
                return reference
        elif version := self._latest(reference.name) or max(versions, default=0):
            return Reference(reference.name, version)
        known = ", ".join(sorted(self._shelf.versions)) or "none"
        if versions:
            known = ", ".join(f"{reference.name}@{each}" for each in sorted(versions))
        raise NotFound(
            f"no policy {str(reference)!r}; there are {known}",
            reason="POLICY_NOT_FOUND",
            facts={"policy": str(reference)},
        )

    def _latest(self, name: str) -> int:
        """The version of whoever names none; 0 if nothing can be served.

        A newer one that cannot be loaded takes nothing from them.
        """
        loaded = [
            each.version
            for each, served in self._served.items()
            if each.name == name and not served.is_retired
        ]
        on_shelf = self._shelf.versions.get(name, {})
        untried = [each for each in on_shelf if Reference(name, each) not in self._faults]
        return max(loaded or untried, default=0)

    def known(self) -> list[Known]:
        """All policies, by name."""
        found = []
        for name in sorted({*self._shelf.versions, *(each.name for each in self._served)}):
            served = {each.version: it for each, it in self._served.items() if each.name == name}
            on_shelf = self._shelf.versions.get(name, {})
            lying = {
                version: self._shelf.manifests[place]
                for version, place in on_shelf.items()
                if place in self._shelf.manifests
            }
            found.append(
                Known(
                    name,
                    self._latest(name),
                    name == self._default.name,
                    frozenset({*on_shelf, *served}),
                    {each.version: why for each, why in self._faults.items() if each.name == name},
                    lying | {version: each.manifest for version, each in served.items()},
                    served,
                )
            )
        return found

    async def load_newest(self, reference: Reference) -> Served:
        """As `load`; of "latest" the newest there is, not the newest that is loaded.

        Raises:
            As `load`.
        """
        newest = self._shelf.newest(reference.name)
        if not reference.version and newest:
            reference = Reference(reference.name, newest)
        served = await self.load(reference)
        await self._retire()
        return served

    async def unload(self, reference: Reference, *, force: bool) -> None:
        """Let go of a version, or of all of a policy, until somebody asks for it again.

        Raises:
            NotFound: there is none.
            FailedPrecondition: POLICY_IN_USE, agents have it and it is not forced.
        """
        self.find(reference)
        wanted = [each for each in self._served if reference.covers(each)]
        users = [
            each
            for each in (*self._agents.values(), *self._nameless)
            if each.served.reference in wanted
        ]
        if users and not force:
            raise FailedPrecondition(
                f"{len(users)} agents have policy {str(reference)!r}; end them first, or force it",
                reason="POLICY_IN_USE",
                facts={"policy": str(reference), "agents": str(len(users))},
            )
        for agent in users:
            self.end(agent)
        ended = Counter(agent.served.reference for agent in users)
        self._let_go.update(wanted)
        for each in wanted:
            served = self._served.pop(each)
            if served.runner.is_idle:  # else what is under way still needs it
                served.model.close()
            log.info("inference.unloaded", policy=str(each))
        for each in wanted:
            await self._told("policy.unloaded", each, agents_ended=ended[each])

    async def load(self, reference: Reference) -> Served:
        """A version, loaded if it is not.

        Raises:
            NotFound: there is none.
            FailedPrecondition: POLICY_UNUSABLE; the message says why.
        """
        found = self.find(reference)
        if (served := self._served.get(found)) is not None:
            return served
        task = self._loading.get(found)
        if task is None:
            task = asyncio.create_task(self._load(found))
            self._loading[found] = task
            task.add_done_callback(lambda _: self._loading.pop(found, None))
        try:
            return await asyncio.shield(task)
        except FailedPrecondition:
            if reference.version or self.find(reference) == found:
                raise
        return await self.load(reference)  # the version before it

    async def _load(self, reference: Reference) -> Served:
        folder = self._shelf.versions[reference.name][reference.version]
        work = partial(load, folder, max_batch=self._config.max_rows)
        try:
            model: Model = await asyncio.to_thread(work)
        except BadPolicy as error:
            self._faults[reference] = str(error)
            self._out_of_reach.discard(reference)
            if isinstance(error, OutOfReach):
                self._out_of_reach.add(reference)
            if self._known_faults.get(reference) != str(error):
                self._known_faults[reference] = str(error)
                log.warning("inference.unusable", policy=str(reference), reason=str(error))
                await self._told("policy.failed", reference, reason=str(error))
            raise FailedPrecondition(
                f"policy {str(reference)!r} cannot be served: {error}",
                reason="POLICY_UNUSABLE",
                facts={"policy": str(reference)},
            ) from None
        self._faults.pop(reference, None)
        self._out_of_reach.discard(reference)
        self._known_faults.pop(reference, None)
        self._let_go.discard(reference)
        served = Served(
            reference,
            model,
            self._executor,
            capacity=self._config.max_agents,
            max_rows=self._config.max_rows,
            loaded_at_us=self._clock(),
            observe=self._observe(reference) if self._observe else None,
        )
        self._served[reference] = served
        log.info("inference.loaded", policy=str(reference), best_batch=model.best_batch)
        await self._told(
            "policy.loaded",
            reference,
            model_sha256=model.manifest.model_sha256,
            best_batch=model.best_batch,
        )
        return served

    async def default(self) -> Served:
        """The policy of whoever names none.

        Raises:
            As `load`.
        """
        return await self.load(self._default)

    # Agents.

    async def reset(
        self, owner: Owner, agent_id: str, policy: str = "", seed: int | None = None
    ) -> Agent:
        """Begin a sequence, in place of the one the agent has.

        Without a policy it is that of the sequence it has, in its newest version.

        Raises:
            InvalidArgument: the policy's name is none.
            NotFound, FailedPrecondition: as `load`.
            ResourceExhausted: there is no room, AGENTS_FULL, or the owner has too many.
        """
        before = self._agents.get((owner.name, agent_id))
        try:
            wanted = (
                Reference.parse(policy)
                if policy
                else Reference(before.served.reference.name)
                if before
                else self._default
            )
        except BadReference as error:
            raise InvalidArgument(str(error), fields={"policy": str(error)}) from None
        served = await self.load(wanted)
        # Looked up again: others ran meanwhile.
        if (before := self._agents.get((owner.name, agent_id))) is not None:
            self._end(before)
        agent = self._begin(owner, agent_id, served, seed)
        self._agents[owner.name, agent_id] = agent
        return agent

    async def begin_nameless(
        self, owner: Owner, policy: str = "", seed: int | None = None
    ) -> Agent:
        """A sequence that lasts as long as whoever began it says; end it with `end`.

        Raises:
            As `reset`.
        """
        try:
            wanted = Reference.parse(policy) if policy else self._default
        except BadReference as error:
            raise InvalidArgument(str(error), fields={"policy": str(error)}) from None
        agent = self._begin(owner, "", await self.load(wanted), seed)
        self._nameless.add(agent)
        return agent

    def agent_at_hand(self, owner: Owner, agent_id: str) -> Agent | None:
        """The agent of an owner's, if it was begun."""
        return self._agents.get((owner.name, agent_id))

    def agent(self, owner: Owner, agent_id: str) -> Agent:
        """The agent of an owner's.

        Raises:
            FailedPrecondition: AGENT_NOT_INITIALIZED.
        """
        found = self._agents.get((owner.name, agent_id))
        if found is None:
            raise FailedPrecondition(
                f"Agent '{agent_id}' not initialized. Call /reset first.",
                reason="AGENT_NOT_INITIALIZED",
                facts={"agent_id": agent_id},
            )
        return found

    async def agent_or_default(self, owner: Owner, agent_id: str) -> Agent:
        """As `agent`; the one called "default" is begun where it is not there.

        Raises:
            As `agent` and `reset`.
        """
        if agent_id == DEFAULT_AGENT and (owner.name, agent_id) not in self._agents:
            await self.default()
            if (owner.name, agent_id) not in self._agents:  # nobody was faster meanwhile
                return await self.reset(owner, agent_id)
        return self.agent(owner, agent_id)

    def agents(self, owner: Owner | None, policy: Reference | None) -> list[Agent]:
        """Those of an owner, or of everybody, that have a policy, or any.

        Raises:
            NotFound: there is no such policy.
        """
        if policy is not None:
            self.find(policy)
        return [
            each
            for each in (*self._agents.values(), *self._nameless)
            if (owner is None or each.owner.name == owner.name)
            and (policy is None or policy.covers(each.served.reference))
        ]

    def end(self, agent: Agent) -> None:
        """End a sequence; twice does no harm."""
        if self._agents.get((agent.owner.name, agent.agent_id)) is agent:
            del self._agents[agent.owner.name, agent.agent_id]
            self._end(agent)
        elif agent in self._nameless:
            self._nameless.remove(agent)
            self._end(agent)

    def end_idle(self) -> None:
        """End what made no step for too long."""
        before_us = self._clock() - round(self._config.idle_s * 1e6)
        for agent in list(self._agents.values()):
            if agent.last_used_us < before_us and not agent.under_way:
                self.end(agent)

    def _begin(self, owner: Owner, agent_id: str, served: Served, seed: int | None) -> Agent:
        most = self._config.max_agents_per_owner
        if most and self._owned[owner.name] >= most:
            raise ResourceExhausted(
                f"you have {most} agents, and may have no more; end one, or wait until one was "
                f"idle for {self._config.idle_s:g} s",
                reason="AGENTS_FULL",
                facts={"max_agents_per_owner": str(most)},
            )
        # Of a negative one the bits are taken: a generator begins with none below 0.
        seed = secrets.randbits(64) if seed is None else seed % 2**64
        lease = served.begin(seed)
        if lease is None and self._config.when_full == "evict" and self._evict(served):
            lease = served.begin(seed)
        if lease is None:
            raise ResourceExhausted(
                f"policy {str(served.reference)!r} has {served.arena.capacity} agents, which is "
                "all there is room for; end some, or try again later",
                reason="AGENTS_FULL",
                facts={"max_agents": str(served.arena.capacity)},
                retry_after_s=1.0,
            )
        self._owned[owner.name] += 1
        return Agent(owner, agent_id, served, lease, self._clock())

    def _evict(self, served: Served) -> bool:
        """End the agent of a policy that made no step for the longest."""
        idle = [
            each for each in self._agents.values() if each.served is served and not each.under_way
        ]
        if not idle:
            return False
        self.end(min(idle, key=lambda each: each.last_used_us))
        return True

    def _end(self, agent: Agent) -> None:
        agent.end()
        name = agent.owner.name
        self._owned[name] -= 1
        if not self._owned[name]:
            del self._owned[name]

    # Steps.

    def charges(self, owner: Owner) -> bool:
        """Whether an owner pays for steps."""
        return self._meter is not None and self._meter.charges(owner)

    async def charge(self, owner: Owner, served: Served, steps: int) -> None:
        """Let an owner pay for steps that are to be made, if their steps cost anything.

        Raises:
            ResourceExhausted: no money is left, BUDGET_EXCEEDED, or a limit leaves none.
            FailedPrecondition: AGENT_STOPPED, the owner is to stop.
        """
        if self._meter is not None and self._meter.charges(owner):
            await self._meter.charge(owner, served.reference, steps)

    def begin_one(
        self, agent: Agent, observation: Sequence[float], *, deterministic: bool
    ) -> asyncio.Future[Step]:
        """Begin a step that is paid for; whoever begins it calls `agent.made_step` in the end.

        `observation` is of finite numbers.

        Raises:
            ResourceExhausted: too many steps wait already, QUEUE_FULL.
            Unavailable: the agent has come to its end meanwhile, AGENT_ENDED.
        """
        served = agent.served
        self._admit(served, (agent,), 1)
        agent.last_used_us = self._clock()
        agent.under_way += 1
        return served.runner.submit_one(observation, agent.lease, deterministic=deterministic)

    def begin(
        self, agents: Sequence[Agent], lease: Lease, observations: Floats, *, deterministic: bool
    ) -> asyncio.Future[Results]:
        """As `begin_one`, a step of each of some agents of one version; no agent twice.

        `lease` is that of all of them; `observations` has a row of finite numbers for each.
        """
        served = agents[0].served
        self._admit(served, agents, len(agents))
        now_us = self._clock()
        for agent in agents:
            agent.under_way += 1
            agent.last_used_us = now_us
        return served.runner.submit(observations, lease, deterministic=deterministic)

    async def step_one(
        self, agent: Agent, observation: Sequence[float], *, deterministic: bool
    ) -> Step:
        """Let an agent make a step, and pay for it.

        Raises:
            ResourceExhausted, FailedPrecondition, Unavailable: as `charge` and `begin_one`.
        """
        if self.charges(agent.owner):
            await self.charge(agent.owner, agent.served, 1)
        step = self.begin_one(agent, observation, deterministic=deterministic)
        try:
            return await step
        finally:
            agent.made_step()

    async def step(
        self, agents: Sequence[Agent], lease: Lease, observations: Floats, *, deterministic: bool
    ) -> Results:
        """Let agents make a step each, and pay for it.

        Raises:
            ResourceExhausted, FailedPrecondition, Unavailable: as `charge` and `begin`.
        """
        await self.charge(agents[0].owner, agents[0].served, len(agents))
        results = self.begin(agents, lease, observations, deterministic=deterministic)
        try:
            return await results
        finally:
            for agent in agents:
                agent.made_step()

    async def step_fresh(
        self, owner: Owner, served: Served, observations: Floats, *, deterministic: bool
    ) -> Results:
        """Make steps from a fresh state, of which nothing is kept.

        Raises:
            ResourceExhausted, FailedPrecondition: as `charge` and `begin`.
        """
        await self.charge(owner, served, len(observations))
        self._admit(served, (), len(observations))
        lease = served.arena.nobody(len(observations))
        return await served.runner.submit(observations, lease, deterministic=deterministic)

    def _admit(self, served: Served, agents: Sequence[Agent], count: int) -> None:
        if served.runner.waiting_rows + count > self._config.max_waiting_rows:
            raise ResourceExhausted(
                f"{self._config.max_waiting_rows} steps wait for policy "
                f"{str(served.reference)!r}; send no more before some are answered",
                reason="QUEUE_FULL",
                retry_after_s=0.1,
            )
        if any(agent.has_ended for agent in agents):
            raise Unavailable("an agent has come to its end; reset it", reason="AGENT_ENDED")
