"""The work of `gateway.*`: steps on an Ignition gateway.

All steps of a run on one gateway share a client, and with it who is signed in.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any, TypeAlias

from steward_server.config import BadSetting
from steward_server.credential import Credential
from steward_server.executions.steps.ignition import (
    DISABLED,
    FAULTED,
    PENDING,
    QUARANTINED,
    RUNNING,
    Gateway,
    Module,
    opened,
)
from steward_server.executions.steps.ignition_answers import NotSignedIn, Unavailable
from steward_server.executions.steps.ignition_link import IgnitionConfig, SignIn
from steward_server.executions.work import Job, StepFailed, Work

Outputs: TypeAlias = Mapping[str, Any]

_TERMS = {"certificate": "the certificate", "eula": "the licence"}


def work(config: IgnitionConfig) -> Mapping[str, Work]:
    """The work of each type of step.

    Raises:
        BadSetting: the certificates cannot be read.
    """
    steps = _Steps(config)
    return {
        "gateway.login": steps.login,
        "gateway.logout": steps.logout,
        "gateway.ping": steps.ping,
        "gateway.get_info": steps.get_info,
        "gateway.get_health": steps.get_health,
        "gateway.list_modules": steps.list_modules,
        "gateway.upload_module": steps.upload_module,
        "gateway.wait_for_module_installation": steps.wait_for_module_installation,
        "gateway.list_projects": steps.list_projects,
        "gateway.get_project": steps.get_project,
        "gateway.restart": steps.restart,
        "gateway.wait_for_ready": steps.wait_for_ready,
    }


class _Steps:
    def __init__(self, config: IgnitionConfig) -> None:
        self._config = config
        self._trust = _trust(config)

    async def login(self, job: Job) -> Outputs:
        who = _who(job)
        gateway = await self._gateway(job)
        await gateway.sign_in(who)
        return {"status": "logged_in", "username": who.username}

    async def logout(self, job: Job) -> Outputs:
        await (await self._gateway(job)).sign_out()
        return {"status": "logged_out"}

    async def ping(self, job: Job) -> Outputs:
        gateway = await self._gateway(job)
        begun_s = _now_s()
        await gateway.state()
        return {
            "status": "ok",
            "response": True,
            "duration_ms": round((_now_s() - begun_s) * 1_000),
        }

    async def get_info(self, job: Job) -> Outputs:
        return {"info": asdict(await (await self._gateway(job)).info())}

    async def get_health(self, job: Job) -> Outputs:
        gateway = await self._gateway(job)
        health = await gateway.health()
        if job.values["must_be_healthy"] and not health.healthy:
            raise StepFailed(
                f"the gateway at {gateway.address} says that it is not healthy; look at its status "
                "page, or wait with gateway.wait_for_ready",
                health=asdict(health),
            )
        return {"health": asdict(health)}

    async def list_modules(self, job: Job) -> Outputs:
        modules = [_shown(each) for each in await (await self._gateway(job)).modules()]
        return {"modules": modules, "count": len(modules)}

    async def upload_module(self, job: Job) -> Outputs:
        file = job.file(job.values["file"])
        gateway = await self._gateway(job)
        module_id, not_accepted = await gateway.upload(file)
        if not_accepted and not job.values["accept_terms"]:
            missing = " and ".join(_TERMS[each] for each in not_accepted)
            raise StepFailed(
                f"nobody has accepted {missing} of {module_id!r} on this gateway, so it is not "
                "installed; read them in the gateway, then accept them there or by accept_terms: "
                "true"
            )
        for what in not_accepted:
            await gateway.accept(module_id, what)
        await gateway.install(module_id)
        return {"module_id": module_id}

    async def wait_for_module_installation(self, job: Job) -> Outputs:
        gateway = await self._gateway(job)
        name = job.values["module_name"]
        pending_since_s = math.inf

        async def missing() -> str:
            nonlocal pending_since_s
            try:
                await gateway.renew_session()
            except Unavailable as error:
                pending_since_s = math.inf
                return str(error)
            try:
                modules = await gateway.modules()
            except (Unavailable, NotSignedIn) as error:  # a restart ended the session just now
                pending_since_s = math.inf
                return str(error)
            module = next((each for each in modules if each.is_called(name)), None)
            if module is None:
                close = get_close_matches(name, [each.name for each in modules], 1)
                return f"it has no module {name!r}" + (f", but {close[0]!r}" if close else "")
            _check_module(module)
            if module.state == RUNNING and gateway.has_settled(module):
                return ""
            if module.state == PENDING:
                pending_since_s = min(pending_since_s, _now_s())
                if _now_s() - pending_since_s >= self._config.settle_s:
                    raise StepFailed(
                        f"the module {name!r} is installed, and runs after a restart of the "
                        "gateway; put a gateway.restart step before this one",
                        module=_shown(module),
                    )
            before = ", maybe as it was before" if module.state == RUNNING else ""
            return f"the module {name!r} is {module.state}{before}"

        await self._wait(job, missing, f"the module {name!r} does not run")
        return {"status": "installed", "module_name": name}

    async def list_projects(self, job: Job) -> Outputs:
        projects = [asdict(each) for each in await (await self._gateway(job)).projects()]
        return {"projects": projects, "count": len(projects)}

    async def get_project(self, job: Job) -> Outputs:
        gateway = await self._gateway(job)
        name = job.values["project_name"]
        project = await gateway.project(name)
        if project is None:
            close = get_close_matches(name, [each.name for each in await gateway.projects()], 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise StepFailed(f"the gateway at {gateway.address} has no project {name!r}{hint}")
        return {"project": asdict(project)}

    async def restart(self, job: Job) -> Outputs:
        gateway = await self._gateway(job)
        await gateway.restart()
        if job.values["wait_for_ready"]:
            await self._wait_for_ready(job, gateway)
        return {"status": "restarted"}

    async def wait_for_ready(self, job: Job) -> Outputs:
        await self._wait_for_ready(job, await self._gateway(job))
        return {"status": "ready"}

    async def _wait_for_ready(self, job: Job, gateway: Gateway) -> None:
        await self._wait(
            job, gateway.what_is_missing, f"the gateway at {gateway.address} is not ready"
        )

    async def _wait(self, job: Job, missing: Callable[[], Awaitable[str]], otherwise: str) -> None:
        """Look until nothing is missing, for as long as the step says; pauses do not count.

        Raises:
            StepFailed: the time is over.
        """
        left_s = timeout_s = float(job.values["timeout"])
        told = why = ""
        while True:
            begun_s = _now_s()
            try:
                async with asyncio.timeout(left_s):
                    why = await missing()
            except TimeoutError:
                left_s = 0
            if not why:
                if left_s:
                    return
                why = "the gateway gives no answer"
            if why != told:
                await job.log(f"waiting: {why}")
                told = why
            nap_s = min(self._config.poll_s, left_s - (_now_s() - begun_s))
            if nap_s <= 0:
                raise StepFailed(f"{otherwise} after {timeout_s:g} s: {why}")
            left_s -= _now_s() - begun_s + nap_s
            await job.sleep(nap_s)

    async def _gateway(self, job: Job) -> Gateway:
        address = job.session.gateway_url
        if not address:
            raise StepFailed(
                "the run names no gateway; give it a gateway_url when it is started, or a "
                "credential that has one"
            )
        return await job.session.shared(
            f"gateway {address}", lambda: opened(address, self._config, self._trust)
        )


def _who(job: Job) -> SignIn:
    """Who is to sign in.

    Raises:
        StepFailed: nobody was named.
    """
    values = job.values
    is_api_key = values["method"] == "api_key"
    if values["username"] is not None:
        return SignIn(values["username"], values["password"], is_api_key)
    credential: Credential | None = values["credential"] or job.session.credential
    if credential is None:
        raise StepFailed(
            "the run has no credential to sign in with; give it a credential_name when it is "
            "started, or this step a credential, or a username and a password"
        )
    return SignIn(credential.username, credential.password, is_api_key)


def _check_module(module: Module) -> None:
    """Refuse a module that will not run by itself.

    Raises:
        StepFailed: it is such a one.
    """
    why = f" ({module.reason[:200]!r})" if module.reason else ""
    refusals = {
        FAULTED: "is faulted; look at the gateway's logs",
        QUARANTINED: f"is kept from running by the gateway{why}; accept what is missing, then "
        "restart the gateway",
        DISABLED: "is disabled; enable it in the gateway",
    }
    if module.state in refusals:
        raise StepFailed(
            f"the module {module.name!r} {refusals[module.state]}", module=_shown(module)
        )


def _shown(module: Module) -> dict[str, Any]:
    shown = asdict(module)
    del shown["reason"]
    return shown


def _trust(config: IgnitionConfig) -> ssl.SSLContext | None:
    if config.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(config.ca_file))
    except OSError as error:
        raise BadSetting(f"cannot use the certificates in {config.ca_file}: {error}") from None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
