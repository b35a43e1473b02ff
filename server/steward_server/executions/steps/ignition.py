"""A client of an Ignition gateway, 8.3 or newer: what can be asked of it, and what it answers.

Its API is below `/data/api/v1`; `/StatusPing` answers anybody, even while the gateway starts.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from steward_server.executions.steps.ignition_answers import Answer, NotSignedIn, Unavailable
from steward_server.executions.steps.ignition_link import IgnitionConfig, Link, SignIn, linked
from steward_server.executions.work import StepFailed

MAX_TEXT = 1_000
"""Characters of a text that are taken over from a gateway."""

_API = "/data/api/v1"
_ALL = {"limit": "-1"}
_THREADS = ("running", "waiting", "timedWaiting", "blocked")

RUNNING = "running"
PENDING = "pending"
"""It is installed, and runs after a restart of the gateway."""
DISABLED = "disabled"
FAULTED = "faulted"
QUARANTINED = "quarantined"
"""The gateway keeps it from running."""

_MODULE_STATES = {"active": RUNNING, "inactive": PENDING, "failed": FAULTED}
"""What some of a gateway's states of modules are called here."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module that is installed.

    Attributes:
        state: one of the constants here, or what the gateway calls it.
        reason: why it is quarantined; else empty.
    """

    id: str
    name: str
    version: str
    state: str
    description: str
    license_required: bool
    reason: str

    def is_called(self, name: str) -> bool:
        """Whether this is its id or its name."""
        return name.casefold() in (self.id.casefold(), self.name.casefold())


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    title: str
    enabled: bool
    description: str
    parent: str
    version: str


@dataclass(frozen=True, slots=True)
class Info:
    """What a gateway says of itself."""

    name: str
    version: str
    platform_version: str
    edition: str
    license_key: str
    uptime_seconds: float


@dataclass(frozen=True, slots=True)
class Health:
    """How a gateway is; numbers are None where it does not tell them."""

    healthy: bool
    uptime_seconds: float | None = None
    thread_count: int | None = None
    memory_used_mb: float | None = None
    memory_max_mb: float | None = None


class Gateway:
    """One gateway, as one run sees it."""

    def __init__(self, link: Link, config: IgnitionConfig) -> None:
        self._link = link
        self._config = config
        self._restarted_at_s: float | None = None
        """When it was told to restart, as long as it has not been seen to."""
        self._installed_at_s: dict[str, float] = {}

    @property
    def address(self) -> str:
        """Its URL, as it is told to people."""
        return self._link.address

    async def sign_in(self, who: SignIn) -> None:
        """Sign in, instead of whoever was.

        Raises:
            StepFailed: the gateway does not let them in.
        """
        await self._link.sign_in(who)

    async def renew_session(self) -> None:
        """Sign in again as whoever did last, if their session has ended, as with a restart.

        Raises:
            StepFailed: the gateway does not let them in any more, or nobody had signed in.
        """
        try:
            await self._link.check_session()
        except NotSignedIn:
            await self._link.sign_in_again()

    async def sign_out(self) -> None:
        """End the session; there need be none.

        Raises:
            StepFailed: the gateway cannot be told.
        """
        await self._link.sign_out()

    async def state(self) -> str:
        """What it is doing, in its words: RUNNING, STARTING or another.

        Raises:
            StepFailed: there is no gateway, or it is not set up.
        """
        answer = await self._link.ask("/StatusPing")
        told = answer.json()
        state = _word(told, "state")
        if not state:
            raise answer.odd("the state of a gateway")
        if _text(told, "details") == "COMMISSIONING":
            raise StepFailed(
                f"the gateway at {self.address} is not set up yet; open it in a browser and finish "
                "that",
                **answer.context,
            )
        return state

    async def info(self) -> Info:
        """What it says of itself."""
        answer = await self._link.call("GET", f"{_API}/gateway-info")
        told = answer.json()
        whole = _text(told, "ignitionVersion")
        if not whole:
            raise answer.odd("what a gateway says of itself")
        licence = told.get("license")
        return Info(
            name=_text(told, "name"),
            version=whole.split(" ", 1)[0],
            platform_version=whole,
            edition=_text(told, "edition"),
            license_key=_text(licence, "key") or _text(licence, "mode"),
            uptime_seconds=await self._uptime_s(),
        )

    async def health(self) -> Health:
        """How it is; while it starts it does not tell more than that."""
        state = await self.state()
        try:
            return Health(
                state == "RUNNING",
                await self._uptime_s(),
                sum(await self._numbers("/systemPerformance/threads", _THREADS)),
                *await self._memory_mb(),
            )
        except Unavailable:
            if state == "RUNNING":
                raise
            return Health(healthy=False)

    async def _uptime_s(self) -> float:
        (uptime_ms,) = await self._numbers("/overview", ("uptime",))
        return uptime_ms / 1_000

    async def _memory_mb(self) -> tuple[float, float]:
        path = "/systemPerformance/currentGauges"
        used, most = await self._numbers(path, ("heapMemory", "maxMemory"))
        return round(used / 1e6, 3), round(most / 1e6, 3)

    async def _numbers(self, path: str, keys: Iterable[str]) -> list[int]:
        """Whole numbers that it tells of itself."""
        answer = await self._link.call("GET", f"{_API}{path}")
        told = answer.json()
        found = [told.get(key) if isinstance(told, dict) else None for key in keys]
        numbers = [round(each) for each in found if _is_number(each)]
        if len(numbers) < len(found):
            raise answer.odd("numbers of a gateway")
        return numbers

    async def modules(self) -> list[Module]:
        """All that are installed; those that the gateway keeps from running last."""
        healthy = [_module(each) for each in await self._items(f"{_API}/modules/healthy")]
        kept = [
            _module(each, is_quarantined=True)
            for each in await self._items(f"{_API}/modules/quarantined")
        ]
        return [*healthy, *kept]

    async def upload(self, file: Path) -> tuple[str, list[str]]:
        """Send a module; gives its id, and what of it nobody has accepted yet.

        It is installed only by `install`.
        """
        path = f"{_API}/modules/upload"
        with await asyncio.to_thread(file.open, "rb") as content:
            answer = await self._link.call(
                "POST", path, query={"fileName": file.name}, content=content
            )
        told = answer.json()
        module_id = _text(told, "moduleId")
        if not module_id:
            raise answer.odd("the id of a module")
        # One without a certificate has to be accepted as well: what counts is what was accepted.
        accepted = {"certificate": "certAccepted", "eula": "licenseAccepted"}
        return module_id, [what for what, key in accepted.items() if told.get(key) is not True]

    async def accept(self, module_id: str, what: str) -> None:
        """Accept a module's `certificate`, or its `eula`."""
        path = f"{_API}/modules/{what}"
        # 409: it was accepted before.
        await self._link.call("POST", path, query={"moduleId": module_id}, statuses=(409,))

    async def install(self, module_id: str) -> None:
        """Have a module installed that was uploaded."""
        path = f"{_API}/modules/install"
        answer = await self._link.call("POST", path, query={"moduleId": module_id})
        _check_done(answer, f"install {module_id!r}")
        self._installed_at_s[module_id] = _now_s()

    def has_settled(self, module: Module) -> bool:
        """Whether what is told of a module can be about what was installed last.

        A gateway shows the old one for a moment after it has taken a new one.
        """
        installed_at_s = self._installed_at_s.get(module.id, -math.inf)
        return _now_s() - installed_at_s >= self._config.settle_s

    async def projects(self) -> list[Project]:
        """All it has."""
        return [_project(each) for each in await self._items(f"{_API}/projects/list")]

    async def project(self, name: str) -> Project | None:
        """One; None if there is none of this name."""
        path = f"{_API}/projects/find/{quote(name, safe='')}"
        answer = await self._link.call("GET", path, statuses=(404,))
        if answer.status == 404:
            return None
        told = answer.json()
        if _text(told, "name") != name:
            raise answer.odd("that project")
        return _project(told)

    async def restart(self) -> None:
        """Have it restart; it goes on for some seconds, then is away for up to minutes."""
        path = f"{_API}/restart-tasks/restart"
        answer = await self._link.call("POST", path, query={"confirm": "true"})
        _check_done(answer, "restart")
        self._restarted_at_s = _now_s()

    async def what_is_missing(self) -> str:
        """What keeps it from being ready; empty if it is, and whoever was signed in is again.

        Raises:
            StepFailed: it will not be ready by itself.
        """
        try:
            state = await self.state()
            if state != "RUNNING":
                self._went_away()
                return f"it is {state}"
            if self._link.is_signed_in:
                await self.renew_session()
        except Unavailable as error:
            self._went_away()
            return str(error)
        if self._may_still_go_away():
            return "it has not gone away yet"
        self._restarted_at_s = None
        return ""

    def _went_away(self) -> None:
        self._restarted_at_s = None
        self._installed_at_s.clear()

    def _may_still_go_away(self) -> bool:
        told_at_s = self._restarted_at_s
        return told_at_s is not None and _now_s() - told_at_s < self._config.settle_s

    async def _items(self, path: str) -> list[dict[str, Any]]:
        answer = await self._link.call("GET", path, query=_ALL)
        told = answer.json()
        items = told.get("items") if isinstance(told, dict) else told
        if not isinstance(items, list) or not all(_text(each, "name") for each in items):
            raise answer.odd("a list of things with names")
        return items


@asynccontextmanager
async def opened(
    address: str, config: IgnitionConfig, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Gateway]:
    """A client of a gateway, for as long as the block lasts; nothing is asked yet.

    Raises:
        StepFailed: the address is none.
    """
    async with linked(address, config, trust) as link:
        yield Gateway(link, config)


def _check_done(answer: Answer, what: str) -> None:
    """Refuse an answer that does not say that something was done.

    Raises:
        StepFailed: it is such a one.
    """
    told = answer.json()
    done = told.get("success") if isinstance(told, dict) else told
    if done is False:
        raise StepFailed(f"the gateway does not {what}{answer.said()}", **answer.context)
    if done is not True:
        raise answer.odd("a word of whether it was done")


def _module(told: Mapping[str, Any], *, is_quarantined: bool = False) -> Module:
    called = _word(told, "state").lower() or "unknown"
    state = _MODULE_STATES.get(called, called)
    if is_quarantined:
        state = QUARANTINED
    elif told.get("shouldUpgrade") is True:
        state = PENDING  # what runs is the version before
    elif state == PENDING and _text(told, "onStartup").lower() == "disabled":
        state = DISABLED
    return Module(
        id=_text(told, "id"),
        name=_text(told, "name"),
        version=_text(told, "version"),
        state=state,
        description=_text(told, "description"),
        license_required=_text(told, "licenseState").upper() not in ("", "FREE"),
        reason=_text(told, "reason"),
    )


def _project(told: Mapping[str, Any]) -> Project:
    name = _text(told, "name")
    return Project(
        name=name,
        title=_text(told, "title") or name,
        enabled=told.get("enabled") is True,
        description=_text(told, "description"),
        parent=_text(told, "parent"),
        version=_text(told, "version"),
    )


def _text(told: Any, key: str) -> str:
    """A text of an object of JSON; empty if it is not there, or is none."""
    found = told.get(key) if isinstance(told, Mapping) else None
    return found[:MAX_TEXT] if isinstance(found, str) else ""


def _word(told: Any, key: str) -> str:
    """The same, if it is a single word."""
    found = _text(told, key)
    return found if found.isidentifier() and len(found) <= 50 else ""


def _is_number(told: Any) -> TypeGuard[float]:
    return isinstance(told, int | float) and not isinstance(told, bool) and math.isfinite(told)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
