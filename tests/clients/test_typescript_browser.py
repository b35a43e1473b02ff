"""The TypeScript client in a page: headless Chromium, and a live server of another origin."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, Request, Route, WebSocketRoute, async_playwright

from steward_server.executions.steps.pages.chromium import USUAL_NAMES
from tests.live import ADMIN_PASSWORD, ServerProcess
from tests.missing import missing

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

CLIENT = Path(__file__).parents[2] / "clients" / "typescript"
BUILD_TIMEOUT_S = 300

PAGE = """<!doctype html>
<title>A page that is not built</title>
<script type="importmap">{"imports": {
  "steward-client/browser": "/build/src/browser/index.js",
  "openapi-fetch": "/node_modules/openapi-fetch/dist/index.mjs"
}}</script>
<script type="module">
  import * as steward from "steward-client/browser";
  window.steward = steward;
  // What came of a promise, in words that can be carried out of the page.
  window.told = (promise) => promise.then(
    (answer) => ({ answer }),
    ({ name, code, reason, message, facts, fields, retryAfterS }) =>
      ({ name, code, reason, message, facts, fields, retryAfterS }),
  );
</script>
"""

NAP = """\
name: Nap
version: "1"
steps:
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 0.1}}
  - {id: note, name: Note, type: utility.log, parameters: {message: good night}}
"""


@pytest.fixture(scope="module")
def built(pytestconfig: pytest.Config) -> Path:
    """The client, built; CI fails where npm is missing."""
    if shutil.which("npm") is None:
        missing("there is no Node.js with npm here: the TypeScript client is not tried")
    assert pytestconfig.cache is not None
    with (pytestconfig.cache.mkdir("clients-typescript") / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # other workers want it too
        if not (CLIENT / "node_modules").is_dir():
            npm("ci", "--no-audit", "--no-fund")
        npm("run", "--silent", "build")
    return CLIENT


def npm(*arguments: str) -> None:
    subprocess.run(["npm", *arguments], cwd=CLIENT, check=True, timeout=BUILD_TIMEOUT_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(built: Path) -> AsyncIterator[str]:
    """A site with nothing but files: the page, the client and the one package it needs."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    site = web.Application()
    site.router.add_get("/", page)
    for folder in ("build", "node_modules/openapi-fetch"):
        site.router.add_static(f"/{folder}", built / folder)
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    data_dir = tmp_path_factory.mktemp("browser") / "data"
    serving = await ServerProcess(data_dir, STEWARD_CORS_ORIGINS=origin).start()
    yield serving
    serving.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    executable = next(filter(None, map(shutil.which, USUAL_NAMES)), None)
    if executable is None:
        missing("Chromium is not installed: make system-packages")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=executable)
        yield started
        await started.close()


@dataclass
class Scene:
    """A page of one origin, and a server of another."""

    page: Page
    server: ServerProcess
    calls: list[str] = field(default_factory=list)
    """What the page asked of the server: "POST /api/auth/refresh"."""

    @property
    def url(self) -> str:
        return f"http://{self.server.http_address}"

    async def run(self, script: str, **given: Any) -> Any:
        """Run the body of an asynchronous function in the page."""
        names = ", ".join(["url", "password", *given])
        told = {"url": self.url, "password": ADMIN_PASSWORD, **given}
        return await self.page.evaluate(f"async ({{ {names} }}) => {{ {script} }}", told)

    def note(self, request: Request) -> None:
        if request.url.startswith(self.url):
            self.calls.append(f"{request.method} {request.url.removeprefix(self.url)}")


@pytest_asyncio.fixture(loop_scope="module")
async def scene(browser: Browser, origin: str, server: ServerProcess) -> AsyncIterator[Scene]:
    """A page whose `client` is signed in."""
    page = await browser.new_page()
    opened = Scene(page, server)
    page.on("request", opened.note)
    await page.goto(origin)
    await page.wait_for_function("window.steward")
    await opened.run(
        "window.client = steward.connect(url); await client.signIn('admin', password);"
    )
    opened.calls.clear()
    yield opened
    await page.close()


async def test_paths_are_called_by_their_names(scene: Scene) -> None:
    told = await scene.run(
        """
        const agent = await client.post("/api/v1/agents", {
          body: { name: "scout", budget_usd: 1.25 },
        });
        const path = { agent_id: agent.id };
        const renamed = await client.patch("/api/v1/agents/{agent_id}", {
          params: { path },
          body: { name: "ranger" },
        });
        const query = { page_size: 100 };
        const { agents } = await client.get("/api/v1/agents", { params: { query } });
        const deleted = await client.delete("/api/v1/agents/{agent_id}", { params: { path } });
        return {
          budget: agent.budget.limit_usd,
          renamed: renamed.name,
          isListed: agents.some(({ id }) => id === agent.id),
          deleted: deleted === undefined,
        };
        """
    )
    assert told == {"budget": 1.25, "renamed": "ranger", "isListed": True, "deleted": True}


async def test_refusals_are_told_apart(scene: Scene) -> None:
    told = await scene.run(
        """
        const path = { agent_id: "agent_nobody" };
        return {
          nobody: await told(client.get("/api/v1/agents/{agent_id}", { params: { path } })),
          wrong: await told(client.post("/api/v1/agents", { body: { budget_usd: -1 } })),
          stranger: await told(steward.connect(url).get("/api/v1/agents")),
          kinds: await client.get("/api/v1/agents/{agent_id}", { params: { path } }).catch(
            (error) => [error instanceof steward.NotFound, error instanceof steward.StewardError],
          ),
        };
        """
    )
    assert told["nobody"]["name"] == "NotFound"
    assert told["nobody"]["reason"] == "AGENT_NOT_FOUND"
    assert told["nobody"]["facts"] == {"agent": "agent_nobody"}
    assert told["wrong"]["name"] == "InvalidRequest"
    assert set(told["wrong"]["fields"]) == {"name", "budget_usd"}
    assert told["stranger"]["name"] == "Unauthorized"
    assert told["stranger"]["reason"] == "CREDENTIAL_MISSING"
    assert told["kinds"] == [True, True]


async def test_a_server_that_is_not_there_is_unavailable(scene: Scene) -> None:
    told = await scene.run(
        "return told(steward.connect('http://127.0.0.1:9', { attempts: 2 }).get('/health'));"
    )
    assert (told["name"], told["code"]) == ("Unavailable", "UNAVAILABLE")


async def test_a_call_that_takes_too_long_is_given_up(scene: Scene) -> None:
    async def never(route: Route) -> None:
        await asyncio.sleep(2)
        await route.abort()

    await scene.page.route("**/health", never)
    told = await scene.run("return told(steward.connect(url, { timeoutMs: 200 }).get('/health'));")
    assert (told["name"], told["code"]) == ("DeadlineExceeded", "DEADLINE_EXCEEDED")


def refusing_once(status: int, **headers: str) -> Any:
    """A handler that refuses the first call of each verb, and the verbs and keys of all."""
    seen: list[tuple[str, str | None]] = []

    async def handle(route: Route) -> None:
        request = route.request
        if request.method == "OPTIONS":
            await route.continue_()
            return
        is_first = request.method not in [verb for verb, _ in seen]
        seen.append((request.method, request.headers.get("idempotency-key")))
        if not is_first:
            await route.continue_()
            return
        allowed = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        error = {"error": {"code": "UNAVAILABLE", "message": "not now"}}
        await route.fulfill(status=status, json=error, headers=allowed | headers)

    return handle, seen


async def test_what_is_safe_to_repeat_is_tried_again(scene: Scene) -> None:
    handle, seen = refusing_once(503)
    await scene.page.route("**/api/v1/agents*", handle)
    told = await scene.run(
        """
        await client.get("/api/v1/agents");
        return told(client.post("/api/v1/agents", { body: { name: "again", budget_usd: 1 } }));
        """
    )
    assert told["answer"]["name"] == "again"
    assert [verb for verb, _ in seen] == ["GET", "GET", "POST", "POST"]
    keys = [key for verb, key in seen if verb == "POST"]
    assert keys[0], "a creation has an identity of its own"
    assert keys[0] == keys[1], "and keeps it, so that it is done once"


async def test_what_is_not_safe_to_repeat_is_not(scene: Scene) -> None:
    handle, seen = refusing_once(503)
    await scene.page.route("**/api/v1/agents/*", handle)
    told = await scene.run(
        """
        return told(client.patch("/api/v1/agents/{agent_id}", {
          params: { path: { agent_id: "agent_nobody" } },
          body: { name: "again" },
        }));
        """
    )
    assert told["name"] == "Unavailable"
    assert seen == [("PATCH", None)]


async def test_a_wish_to_wait_is_kept_whatever_the_call_does(scene: Scene) -> None:
    handle, seen = refusing_once(503, **{"Retry-After": "1"})
    await scene.page.route("**/api/v1/agents/*", handle)
    told = await scene.run(
        """
        const began = performance.now();
        const answer = await told(client.patch("/api/v1/agents/{agent_id}", {
          params: { path: { agent_id: "agent_nobody" } },
          body: { name: "again" },
        }));
        return { ...answer, tookMs: performance.now() - began };
        """
    )
    assert told["name"] == "NotFound"
    assert told["tookMs"] >= 1_000
    assert len(seen) == 2


async def test_a_sign_in_is_renewed_once_however_many_need_it(scene: Scene) -> None:
    """The access token is not good any more, as after a change of the server's keys."""
    refused: list[str] = []

    async def refuse_the_first(route: Route) -> None:
        shown = route.request.headers.get("authorization", "")
        refused.extend([shown] if not refused else [])
        if shown != refused[0]:
            await route.continue_()
            return
        allowed = {"Access-Control-Allow-Origin": "*"}
        error = {"error": {"code": "UNAUTHORIZED", "message": "no", "reason": "TOKEN_EXPIRED"}}
        await route.fulfill(status=401, json=error, headers=allowed)

    await scene.page.route("**/api/v1/auth/me", refuse_the_first)
    names = await scene.run(
        """
        const all = await Promise.all([1, 2, 3, 4].map(() => client.get("/api/v1/auth/me")));
        return all.map(({ username }) => username);
        """
    )
    assert names == ["admin"] * 4
    assert scene.calls.count("POST /api/auth/refresh") == 1


async def test_events_go_on_over_a_restart_and_none_is_missed(scene: Scene) -> None:
    await scene.run(
        """
        const body = { name: "told", budget_usd: 1 };
        const agent = await client.post("/api/v1/agents", { body });
        window.raise = (budget_usd) => client.patch("/api/v1/agents/{agent_id}", {
          params: { path: { agent_id: agent.id } }, body: { budget_usd },
        });
        window.seen = [];
        window.cuts = [];
        const leaving = new AbortController();
        window.leave = () => leaving.abort();
        const onCut = (error, since) => cuts.push([error.name, since]);
        const events = client.events({
          agent_id: agent.id, type: ["BudgetChanged"], since: 0, signal: leaving.signal, onCut,
        });
        window.reading = (async () => {
          for await (const event of events) seen.push([event.sequence, event.data.new_budget_usd]);
        })();
        for (const budget of [2, 3]) await raise(budget);
        """
    )
    await scene.page.wait_for_function("seen.length === 2")
    scene.server.kill()
    await scene.page.wait_for_function("cuts.length > 0")
    await scene.server.start()
    told = await scene.run(
        "for (const budget of [4, 5]) await raise(budget); return { seen, cuts };"
    )
    await scene.page.wait_for_function("seen.length === 4")
    seen = await scene.run("leave(); await reading; return seen;")
    assert [budget for _, budget in seen] == [2, 3, 4, 5]
    assert sorted(sequence for sequence, _ in seen) == [sequence for sequence, _ in seen]
    assert ["Unavailable", seen[1][0]] in told["cuts"]


async def test_a_gap_is_told_and_a_cut_socket_goes_on_behind_it(scene: Scene) -> None:
    opened: list[str] = []

    async def serve(socket: WebSocketRoute) -> None:
        opened.append(socket.url.partition("?")[2])
        frame: dict[str, Any] = {"event_id": "", "timestamp": None, "agent_id": "", "data": {}}
        gap = {"from_sequence": 4, "to_sequence": 9}
        if len(opened) == 1:
            for told in (
                {"type": "Heartbeat", "sequence": 3},
                {"type": "Gap", "sequence": 9, "data": gap},
            ):
                socket.send(json.dumps(frame | told))
            await socket.close(code=1001, reason="the gateway is stopping")
        else:
            socket.send(json.dumps(frame | {"type": "PolicyLoaded", "sequence": 10}))

    await scene.page.route_web_socket("**/ws?*", serve)
    await scene.page.route_web_socket("**/ws", serve)
    seen = await scene.run(
        """
        const seen = [];
        for await (const event of client.events()) {
          seen.push([event.type, event.sequence, event.data]);
          if (seen.length === 2) return seen;
        }
        """
    )
    assert seen == [
        ["Gap", 9, {"from_sequence": 4, "to_sequence": 9}],
        ["PolicyLoaded", 10, {}],
    ]
    assert opened == ["", "since=9"]


async def test_a_socket_that_is_refused_says_why(scene: Scene) -> None:
    told = await scene.run(
        """
        const first = (client, options) => told(client.events(options).next());
        return {
          stranger: await first(steward.connect(url, { credential: "agentbox_nonsense" })),
          wrong: await first(client, { type: ["NoSuchEvent"] }),
        };
        """
    )
    assert told["stranger"]["name"] == "Unauthorized"
    assert told["wrong"]["name"] == "InvalidRequest"
    assert set(told["wrong"]["fields"]) == {"type"}


async def test_an_ended_sign_in_ends_its_sockets(scene: Scene) -> None:
    told = await scene.run(
        """
        const events = client.events({ since: 0 });
        await events.next();
        const next = told((async () => { for await (const event of events); })());
        await client.signOut();
        return next;
        """
    )
    assert told["name"] == "Unauthorized"


async def test_a_run_is_followed_to_its_end(scene: Scene) -> None:
    told = await scene.run(
        """
        await client.put("/api/playbooks/{path}", {
          params: { path: { path: "utility/nap.yaml" } }, body: { text: nap },
        });
        const all = [];
        const executions = client.executions({ frames: false });
        const following = (async () => {
          for await (const { data } of executions) {
            all.push(data.event);
            if (data.event === "ended") return;
          }
        })();
        await new Promise((resolve) => setTimeout(resolve, 500));
        const { execution_id } = await client.post("/api/executions", {
          body: { playbook_path: "utility/nap.yaml" },
        });
        const one = [];
        for await (const { execution_update } of client.watch(execution_id)) {
          one.push(execution_update.event);
        }
        await following;
        const missing = await told(client.watch("nobody").next());
        return { all, one, missing };
        """,
        nap=NAP,
    )
    steps = ["step_started", "step_completed", "step_started", "logged", "step_completed"]
    assert told["one"] == ["started", *steps, "ended"]
    assert told["all"] == told["one"]
    assert told["missing"]["name"] == "NotFound"


async def test_a_policy_makes_steps(scene: Scene) -> None:
    told = await scene.run(
        """
        const pole = client.policy({ policy: "cartpole" });
        const steps = await Promise.all([
          pole.step([0.1, 0, 0.05, 0]),
          pole.step([0, 0, -0.05, 0]),
        ]);
        const wrong = await told(pole.step([1, 2, 3]));
        const after = await pole.step([0.1, 0, 0.05, 0]);
        pole.close();
        const closed = await told(pole.step([0.1, 0, 0.05, 0]));
        return { actions: steps.map(({ action }) => action), after, wrong, closed };
        """
    )
    assert told["actions"] == [1, 0]
    assert told["after"]["action"] == 1
    assert told["wrong"]["name"] == "StewardError"
    assert "4" in told["wrong"]["message"]
    assert told["closed"]["name"] == "StreamBroken"
