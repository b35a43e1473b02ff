"""The server is killed without warning in the middle of many runs.

Each run comes to its end all the same: it goes on where that is safe, and says that it was
interrupted where it is not. What may not be repeated is not repeated.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.e2e.ignition.scene import asks, in_step, over, save_playbooks
from tests.live import Api, ServerProcess

RUNS = 50
PATIENCE_S = 30
CALLS = ("first", "second", "third")
ANSWERS_AFTER_S = 0.03
"""So long that a server is killed in the middle of some request."""

CALM = """name: Calm
version: "1"
steps:
  - {id: hello, name: Hello, type: utility.log, parameters: {message: Hello}}
  - {id: set, name: Set, type: utility.set_variable, parameters: {name: a, value: 7}}
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 0.1}}
  - id: say
    name: Say
    type: utility.log
    parameters: {message: "{{ variable.a }} and {{ step.hello.logged }}"}
  - {id: doze, name: Doze, type: utility.sleep, parameters: {seconds: 0.1}}
finally:
  - {id: bye, name: Bye, type: utility.log, parameters: {message: Bye}}
"""
CALLING = """name: Calling
version: "1"
parameters:
  - {name: site, type: string}
  - {name: run, type: string}
steps:
  - {id: hello, name: Hello, type: utility.log, parameters: {message: Hello}}
""" + "".join(
    f"""  - {{id: before_{each}, name: Wait, type: utility.sleep, parameters: {{seconds: 0.02}}}}
  - id: {each}
    name: Call
    type: http.request
    parameters: {{method: POST, url: "{{{{ site }}}}/{{{{ run }}}}/{each}"}}
"""
    for each in CALLS
)


class Site:
    """Counts who called."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.calls[request.path] += 1
        await asyncio.sleep(ANSWERS_AFTER_S)
        return web.Response(text="ok")

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self.answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.01)


async def begin(api: Api, site: Site) -> list[str]:
    """So many runs, of which every second one calls the site."""
    runs = []
    for number in range(RUNS):
        body: dict[str, Any] = {"playbook_path": "calm.yaml"}
        if number % 2:
            body = {
                "playbook_path": "calling.yaml",
                "parameters": {"site": site.url, "run": f"run-{number}"},
            }
        begun = await api.call("POST", "/api/executions", body)
        assert begun.status == 200, begun
        runs.append(str(begun.body["execution_id"]))
    return runs


async def test_runs_outlive_kill_9_and_repeat_nothing_they_may_not(tmp_path: Path) -> None:
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "calm.yaml").write_text(CALM)
    (folder / "calling.yaml").write_text(CALLING)
    server, site = ServerProcess(tmp_path), Site()
    await server.start()
    try:
        async with site.served(), aiohttp.ClientSession() as session:
            signed_in = await Api(f"http://{server.http_address}", session).sign_in()
            made = await signed_in.call("POST", "/api/v1/api-keys", {"role": "admin"})
            api = signed_in.acting_as(authorization=f"Bearer {made.body['key']}")
            runs = await begin(api, site)
            # In the middle of the first that run at a time, then of those that waited for them.
            for calls in (10, 35):

                async def are_made(calls: int = calls) -> bool:
                    return site.calls.total() >= calls

                await until(are_made)
                server.kill()
                await server.start()

            async def are_over() -> bool:
                left = [
                    (await api.call("GET", f"/api/executions?limit=1&status={each}")).body
                    for each in ("pending", "running", "paused")
                ]
                return left == [[], [], []]

            await until(are_over)
            seen = [(await api.call("GET", f"/api/executions/{each}")).body for each in runs]
    finally:
        server.kill()

    assert set(site.calls.values()) == {1}
    ends = Counter((each["playbook_name"], each["status"]) for each in seen)
    assert ends["Calm", "completed"] == RUNS // 2
    assert ends["Calling", "completed"] + ends["Calling", "failed"] == RUNS // 2
    assert min(ends["Calling", "completed"], ends["Calling", "failed"]) > 0
    for number, each in enumerate(seen):
        results = {step["step_id"]: step for step in each["step_results"]}
        if each["status"] == "completed":
            assert {step["status"] for step in results.values()} == {"completed"}
            if number % 2:
                assert all(site.calls[f"/run-{number}/{call}"] for call in CALLS)
            else:
                assert results["say"]["output"]["logged"] == "7 and Hello"
            continue
        assert each["error"] == "interrupted"
        (cut,) = (step for step in results.values() if step["status"] == "failed")
        assert (cut["step_id"] in CALLS, cut["error"], cut["attempts"]) == (True, "interrupted", 1)
        after = CALLS[CALLS.index(cut["step_id"]) + 1 :]
        assert {results[call]["status"] for call in after} <= {"pending"}
        assert not any(site.calls[f"/run-{number}/{call}"] for call in after)
    attempts = [
        step["attempts"] for each in seen for step in each["step_results"] if "attempts" in step
    ]
    assert max(attempts) > 1  # what may be repeated was


async def test_who_waits_for_people_waits_for_them_still_after_kill_9(tmp_path: Path) -> None:
    save_playbooks(tmp_path)
    server = ServerProcess(tmp_path)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            signed_in = await Api(f"http://{server.http_address}", session).sign_in()
            made = await signed_in.call("POST", "/api/v1/api-keys", {"role": "admin"})
            api = signed_in.acting_as(authorization=f"Bearer {made.body['key']}")
            runs = {}
            for name in ("long", "asking"):
                body = {"playbook_path": f"runs/{name}.yaml"}
                begun = await api.call("POST", "/api/executions", body)
                runs[name] = f"/api/executions/{begun.body['execution_id']}"

            async def becomes(name: str, holds: Any) -> Any:
                async with asyncio.timeout(PATIENCE_S):
                    while not holds(seen := (await api.call("GET", runs[name])).body):
                        await asyncio.sleep(0.01)
                return seen

            await becomes("long", in_step)
            await api.call("POST", f"{runs['long']}/pause")
            before = await becomes("long", lambda seen: seen["status"] == "paused")
            asked = (await becomes("asking", asks))["question"]
            server.kill()
            await server.start()

            after = (await api.call("GET", runs["long"])).body
            assert (after["status"], after["started_at"]) == ("paused", before["started_at"])
            assert (await becomes("asking", asks))["question"]["message"] == asked["message"]
            approved = await api.call("POST", f"{runs['asking']}/approve", {})
            assert approved.status == 200, approved
            for verb in ("resume", "skip"):
                done = await api.call("POST", f"{runs['long']}/{verb}")
                assert done.status == 200, done
                await becomes("long", lambda seen: over(seen) or in_step(seen))
            for name in runs:
                assert (await becomes(name, over))["status"] == "completed"
    finally:
        server.kill()
