"""A server with something in it for every call there is, each made when its name is first read."""

from __future__ import annotations

import itertools
import json
import shlex
import sqlite3
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.curl import Answer, curl
from tests.e2e.process import Steward
from tests.live import ADMIN_PASSWORD, PROVIDER_KEY
from tests.people import add_person

STATIC_TOKEN = "static-3f9d1c7a5b2e8064"
JSON = "Content-Type: application/json"


class Scene(Mapping[str, str]):
    """Values by name for the table of calls. Names of methods below; `new_…` differ each time."""

    def __init__(self, server: Steward, data_dir: Path) -> None:
        self.server = server
        self._data_dir = data_dir
        self._numbers = itertools.count(1)
        self._kept: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name.startswith("new_"):
            return str(getattr(self, name)())
        if name not in self._kept:
            self._kept[name] = str(getattr(self, name)())
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def run(self, arguments: str) -> Answer:
        """Call curl with arguments as they would be typed, `$names` filled in."""
        return curl(*shlex.split(string.Template(arguments).substitute(self)))

    def post(self, path: str, body: dict[str, Any], credential: str) -> Any:
        """Make something the table needs."""
        text = json.dumps(body)
        answer = curl("-X", "POST", self.url() + path, "-H", credential, "-H", JSON, "-d", text)
        assert answer.status in (200, 201, 202), answer
        return answer.body

    # Shorthands of curl's arguments.

    def url(self) -> str:
        return self.server.url

    def json(self) -> str:
        return f"-H '{JSON}'"

    def as_admin(self) -> str:
        return f"-H '{self._admin}'"

    def as_runtime(self) -> str:
        return f"-H 'X-IC-Key: {self['ic_token']}'"

    def as_viewer(self) -> str:
        return f"-H 'Authorization: Bearer {self._sign_in('viewer')['access_token']}'"

    def as_user(self) -> str:
        return f"-H 'Authorization: Bearer {self._sign_in('user')['access_token']}'"

    def as_client(self) -> str:
        return f"-H 'Authorization: Bearer {STATIC_TOKEN}'"

    def as_rotated_runtime(self) -> str:
        made = self._new_token()
        self.post(f"/api/tokens/{made['id']}/rotate", {}, self._admin)
        return f"-H 'X-IC-Key: {made['token']}'"

    def as_revoked_runtime(self) -> str:
        made = self._new_token()
        curl("-X", "DELETE", f"{self.url()}/api/tokens/{made['id']}", "-H", self._admin)
        return f"-H 'X-IC-Key: {made['token']}'"

    def as_expired_runtime(self) -> str:
        made = self._new_token()
        expire = "UPDATE ic_token SET created_at_us = 1, expires_at_us = 2 WHERE token_id = ?"
        self._change(expire, made["id"])
        return f"-H 'X-IC-Key: {made['token']}'"

    def as_signed_out_admin(self) -> str:
        access_token = self._sign_in("admin")["access_token"]
        credential = f"Authorization: Bearer {access_token}"
        curl("-X", "POST", f"{self.url()}/api/auth/logout", "-H", credential)
        return f"-H '{credential}'"

    # Things.

    def password(self) -> str:
        return ADMIN_PASSWORD

    def agent(self) -> str:
        return self._agent(1_000)

    def ic_token(self) -> str:
        return str(self.post("/api/tokens", {"agent_id": self["agent"]}, self._admin)["token"])

    def token_id(self) -> str:
        assert self["ic_token"]
        listed = curl(f"{self.url()}/api/tokens?agent_id={self['agent']}", "-H", self._admin)
        return str(listed.body["tokens"][0]["id"])

    def lease(self) -> str:
        return self.new_lease()

    def provider(self) -> str:
        body = {"name": "openai", "base_url": "http://127.0.0.1:9", "api_key": PROVIDER_KEY}
        self.post("/api/v1/providers", body, self._admin)
        return "openai"

    def stopped_lease_id(self) -> str:
        """A lease of an agent that was stopped; its credential is `as_its_runtime`."""
        agent_id = self._agent(10)
        runtime = self._runtime_of(agent_id)
        self._kept["as_its_runtime"] = f"-H '{runtime}'"
        lease_id = self._lease(runtime)
        self.post(f"/api/agents/{agent_id}/stop", {}, self._admin)
        return lease_id

    def as_poor_runtime(self) -> str:
        runtime = self._runtime_of(self._agent(0.000000001))
        self._lease(runtime)
        return f"-H '{runtime}'"

    def as_stopped_runtime(self) -> str:
        agent_id = self._agent(10)
        runtime = self._runtime_of(agent_id)
        self.post(f"/api/agents/{agent_id}/stop", {}, self._admin)
        return f"-H '{runtime}'"

    def stopped_agent(self) -> str:
        agent_id = self._agent(10)
        self.post(f"/api/agents/{agent_id}/stop", {}, self._admin)
        return agent_id

    def new_agent(self) -> str:
        return self._agent(10)

    def busy_agent(self) -> str:
        """One that holds a lease of 5 dollars and has spent 1."""
        agent_id = self._agent(10)
        runtime = self._runtime_of(agent_id)
        lease_id = self._lease(runtime, 5)
        report = {"lease_id": lease_id, "request_id": "c", "model": "gpt-4o", "cost_usd": 1}
        self.post("/api/budget/report", report, runtime)
        return agent_id

    def as_spender(self) -> str:
        """The runtime of an agent that has reported a call named "c"."""
        runtime = self._runtime_of(self._agent(10))
        report = {
            "lease_id": self._lease(runtime, 5),
            "request_id": "c",
            "model": "gpt-4o",
            "cost_usd": 1,
        }
        self.post("/api/budget/report", report, runtime)
        return f"-H '{runtime}'"

    def trace(self) -> str:
        """Of a call of the busy agent."""
        path = f"{self.url()}/api/v1/traces?agent_id={self['busy_agent']}"
        return str(curl(path, "-H", self._admin).body["traces"][0]["id"])

    def now(self) -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def new_token_id(self) -> str:
        return str(self._new_token()["id"])

    def new_lease(self) -> str:
        return self._lease(f"X-IC-Key: {self['ic_token']}")

    def new_name(self) -> str:
        return f"name-{next(self._numbers)}"

    def new_provider_id(self) -> str:
        body = {"name": self.new_name(), "kind": "openai", "api_key": PROVIDER_KEY}
        return str(self.post("/api/v1/providers", body, self._admin)["id"])

    def used_provider_id(self) -> str:
        body = {"name": self.new_name(), "kind": "anthropic", "api_key": PROVIDER_KEY}
        made = self.post("/api/v1/providers", body, self._admin)
        self._agent(1, provider=made["name"])
        return str(made["id"])

    def new_refresh_token(self) -> str:
        return str(self._sign_in("admin")["refresh_token"])

    def spent_refresh_token(self) -> str:
        spent = self.new_refresh_token()
        curl(
            *("-X", "POST", f"{self.url()}/api/auth/refresh", "-H", JSON),
            *("-d", json.dumps({"refresh_token": spent})),
        )
        return spent

    def new_access_token(self) -> str:
        return str(self._sign_in("admin")["access_token"])

    @property
    def _admin(self) -> str:
        if "access_token" not in self._kept:
            self._kept["access_token"] = self.new_access_token()
        return f"Authorization: Bearer {self._kept['access_token']}"

    def _sign_in(self, username: str) -> Any:
        if username != "admin":
            add_person(self._data_dir, username, role=username)
        login = {"username": username, "password": ADMIN_PASSWORD}
        return self.post("/api/auth/login", login, "Accept: application/json")

    def _change(self, sql: str, *parameters: object) -> None:
        connection = sqlite3.connect(self._data_dir / "steward.db")
        with connection:
            connection.execute(sql, parameters)
        connection.close()

    def _agent(self, budget_usd: float, **fields: str) -> str:
        body = {"name": self.new_name(), "budget_usd": budget_usd, **fields}
        return str(self.post("/api/v1/agents", body, self._admin)["id"])

    def _new_token(self) -> Any:
        return self.post("/api/tokens", {"agent_id": self._agent(10)}, self._admin)

    def _runtime_of(self, agent_id: str) -> str:
        made = self.post("/api/tokens", {"agent_id": agent_id}, self._admin)
        return f"X-IC-Key: {made['token']}"

    def _lease(self, runtime: str, budget_usd: float = 1) -> str:
        body = {"requested_budget_usd": budget_usd, "provider": self["provider"]}
        return str(self.post("/api/budget/handshake", body, runtime)["lease_id"])
