"""A playbook in a real Chromium, watched over the WebSocket as the guide has it."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from pathlib import Path

from aiohttp import web

from steward_server.executions.steps.pages.chromium import USUAL_NAMES
from tests.live import live_server, live_settings
from tests.missing import missing

PASSWORD = "s3cret-canary-of-a-pump"
PAGE = """<!doctype html><title>Pump</title><h1>Pump house 3</h1>
<form action="/signed-in"><input name=user><input name=pw type=password><button>Sign in</button>
</form><canvas id=c width=600 height=300></canvas><script>let n = 0; setInterval(() => {
document.getElementById('c').getContext('2d').fillRect(n++ % 600, 99, 4, 4)}, 20)</script>"""
SIGNED_IN = "<!doctype html><title>In</title><h1>Hello <span id=name></span></h1><script>\
document.getElementById('name').textContent = new URLSearchParams(location.search).get('user') \
+ ', ' + new URLSearchParams(location.search).get('pw')</script>"
PLAYBOOK = """
name: Sign in
version: "1"
parameters:
  - {name: url, type: string}
steps:
  - {id: open, name: Open, type: browser.navigate, parameters: {url: "{{ parameter.url }}"}}
  - id: user
    name: User
    type: browser.fill
    parameters: {selector: "[name=user]", value: "{{ credential.pump.username }}"}
  - id: password
    name: Password
    type: browser.fill
    parameters: {selector: "[name=pw]", value: "{{ credential.pump.password }}"}
  - {id: shot, name: Picture, type: browser.screenshot, parameters: {name: before}}
  - {id: wait, name: Wait, type: utility.sleep, parameters: {seconds: 0.8}}
  - {id: enter, name: Enter, type: browser.click, parameters: {selector: button}}
  - {id: hello, name: Hello, type: browser.get_text, parameters: {selector: h1}}
"""


async def test_frames_and_steps_of_a_browser_arrive_and_no_password(tmp_path: Path) -> None:
    if not any(map(shutil.which, USUAL_NAMES)):
        missing("Chromium is not installed: make system-packages")
    (tmp_path / "data/playbooks").mkdir(parents=True)
    (tmp_path / "data/playbooks/sign_in.yaml").write_text(PLAYBOOK)
    runner = web.AppRunner(_pump())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with live_server(live_settings(tmp_path / "data")) as live:
        credential = {"name": "pump", "username": "operator", "password": PASSWORD}
        await live.admin.call("POST", "/api/credentials", credential)
        wish = {"kind": "itk", "description": "a dashboard"}
        key = (await live.admin.call("POST", "/api/v1/api-keys", wish)).body["key"]
        socket_url = f"{live.api.base_url}/ws/executions?api_key={key}"
        async with live.admin.session.ws_connect(socket_url) as socket:
            body = {"playbook_path": "sign_in.yaml", "parameters": {"url": url}}
            started = await live.admin.call("POST", "/api/executions", body)
            frames, told = list[bytes](), ""
            while True:
                text = await socket.receive_str(timeout=30)
                message = json.loads(text)
                if message["type"] == "screenshot_frame":
                    assert message["data"].keys() == {"execution_id", "frame", "timestamp"}
                    kind, _, data = message["data"]["frame"].partition(",")
                    assert kind == "data:image/png;base64"
                    frames.append(base64.b64decode(data))
                    continue
                told += text
                if message["data"]["event"] == "ended":
                    break
        assert message["data"]["status"] == "completed", message
        assert frames
        for each in frames:
            assert each.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", each[16:24])
            assert (width, height) == (1280, 720)
        execution_id = started.body["execution_id"]
        path = f"/api/executions/{execution_id}"
        run = (await live.admin.call("GET", path)).body
        assert run["step_results"][-1]["output"]["text"] == "Hello operator, ***"
        assert PASSWORD not in told + str(run)
        (artifact,) = (await live.admin.call("GET", f"{path}/artifacts")).body["artifacts"]
        assert artifact["name"] == "before.png"
        picture = f"{live.api.base_url}{path}/artifacts/{artifact['artifact_id']}"
        async with live.admin.session.get(picture, headers=live.admin.headers) as response:
            assert response.headers["Content-Disposition"] == 'attachment; filename="before.png"'
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert (await response.read()).startswith(b"\x89PNG")
        deleted = (await live.admin.call("DELETE", path)).body
        assert deleted["screenshots_deleted"] == 1
    await runner.cleanup()


def _pump() -> web.Application:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def signed_in(_: web.Request) -> web.Response:
        return web.Response(text=SIGNED_IN, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/signed-in", signed_in)
    return app
