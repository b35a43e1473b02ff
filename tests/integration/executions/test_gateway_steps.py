"""The steps on an Ignition gateway, against a stand-in that is good, and bad in every way."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from steward_server.config import BadSetting
from steward_server.credential import Credential
from steward_server.executions.steps.gateway import work
from steward_server.executions.steps.ignition_link import MAX_ANSWER_BYTES, IgnitionConfig
from steward_server.executions.work import StepFailed, Work
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.forms import misfit
from tests.certificates import Authority
from tests.ignition_gateway import API, Fault, Gateway, Module, module_file
from tests.jobs import TestSession

PASSWORD = "a-secret-of-admin"
API_KEY = "a-key-of-steward"
ADMIN = Credential("my-gateway", "admin", PASSWORD)
QUICK = IgnitionConfig(request_timeout_s=5, upload_timeout_s=5, poll_s=0.01, settle_s=0.3)
PATIENT = IgnitionConfig(poll_s=0.01, settle_s=60)
HASTY = IgnitionConfig(request_timeout_s=0.1, upload_timeout_s=0.1)
PUMP = "com.example.pump"

READS = (
    "ping",
    "get_info",
    "get_health",
    "list_modules",
    "list_projects",
    "get_project",
)
PATHS = {
    "ping": "/StatusPing",
    "get_info": f"{API}/gateway-info",
    "get_health": f"{API}/systemPerformance/threads",
    "list_modules": f"{API}/modules/healthy",
    "list_projects": f"{API}/projects/list",
    "get_project": f"{API}/projects/find/base",
    "login": "/data/app/login",
    "restart": f"{API}/restart-tasks/restart",
    "upload_module": f"{API}/modules/upload",
}
GIVEN = {"get_project": {"project_name": "base"}, "upload_module": {"file": "pump.modl"}}


class Run:
    """A run of which steps are done one by one."""

    def __init__(self, session: TestSession, config: IgnitionConfig = QUICK) -> None:
        self.session = session
        self.work: dict[str, Work] = {**work(config)}

    async def do(self, name: str, **parameters: Any) -> Any:
        """Do a step that is to go well; its outputs are as the catalogue promises."""
        step_type = CATALOGUE[f"gateway.{name}"]
        outputs = await self.session.do(self.work, step_type.name, **parameters)
        assert [*outputs] == [each.name for each in step_type.outputs]
        for each in step_type.outputs:
            assert not [*misfit(each, outputs[each.name], (each.name,))]
        json.dumps(outputs, allow_nan=False)
        return outputs

    async def fail(self, name: str, **parameters: Any) -> str:
        """Do a step that is to fail; gives its message, in which there are no secrets."""
        with pytest.raises(StepFailed) as error:
            await self.session.do(self.work, f"gateway.{name}", **parameters)
        told = f"{error.value} {error.value.context}"
        for secret in (PASSWORD, API_KEY, "token=", "a-secret"):
            assert secret not in told
        assert len(told) < 2_000
        return str(error.value)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway().served() as served:
        yield served


@pytest.fixture
async def run(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Run]:
    """Signed in already."""
    (tmp_path / "pump.modl").write_bytes(module_file())
    session = TestSession(tmp_path, gateway_url=gateway.url, credential=ADMIN)
    run = Run(session)
    await run.do("login")
    yield run
    await session.aclose()


@pytest.fixture
async def stranger(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Run]:
    """Not signed in."""
    session = TestSession(tmp_path, gateway_url=gateway.url, credential=ADMIN)
    yield Run(session)
    await session.aclose()


def test_every_step_on_a_gateway_has_its_work() -> None:
    assert sorted(work(QUICK)) == sorted(name for name in CATALOGUE if name.startswith("gateway."))


def _client(run: Run) -> Any:
    """The one that the steps of the run share."""
    (found,) = run.session.opened.values()
    return found


async def test_a_person_signs_in_and_out(gateway: Gateway, run: Run) -> None:
    assert (await run.do("list_projects"))["count"] == 2
    assert await run.do("logout") == {"status": "logged_out"}
    assert gateway.requests[-1] == "GET /data/app/logout"
    assert "nobody is signed in" in await run.fail("list_projects")
    assert await run.do("login", username="admin", password=PASSWORD) == {
        "status": "logged_in",
        "username": "admin",
    }
    await run.do("logout")
    assert await run.do("login", credential=ADMIN)
    assert (await run.do("list_projects"))["count"] == 2


async def test_signing_out_ends_the_session_at_the_gateway_too(gateway: Gateway, run: Run) -> None:
    await run.do("logout")
    assert not gateway._sessions
    assert await run.do("logout") == {"status": "logged_out"}
    assert gateway.count("/data/app/logout") == 1


async def test_who_cannot_be_signed_out_is_forgotten_all_the_same(
    gateway: Gateway, run: Run
) -> None:
    gateway.faults["/data/app/logout"] = Fault.DROP
    assert "closed the connection" in await run.fail("logout")
    assert "nobody is signed in" in await run.fail("list_modules")


async def test_an_api_key_signs_in_without_a_session(gateway: Gateway, run: Run) -> None:
    await run.do("login", username="steward", password=API_KEY, method="api_key")
    assert not gateway.failed_sign_ins
    gateway.end_sessions()
    assert (await run.do("list_modules"))["count"] == 2
    assert await run.do("restart") == {"status": "restarted"}
    await run.do("wait_for_ready")
    await run.do("logout")
    assert gateway.count("/data/app/logout") == 0
    message = await run.fail("login", username="steward", password="wrong", method="api_key")
    assert "does not know the API key 'steward'" in message
    message = await run.fail("login", username="a\nb", password="x", method="api_key")
    assert "has characters that no key has" in message


async def test_a_wrong_password_is_told_as_such(gateway: Gateway, run: Run) -> None:
    message = await run.fail("login", username="admin", password="not-a-secret")
    assert message == (
        f"{gateway.url} refuses 'admin': the name or the password is wrong, or they are locked out"
    )
    assert gateway.failed_sign_ins == 1
    assert "nobody is signed in" in await run.fail("list_modules")


@pytest.mark.parametrize(
    ("wants", "told"),
    [
        ("passwordExpired", "wants a new password of 'admin'"),
        ("mfa", "wants more than a name and a password of 'admin'"),
    ],
)
async def test_what_a_gateway_wants_beside_a_password_is_told(
    gateway: Gateway, run: Run, wants: str, told: str
) -> None:
    gateway.wants = wants
    assert told in await run.fail("login")


async def test_people_who_are_signed_in_elsewhere_need_an_api_key(
    gateway: Gateway, run: Run
) -> None:
    gateway.faults["/data/app/login"] = Fault.ELSEWHERE
    message = await run.fail("login")
    assert "has people signed in by http://elsewhere.invalid" in message
    assert "use an API key" in message
    gateway.faults["/data/app/login"] = Fault.HTTPS
    message = await run.fail("login")
    assert "leads to https://127.0.0.1:8043/data/app/login, which is not followed" in message
    gateway.faults["/data/app/login"] = Fault.LOOP
    assert "redirects without end" in await run.fail("login")
    gateway.faults["/data/app/login"] = Fault.NOT_SET_UP
    assert "is not set up yet" in await run.fail("login")


@pytest.mark.parametrize(
    "path",
    [
        "/idp/default/oidc/auth",
        "/idp/default/authn/next-challenge",
        "/idp/default/authn/submit-challenge/basic",
        "/data/app/session",
    ],
)
@pytest.mark.parametrize("fault", [Fault.HTML, Fault.GARBAGE, Fault.LYING, Fault.DROP])
async def test_whatever_goes_wrong_in_signing_in_is_told(
    gateway: Gateway, run: Run, path: str, fault: Fault
) -> None:
    gateway.faults[path] = fault
    assert gateway.url in await run.fail("login")


async def test_a_run_without_a_gateway_or_a_credential_is_told_how_to_name_one(
    gateway: Gateway, tmp_path: Path
) -> None:
    session = TestSession(tmp_path)
    assert "give it a gateway_url" in await Run(session).fail("ping")
    session.gateway_url = gateway.url
    assert "has no credential to sign in with" in await Run(session).fail("login")
    await session.aclose()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("gateway:8088", "is none"),
        ("ftp://gateway", "is none"),
        ("http://", "is none"),
        ("http://gateway:port", "is none"),
        ("http://admin:a-secret@gateway:8088", "has a user or a password in it"),
    ],
)
async def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str, told: str) -> None:
    assert told in await Run(TestSession(tmp_path, gateway_url=address)).fail("ping")


async def test_a_path_behind_the_address_stays(gateway: Gateway, tmp_path: Path) -> None:
    session = TestSession(tmp_path, gateway_url=f"{gateway.url}/plant/?x=1#y")
    assert "GET /plant/StatusPing" not in gateway.requests
    await Run(session).fail("ping")
    assert gateway.requests == ["GET /plant/StatusPing"]
    await session.aclose()


async def test_a_ping_says_how_long_it_took(run: Run) -> None:
    pinged = await run.do("ping")
    assert (pinged["status"], pinged["response"]) == ("ok", True)
    assert 0 <= pinged["duration_ms"] < 5_000


async def test_a_ping_of_a_dead_host_fails(tmp_path: Path) -> None:
    async with Gateway().served() as gateway:
        pass
    session = TestSession(tmp_path, gateway_url=gateway.url)
    assert await Run(session).fail("ping") == (
        f"nothing answers at {gateway.url}; is the gateway running, and its URL right?"
    )
    await session.aclose()


async def test_a_host_that_nobody_knows_is_told(tmp_path: Path) -> None:
    session = TestSession(tmp_path, gateway_url="http://gateway.invalid:8088")
    assert "no host 'gateway.invalid' is known" in await Run(session).fail("ping")
    await session.aclose()


async def test_what_a_gateway_says_of_itself_is_read(run: Run) -> None:
    info = (await run.do("get_info"))["info"]
    assert 0 < info.pop("uptime_seconds") < 60
    assert info == {
        "name": "Stand-in",
        "version": "8.3.6",
        "platform_version": "8.3.6 (b2026042713)",
        "edition": "standard",
        "license_key": "Trial",
    }


async def test_how_a_gateway_is_is_read(run: Run) -> None:
    health = (await run.do("get_health", must_be_healthy=True))["health"]
    assert 0 < health.pop("uptime_seconds") < 60
    assert health == {
        "healthy": True,
        "thread_count": 122,
        "memory_used_mb": 240.0,
        "memory_max_mb": 1073.742,
    }


async def test_a_gateway_that_starts_is_not_healthy(gateway: Gateway, run: Run) -> None:
    gateway.grace_s, gateway.restart_s = 0, 60
    await run.do("restart")
    assert (await run.do("get_health"))["health"] == {
        "healthy": False,
        "uptime_seconds": None,
        "thread_count": None,
        "memory_used_mb": None,
        "memory_max_mb": None,
    }
    assert "says that it is not healthy" in await run.fail("get_health", must_be_healthy=True)
    assert "was answered with 503: the gateway starts" in await run.fail("list_modules")


async def test_all_modules_are_listed_also_those_that_do_not_run(
    gateway: Gateway, run: Run
) -> None:
    for name, module in {
        "off": Module("off", "Off", "1", state="INACTIVE", on_startup="disabled"),
        "old": Module("old", "Old", "1", next_version="2"),
        "bad": Module("bad", "Bad", "1", reason="unsigned"),
        "new": Module("new", "New", "1", state="LOADING"),
    }.items():
        gateway.modules[name] = module
    listed = await run.do("list_modules")
    assert listed["count"] == 6
    assert listed["modules"][0] == {
        "id": "com.inductiveautomation.perspective",
        "name": "Perspective",
        "version": "8.3.6 (b1)",
        "state": "running",
        "description": "Builds sessions for browsers.",
        "license_required": True,
    }
    states = {each["name"]: each["state"] for each in listed["modules"][2:]}
    assert states == {"Off": "disabled", "Old": "pending", "New": "loading", "Bad": "quarantined"}


async def test_projects_are_read(run: Run) -> None:
    listed = await run.do("list_projects")
    assert listed["count"] == 2
    assert listed["projects"][0] == {
        "name": "base",
        "title": "Base",
        "enabled": True,
        "description": "",
        "parent": "",
        "version": "",
    }
    found = (await run.do("get_project", project_name="Line 1/A"))["project"]
    assert (found["title"], found["enabled"], found["parent"]) == ("Line 1", False, "base")


@pytest.mark.parametrize("name", ["bose", "../list", "..", "a?b#c", "base/", "%62ase"])
async def test_a_project_that_is_not_there_fails(run: Run, name: str) -> None:
    message = await run.fail("get_project", project_name=name)
    assert "has no project" in message or "something that is not that project" in message
    assert ("did you mean 'base'?" in message) == (name in ("bose", "base/", "%62ase"))


async def test_a_module_is_read_in_pieces_as_it_is_uploaded(
    gateway: Gateway, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = module_file(padding=3 << 20)
    (tmp_path / "large.modl").write_bytes(content)
    read: list[int] = []

    class Counted(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            read.append(len(piece))
            return piece

    monkeypatch.setattr(Path, "open", lambda file, mode: Counted(io.FileIO(file)))
    assert await run.do("upload_module", file="large.modl") == {"module_id": PUMP}
    assert gateway.uploads == [len(content)]
    assert sum(read) == len(content)
    assert max(read) <= 1 << 18


async def test_a_new_module_runs_after_a_restart(run: Run) -> None:
    await run.do("upload_module", file="pump.modl")
    message = await run.fail("wait_for_module_installation", module_name=PUMP)
    assert "runs after a restart of the gateway; put a gateway.restart step" in message
    await run.do("restart", wait_for_ready=True)
    waited = await run.do("wait_for_module_installation", module_name=PUMP)
    assert waited == {"status": "installed", "module_name": PUMP}


async def test_a_module_that_runs_without_a_restart_is_waited_for(
    gateway: Gateway, stranger: Run, tmp_path: Path
) -> None:
    run = Run(stranger.session, IgnitionConfig(poll_s=0.01, settle_s=2))
    await run.do("login")
    (tmp_path / "pump.modl").write_bytes(module_file())
    gateway.installs_live_s = 0.1
    await run.do("upload_module", file="pump.modl")
    assert await run.do("wait_for_module_installation", module_name="pump")
    assert ("info", "waiting: the module 'pump' is pending") in run.session.logged


async def test_a_module_that_replaces_another_runs_after_a_restart(
    gateway: Gateway, run: Run, tmp_path: Path
) -> None:
    gateway.modules[PUMP] = Module(PUMP, "Pump", "1.0.0")
    (tmp_path / "new.modl").write_bytes(module_file(version="2.0.0"))
    await run.do("upload_module", file="new.modl")
    assert "runs after a restart" in await run.fail(
        "wait_for_module_installation", module_name=PUMP
    )
    await run.do("restart", wait_for_ready=True)
    await run.do("wait_for_module_installation", module_name=PUMP)
    pump = (await run.do("list_modules"))["modules"][2]
    assert (pump["state"], pump["version"]) == ("running", "2.0.0")


async def test_the_module_that_ran_before_is_not_taken_for_the_new_one(
    gateway: Gateway, stranger: Run, tmp_path: Path
) -> None:
    run = Run(stranger.session, PATIENT)
    await run.do("login")
    gateway.modules[PUMP] = Module(PUMP, "Pump", "1.0.0")
    (tmp_path / "pump.modl").write_bytes(module_file())
    await run.do("upload_module", file="pump.modl")
    gateway.modules[PUMP].next_version = ""  # as it is for a moment after an installation
    message = await run.fail("wait_for_module_installation", module_name=PUMP, timeout=0.2)
    assert message.endswith("is running, maybe as it was before")


async def test_terms_are_accepted_only_if_the_step_says_so(gateway: Gateway, run: Run) -> None:
    gateway.accepts_terms = False
    message = await run.fail("upload_module", file="pump.modl")
    assert "nobody has accepted the certificate and the licence of 'com.example.pump'" in message
    assert PUMP not in gateway.modules
    await run.do("upload_module", file="pump.modl", accept_terms=True)
    assert gateway.modules[PUMP].reason == ""
    await run.do("upload_module", file="pump.modl")


async def test_terms_that_were_accepted_meanwhile_are_no_failure(
    gateway: Gateway, run: Run
) -> None:
    gateway.accepts_terms = False
    gateway.statuses |= {f"{API}/modules/certificate": 409, f"{API}/modules/eula": 409}
    assert await run.do("upload_module", file="pump.modl", accept_terms=True)


async def test_what_is_no_module_is_refused_in_the_gateway_s_words(
    gateway: Gateway, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    message = await run.fail("upload_module", file="notes.txt")
    assert "was refused (400: 'The file is not a valid module.')" in message
    assert "there is no file 'gone.modl'" in await run.fail("upload_module", file="gone.modl")


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Module("a", "A", "1", state="FAULTED"), "the module 'A' is faulted"),
        (Module("a", "A", "1", reason="<b>no\n" * 99), r"from running by the gateway ('<b>no\n"),
        (Module("a", "A", "1", state="INACTIVE", on_startup="disabled"), "'A' is disabled"),
    ],
)
async def test_a_module_that_will_not_run_by_itself_fails_at_once(
    gateway: Gateway, run: Run, module: Module, told: str
) -> None:
    gateway.modules["a"] = module
    assert told in await run.fail("wait_for_module_installation", module_name="A")


async def test_a_module_that_faults_as_it_starts_fails(
    gateway: Gateway, stranger: Run, tmp_path: Path
) -> None:
    run = Run(stranger.session, PATIENT)
    await run.do("login")
    gateway.installs_live_s = 0.05
    (tmp_path / "bad.modl").write_bytes(module_file(fails=True))
    await run.do("upload_module", file="bad.modl")
    assert "is faulted" in await run.fail("wait_for_module_installation", module_name=PUMP)


async def test_a_module_that_does_not_come_is_waited_for_as_long_as_the_step_says(
    run: Run,
) -> None:
    begun = time.monotonic()
    message = await run.fail("wait_for_module_installation", module_name="Perspectiv", timeout=0.1)
    assert 0.05 < time.monotonic() - begun < 30
    assert message == (
        "the module 'Perspectiv' does not run after 0.1 s: it has no module 'Perspectiv', but "
        "'Perspective'"
    )


async def test_a_gateway_that_restarts_meanwhile_does_not_end_the_wait_for_a_module(
    gateway: Gateway, run: Run
) -> None:
    await run.do("upload_module", file="pump.modl")
    await run.do("restart")
    assert await run.do("wait_for_module_installation", module_name=PUMP)
    assert gateway.restarts == 1


async def test_a_session_that_ends_while_a_module_is_looked_at_does_not_end_the_wait_for_it(
    gateway: Gateway, run: Run
) -> None:
    path = f"{API}/modules/healthy"
    gateway.statuses[path] = 401
    waiting = asyncio.create_task(run.do("wait_for_module_installation", module_name="Perspective"))
    await until(lambda: gateway.count(path) >= 2)
    del gateway.statuses[path]
    assert await waiting


async def test_a_module_that_waits_for_a_restart_has_time_to_start_after_it(
    gateway: Gateway, run: Run
) -> None:
    pump = gateway.modules[PUMP] = Module(PUMP, "Pump", "1", state="INACTIVE")
    waiting = asyncio.create_task(run.do("wait_for_module_installation", module_name=PUMP))
    path = f"{API}/modules/healthy"
    await until(lambda: gateway.count(path))
    gateway.statuses[path] = 503
    await asyncio.sleep(QUICK.settle_s + 0.02)
    del gateway.statuses[path]
    seen = gateway.count(path)
    await until(lambda: gateway.count(path) >= seen + 2)
    pump.state = "ACTIVE"
    assert await waiting


async def test_a_restart_is_waited_for_until_it_has_happened(gateway: Gateway, run: Run) -> None:
    assert await run.do("restart", wait_for_ready=True) == {"status": "restarted"}
    assert gateway.restarts == 1
    assert (await run.do("list_modules"))["count"] == 2  # signed in again


async def test_a_restart_too_short_to_be_seen_is_over_when_the_gateway_has_settled(
    gateway: Gateway, run: Run
) -> None:
    gateway.grace_s = gateway.restart_s = 0
    begun = time.monotonic()
    await run.do("restart", wait_for_ready=True)
    assert 0.3 <= time.monotonic() - begun < 30
    assert (await run.do("list_modules"))["count"] == 2  # signed in again


async def test_a_step_after_a_restart_waits_too(gateway: Gateway, run: Run) -> None:
    assert await run.do("restart") == {"status": "restarted"}
    assert gateway.restarts == 0
    assert await run.do("wait_for_ready") == {"status": "ready"}
    assert gateway.restarts == 1


async def test_a_gateway_that_runs_is_ready_at_once(gateway: Gateway, stranger: Run) -> None:
    assert await stranger.do("wait_for_ready") == {"status": "ready"}
    assert gateway.requests == ["GET /StatusPing"]


async def test_a_restart_that_is_refused_fails(gateway: Gateway, run: Run) -> None:
    for refusal in ("false", '{"success": false, "message": "Not now."}'):
        gateway.answers[f"{API}/restart-tasks/restart"] = refusal
        message = await run.fail("restart")
        assert message.startswith("the gateway does not restart")
    assert message.endswith(": 'Not now.'")
    gateway.statuses[f"{API}/restart-tasks/restart"] = 403
    assert "is not allowed to whoever is signed in" in await run.fail("restart")
    assert gateway.restarts == 0


async def test_a_gateway_that_does_not_come_back_is_waited_for_as_long_as_the_step_says(
    gateway: Gateway, run: Run
) -> None:
    gateway.restart_s = 60
    message = await run.fail("restart", wait_for_ready=True, timeout=2)
    assert message == f"the gateway at {gateway.url} is not ready after 2 s: it is STARTING"


async def test_a_gateway_that_hangs_does_not_outlast_the_wait(gateway: Gateway, run: Run) -> None:
    gateway.faults[""] = Fault.SLOW
    begun = time.monotonic()
    message = await run.fail("wait_for_ready", timeout=0.1)
    assert message.endswith("is not ready after 0.1 s: the gateway gives no answer")
    assert time.monotonic() - begun < QUICK.request_timeout_s


async def test_a_gateway_that_is_not_there_yet_is_waited_for(
    gateway: Gateway, stranger: Run
) -> None:
    gateway.faults["/StatusPing"] = Fault.DROP
    waiting = asyncio.create_task(stranger.do("wait_for_ready"))
    await until(lambda: len(gateway.requests) >= 3)
    del gateway.faults["/StatusPing"]
    assert await waiting == {"status": "ready"}


async def test_who_is_no_longer_let_in_after_a_restart_is_told_at_once(
    gateway: Gateway, run: Run
) -> None:
    await run.do("restart")
    gateway.users.clear()
    assert "refuses 'admin'" in await run.fail("wait_for_ready", timeout=60)
    assert gateway.failed_sign_ins == 1


async def test_pauses_do_not_count_as_waiting(
    gateway: Gateway, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.restart_s = 4

    async def paused(_: object, seconds: float) -> None:
        await asyncio.sleep(0.5)

    monkeypatch.setattr("tests.jobs.TestJob.sleep", paused)
    await run.do("restart", wait_for_ready=True, timeout=3)


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "0xa9fea9fe"])
async def test_no_gateway_is_where_clouds_tell_their_secrets(tmp_path: Path, host: str) -> None:
    session = TestSession(tmp_path, gateway_url=f"http://{host}/latest", credential=ADMIN)
    run = Run(session, HASTY)
    for name in ("ping", "login"):
        told = await run.fail(name)
        assert "is no gateway" in told
        assert "169.254.169.254 is closed to steps" in told or "a9fe is closed" in told
    await session.aclose()


@pytest.mark.parametrize("fault", [*Fault])
@pytest.mark.parametrize("name", READS)
async def test_whatever_a_gateway_does_a_step_that_reads_says_so(
    gateway: Gateway, run: Run, name: str, fault: Fault
) -> None:
    told = {
        Fault.SLOW: "gave no whole answer within 0.1 s",
        Fault.CUT: "closed the connection in the middle of GET",
        Fault.DROP: "closed the connection in the middle of GET",
        Fault.HTML: "was answered with a page instead of data",
        Fault.GARBAGE: "was answered with something that is not JSON",
        Fault.LYING: "was answered with something that is not",
        Fault.ENDLESS: "was answered with more than 4 MiB",
        Fault.NOT_HTTP: "does not speak HTTP",
        Fault.ELSEWHERE: "leads to http://elsewhere.invalid/data, which is not followed",
        Fault.HTTPS: f"leads to https://127.0.0.1:8043{PATHS[name]}, which is not followed",
        Fault.LOOP: f"leads to {gateway.url}{PATHS[name]}, which is not followed",
        Fault.NOT_SET_UP: "is not set up yet",
    }
    gateway.faults[PATHS[name]] = fault
    if fault is Fault.SLOW:
        _client(run)._link._config = HASTY
    assert told[fault] in await run.fail(name, **GIVEN.get(name, {}))


@pytest.mark.parametrize("name", ["login", "restart", "upload_module"])
@pytest.mark.parametrize("fault", [*Fault])
async def test_whatever_a_gateway_does_a_step_that_changes_something_says_so(
    gateway: Gateway, run: Run, name: str, fault: Fault
) -> None:
    gateway.faults[PATHS[name]] = fault
    if fault is Fault.SLOW:
        _client(run)._link._config = HASTY
    assert gateway.url in await run.fail(name, **GIVEN.get(name, {}))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "needs somebody who is signed in, and the session has ended"),
        (403, "is not allowed to whoever is signed in"),
        (404, "Ignition 8.3 or newer is needed"),
        (418, "was refused (418)"),
        (500, "failed inside the gateway (500)"),
        (502, "was answered with 502"),
        (503, "wait with gateway.wait_for_ready"),
    ],
)
@pytest.mark.parametrize("name", ["list_modules", "restart", "upload_module"])
async def test_what_a_status_means_is_told(
    gateway: Gateway, run: Run, name: str, status: int, told: str
) -> None:
    gateway.statuses[PATHS[name]] = status
    message = await run.fail(name, **GIVEN.get(name, {}))
    assert told in message
    assert f"{gateway.url}{PATHS[name]}" in message


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "7",
        '"RUNNING"',
        "[]",
        "[7]",
        "{}",
        '{"items": null}',
        '{"items": [null]}',
        '{"items": [{"name": 7}]}',
        '{"state": "<b>RUNNING</b>"}',
        '{"uptime": true, "heapMemory": 1e999, "running": "1"}',
        "[" * 100_000,
        "NaN",
        '{"moduleId": "", "success": "yes", "token": null, "csrfToken": {}}',
    ],
    ids=lambda text: text[:20],
)
async def test_no_answer_of_another_shape_is_believed(
    gateway: Gateway, run: Run, answer: str
) -> None:
    for name, path in PATHS.items():
        gateway.answers[path] = answer
        if answer != "[]" or "list" not in name:
            assert gateway.url in await run.fail(name, **GIVEN.get(name, {}))
        if name == "login":  # what was tried has ended the session
            del gateway.answers[path]
            await run.do("login")


async def test_a_session_that_ended_is_told(gateway: Gateway, run: Run) -> None:
    gateway.end_sessions()
    assert "the session has ended; sign in with gateway.login" in await run.fail("list_modules")


async def test_an_older_gateway_is_told_as_such(gateway: Gateway, run: Run) -> None:
    gateway.statuses["/data/app/login"] = 404
    assert "Ignition 8.3 or newer is needed" in await run.fail("login")


async def test_texts_of_a_gateway_are_cut(gateway: Gateway, run: Run) -> None:
    gateway.modules["long"] = Module("long", "n" * 5_000, "1", description="d" * 500_000)
    module = (await run.do("list_modules"))["modules"][2]
    assert (len(module["name"]), len(module["description"])) == (1_000, 1_000)
    gateway.modules["long"].description = "d" * MAX_ANSWER_BYTES
    assert "more than 4 MiB" in await run.fail("list_modules")


async def test_nobody_signed_in_means_that_nothing_is_sent(
    gateway: Gateway, stranger: Run, tmp_path: Path
) -> None:
    (tmp_path / "pump.modl").write_bytes(module_file())
    for name in (*READS[1:], "upload_module", "restart"):
        message = await stranger.fail(name, **GIVEN.get(name, {}))
        assert "put a gateway.login step before" in message
    assert {*gateway.requests} == {"GET /StatusPing"}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("list_modules", {}),
        ("login", {}),
        ("wait_for_module_installation", {"module_name": "x"}),
        ("wait_for_ready", {}),
        ("upload_module", {"file": "pump.modl"}),
    ],
)
async def test_a_step_that_is_cancelled_lets_go_at_once(
    gateway: Gateway, run: Run, name: str, parameters: dict[str, Any]
) -> None:
    gateway.faults[""] = Fault.SLOW
    gateway.requests.clear()
    doing = asyncio.create_task(run.session.do(run.work, f"gateway.{name}", **parameters))
    await until(lambda: gateway.requests)
    begun = time.monotonic()
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await until(lambda: not gateway.under_way)
    assert time.monotonic() - begun < 30  # it would hang for a minute


async def test_passwords_are_in_nothing_that_is_told(gateway: Gateway, run: Run) -> None:
    await run.do("restart", wait_for_ready=True)
    everything = repr((run.session.logged, gateway.requests, vars(run.session)))
    assert PASSWORD not in everything
    link = _client(run)._link
    assert PASSWORD not in repr(vars(link))


@pytest.mark.parametrize("status", [418, 500, 404])
async def test_a_gateway_that_says_a_password_back_is_not_quoted(
    gateway: Gateway, run: Run, status: int
) -> None:
    for path in ("/idp/default/authn/submit-challenge/basic", f"{API}/gateway-info"):
        gateway.statuses[path] = status
        gateway.answers[path] = json.dumps({"message": f"what is {PASSWORD} {API_KEY}?"})
    assert str(status) in await run.fail("login") or status == 404
    await run.fail("login", username="steward", password=API_KEY, method="api_key")


async def test_a_gateway_that_comes_back_bit_by_bit_does_not_end_the_wait_for_a_module(
    gateway: Gateway, run: Run
) -> None:
    gateway.end_sessions()
    gateway.statuses["/data/app/login"] = 503
    waiting = asyncio.create_task(run.do("wait_for_module_installation", module_name="Perspective"))
    await until(lambda: gateway.count("/data/app/login") >= 3)
    del gateway.statuses["/data/app/login"]
    assert await waiting


async def test_a_certificate_is_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("gateway")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    async with Gateway().served(certificate=context) as gateway:
        session = TestSession(tmp_path, gateway_url=gateway.url, credential=ADMIN)
        assert "is not trusted" in await Run(session).fail("login")
        assert gateway.requests == []
        await session.aclose()
        session = TestSession(tmp_path, gateway_url=gateway.url, credential=ADMIN)
        run = Run(session, IgnitionConfig(ca_file=authority.cert))
        await run.do("login")
        assert (await run.do("list_projects"))["count"] == 2
        await session.aclose()


def test_certificates_that_are_none_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot use the certificates in"):
        work(IgnitionConfig(ca_file=tmp_path / "gone.pem"))
    (tmp_path / "none.pem").write_text("hello")
    with pytest.raises(BadSetting):
        work(IgnitionConfig(ca_file=tmp_path / "none.pem"))


async def test_the_stand_in_runs_by_itself_too() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.ignition_gateway",
        "--port",
        "0",
        "--fault",
        "/system/gwinfo=html",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession() as http, http.get(f"{url}/StatusPing") as response:
            assert await response.json() == {"state": "RUNNING"}
            async with http.get(f"{url}/system/gwinfo") as page:
                assert page.content_type == "text/html"
    finally:
        process.terminate()
        await process.wait()
