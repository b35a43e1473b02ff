"""The password of a credential goes through all that runs can do, and is looked for after."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web

from steward.executions.v1 import executions_pb2
from steward.executions.v1.executions_pb2_grpc import ExecutionServiceStub
from tests.e2e.process import Steward, steward
from tests.e2e.test_canary import shapes
from tests.live import Api

PASSWORD = "canary/run+password<&\"\\'ü>-3a9f51d7"
PARENT = """name: Parent
version: "1"
parameters:
  - {name: site, type: string}
  - {name: account, type: credential}
  - {name: password, type: string}
steps:
  - id: named
    name: By its name
    type: http.request
    parameters:
      method: POST
      url: "{{ site }}/{{ credential.gw.password }}?q={{ credential.gw.password }}"
      headers: {X-Name: "{{ credential.gw.username }}"}
      json: {a: ["{{ credential.gw.password }}"], "b": "<{{ credential.gw.password }}>"}
  - id: given
    name: By the parameter
    type: http.request
    parameters:
      method: PUT
      url: "{{ site }}"
      body: "{{ parameter.account.password }}"
      credential: "{{ account }}"
  - id: whole
    name: The whole credential
    type: http.request
    parameters: {url: "{{ site }}", credential: gw}
  - id: say
    name: Say
    type: utility.log
    parameters: {message: "It is {{ credential.gw.password }}"}
  - id: keep
    name: Keep
    type: utility.set_variable
    parameters: {name: kept, value: {inner: ["{{ password }}"]}}
  - id: use
    name: Use what was kept
    type: http.request
    parameters: {method: POST, url: "{{ site }}", json: "{{ variable.kept }}"}
  - id: copy
    name: Use what was answered
    type: utility.log
    parameters: {message: "{{ step.use.body }} {{ step.named.headers.x-echo }}", level: error}
  - id: child
    name: Have a child do it
    type: playbook.run
    parameters:
      playbook: child.yaml
      site: "{{ site }}"
      who: "{{ account }}"
      text: "{{ parameter.account.password }}"
    on_failure: continue
  - id: fail
    name: Fail
    type: http.request
    parameters: {method: POST, url: "{{ site }}/fail", body: "{{ credential.gw.password }}"}
finally:
  - id: lost
    name: Lose
    type: http.request
    parameters: {url: "http://127.0.0.1:9/{{ credential.gw.password }}"}
"""
CHILD = """name: Child
version: "1"
parameters:
  - {name: site, type: string}
  - {name: who, type: credential}
  - {name: text, type: string}
steps:
  - id: say
    name: Say
    type: utility.log
    parameters: {message: "{{ text }} {{ parameter.who.password }}"}
  - id: fail
    name: Fail
    type: http.request
    parameters: {method: POST, url: "{{ site }}/fail", json: {p: "{{ parameter.who.password }}"}}
"""


class Echo:
    """Says back all that it was told, in every spelling."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.text()
        texts = [*leaves(json.loads(body))] if body.startswith("{") else [body]
        self.texts += texts
        told = {
            "target": request.raw_path,
            "path": request.path,
            "headers": dict(request.headers),
            "texts": texts,
            "hex": [each.encode().hex() for each in texts],
            "base64": [base64.b64encode(each.encode()).decode() for each in texts],
            "quoted": [urllib.parse.quote(each, safe="") for each in texts],
        }
        status = 500 if "fail" in request.path else 200
        echo = {"X-Echo": urllib.parse.quote(request.path)}
        return web.json_response(told, status=status, headers=echo)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve, for as long as the block lasts; gives the URL."""
        runner = web.ServerRunner(web.Server(self.answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_password_that_a_run_uses_is_found_where_it_does_not_belong(
    tmp_path: Path, log_format: str
) -> None:
    data_dir, site = tmp_path / "data", Echo()
    (data_dir / "playbooks").mkdir(parents=True)
    (data_dir / "playbooks" / "parent.yaml").write_text(PARENT)
    (data_dir / "playbooks" / "child.yaml").write_text(CHILD)
    with steward(data_dir, STEWARD_LOG_LEVEL="debug", STEWARD_LOG_FORMAT=log_format) as server:
        async with site.served() as url:
            told, steps = await _run_with_secrets(server, url)
        server.stop()

    # It was used, and said back.
    assert sum(PASSWORD in each for each in site.texts) == 6
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(
        ("named", "given", "whole", "say", "keep", "use", "copy"), "completed"
    ) | {
        "child": "failed",
        "fail": "failed",
        "lost": "failed",
    }
    assert "***" in told["whole run"].decode()
    places = told | {
        "standard output": server.said.encode(),
        "log": server.log.encode(),
    }
    files = [file for file in data_dir.rglob("*") if file.is_file()]
    places |= {file.name: file.read_bytes() for file in files}
    assert {"steward.db", "parent.yaml"} <= places.keys()
    found = {
        (place, shape)
        for place, content in places.items()
        for shape in shapes(PASSWORD)
        if shape in content
    }
    assert found == set()


def leaves(value: Any) -> Iterator[str]:
    """The texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)


async def _run_with_secrets(server: Steward, site: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Everything that every door tells of a run that uses a credential in all ways; its steps."""
    async with aiohttp.ClientSession() as session:
        admin = await Api(server.url, session).sign_in()
        credential = {"name": "gw", "username": "admin", "password": PASSWORD}
        assert (await admin.call("POST", "/api/credentials", credential)).status == 200
        socket = await session.ws_connect(f"{server.url}/ws/executions", headers=admin.headers)
        body = {
            "playbook_path": "parent.yaml",
            "parameters": {"site": site, "account": "gw"},
            "credential_name": "gw",
        }
        begun = await admin.call("POST", "/api/executions", body)
        assert begun.status == 200, begun.body
        run = begun.body["execution_id"]
        frames, begin = list[str](), f'{{"type":"execution_update","data":{{"execution_id":"{run}"'
        while not (frames and frames[-1].startswith(begin) and '"event":"ended"' in frames[-1]):
            frames.append(await socket.receive_str(timeout=10))
        await socket.close()
        told = {"frames": "\n".join(frames).encode()}
        listed = (await admin.call("GET", f"/api/executions?parent_execution_id={run}")).body
        for name, execution_id in (("whole run", run), ("child run", listed[0]["execution_id"])):
            path = f"{server.url}/api/executions/{execution_id}"
            for what in ("", "/events", "/artifacts"):
                async with session.get(path + what, headers=admin.headers) as answer:
                    assert answer.status == 200
                    told[name + what] = await answer.read()
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub: Any = ExecutionServiceStub(channel)
            watch = stub.Watch(
                executions_pb2.WatchRequest(execution_id=run), metadata=tuple(admin.headers.items())
            )
            told["gRPC"] = b"".join([each.SerializeToString() async for each in watch])
        again = await admin.call("POST", f"/api/executions/{run}/rerun", {})
        told["rerun"] = json.dumps(again.body).encode()
        return told, {
            each["step_id"]: each for each in json.loads(told["whole run"])["step_results"]
        }
