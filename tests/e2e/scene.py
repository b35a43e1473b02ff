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

    @property
    def playbook_folder(self) -> Path:
        """Where the server has the playbooks that people make."""
        return self._data_dir / "playbooks"

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

    def as_key(self) -> str:
        return f"-H 'Authorization: Bearer {self['api_key']}'"

    def as_executor(self) -> str:
        return f"-H 'X-API-Key: {self._new_api_key(kind='itk', role='executor')['key']}'"

    def as_readonly(self) -> str:
        return f"-H 'X-API-Key: {self._new_api_key(kind='itk', role='readonly')['key']}'"

    def as_revoked_key(self) -> str:
        made = self._new_api_key()
        curl("-X", "DELETE", f"{self.url()}/api/v1/api-keys/{made['id']}", "-H", self._admin)
        return f"-H 'Authorization: Bearer {made['key']}'"

    def as_expired_key(self) -> str:
        made = self._new_api_key()
        expire = "UPDATE api_key SET created_at_us = 1, expires_at_us = 2 WHERE key_id = ?"
        self._change(expire, made["id"])
        return f"-H 'Authorization: Bearer {made['key']}'"

    def as_busy_admin(self) -> str:
        """An administrator who has two keys or more."""
        self.new_api_key_id()
        self.new_api_key_id()
        return self.as_admin()

    def as_new_person(self) -> str:
        """Somebody with the password `new person`, signed in."""
        username = self.new_name()
        self._create_user(username, password="new person")
        login = {"username": username, "password": "new person"}
        pair = self.post("/api/auth/login", login, "Accept: application/json")
        return f"-H 'Authorization: Bearer {pair['access_token']}'"

    # Things.

    def api_key(self) -> str:
        return str(self._new_api_key()["key"])

    def itk_key(self) -> str:
        return str(self._new_api_key(kind="itk")["key"])

    def unknown_api_key(self) -> str:
        return self["api_key"][:-8] + "AAAAAAAA"

    def new_api_key_id(self) -> str:
        return str(self._new_api_key()["id"])

    def admin_id(self) -> str:
        return str(curl(f"{self.url()}/api/v1/auth/me", "-H", self._admin).body["id"])

    def user_id(self) -> str:
        """Of whom `as_user` is."""
        return str(self.run(f"$url/api/v1/auth/me {self['as_user']}").body["id"])

    def new_user_id(self) -> str:
        return str(self._create_user(self.new_name())["id"])

    def new_suspended_id(self) -> str:
        user_id = self.new_user_id()
        suspend = f"{self.url()}/api/v1/users/{user_id}/suspend"
        curl("-X", "PUT", suspend, "-H", self._admin, "-H", JSON, "-d", "{}")
        return user_id

    def known_person(self) -> str:
        """A name that is taken, of somebody whose address is it with `@example.com`."""
        self._create_user("known", email="known@example.com")
        return "known"

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

    def new_policy_agent(self) -> str:
        """An agent of a client of inference that steps with the policy `cartpole`."""
        agent_id = self.new_name()
        self.post("/reset", {"agent_id": agent_id}, f"Authorization: Bearer {STATIC_TOKEN}")
        return agent_id

    def busy_policy(self) -> str:
        """The policy that an agent has."""
        self.new_policy_agent()
        return "cartpole"

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

    def project(self) -> str:
        return self.new_project()

    def new_project(self) -> str:
        body = {"name": self.new_name(), "budget_usd": 100}
        return str(self.post("/api/v1/projects", body, self._admin)["id"])

    def busy_project(self) -> str:
        """One whose only agent holds a lease of 5 dollars and has spent 1."""
        project_id = self.new_project()
        runtime = self._runtime_of(self._agent(10, project_id=project_id))
        lease_id = self._lease(runtime, 5)
        report = {"lease_id": lease_id, "request_id": "c", "model": "gpt-4o", "cost_usd": 1}
        self.post("/api/budget/report", report, runtime)
        return project_id

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

    def new_budget_request(self) -> str:
        """One that a runtime made, about an agent of the administrator."""
        asked = {"requested_budget_usd": 20, "justification": "The crawl has grown a lot."}
        runtime = self._runtime_of(self._agent(10))
        return str(self.post("/api/v1/budget/requests", asked, runtime)["id"])

    def decided_budget_request(self) -> str:
        request_id = self.new_budget_request()
        path = f"{self.url()}/api/v1/budget/requests/{request_id}"
        curl("-X", "DELETE", path, "-H", self._admin)
        return request_id

    def raised_agent(self) -> str:
        """One whose budget was set from 10 to 12 dollars."""
        agent_id = self._agent(10)
        body = json.dumps({"budget_usd": 12, "budget_reason": "a slow start"})
        path = f"{self.url()}/api/v1/agents/{agent_id}"
        curl("-X", "PATCH", path, "-H", self._admin, "-H", JSON, "-d", body)
        return agent_id

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

    def new_limit_scope(self) -> str:
        scope = f"agent:{self._agent(10)}"
        self._limit(scope, max_tokens_per_day=1_000)
        return scope

    def as_throttled_runtime(self) -> str:
        """One that has made as many calls as it may in a minute."""
        agent_id = self._agent(10)
        runtime = self._runtime_of(agent_id)
        lease_id = self._lease(runtime)
        self._limit(f"agent:{agent_id}", max_requests_per_minute=1)
        report = {"lease_id": lease_id, "request_id": "c", "model": "gpt-4o", "cost_usd": 0.1}
        self.post("/api/budget/report", report, runtime)
        return f"-H '{runtime}'"

    def as_capped_runtime(self) -> str:
        """One that was lent as much as it may be in a month."""
        agent_id = self._agent(10)
        runtime = self._runtime_of(agent_id)
        self._limit(f"agent:{agent_id}", max_cost_per_month_usd=1)
        self._lease(runtime)
        return f"-H '{runtime}'"

    def as_assigned_runtime(self) -> str:
        return f"-H '{self['assigned_runtime']}'"

    def assigned_runtime(self) -> str:
        return self._runtime_of(self._agent(10, provider=self["provider"]))

    def assigned_lease(self) -> str:
        return self._lease(self["assigned_runtime"])

    def new_webhook_id(self) -> str:
        body = {"url": "https://hooks.invalid/x"}
        return str(self.post("/api/v1/webhooks", body, self._admin)["id"])

    def disabled_webhook_id(self) -> str:
        webhook_id = self.new_webhook_id()
        path = f"{self.url()}/api/v1/webhooks/{webhook_id}"
        curl("-X", "PATCH", path, "-H", self._admin, "-H", JSON, "-d", '{"enabled":false}')
        return webhook_id

    def tested_webhook_id(self) -> str:
        webhook_id = self.new_webhook_id()
        self.post(f"/api/v1/webhooks/{webhook_id}/test", {}, self._admin)
        return webhook_id

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

    def _create_user(self, username: str, **fields: str) -> Any:
        body = {"username": username, "password": ADMIN_PASSWORD, "role": "user"} | fields
        return self.post("/api/v1/users", body, self._admin)

    def _change(self, sql: str, *parameters: object) -> None:
        connection = sqlite3.connect(self._data_dir / "steward.db")
        with connection:
            connection.execute(sql, parameters)
        connection.close()

    def _agent(self, budget_usd: float, **fields: str) -> str:
        body = {"name": self.new_name(), "budget_usd": budget_usd, **fields}
        return str(self.post("/api/v1/agents", body, self._admin)["id"])

    def _limit(self, scope: str, **amounts: int) -> None:
        path, text = f"{self.url()}/api/v1/limits/{scope}", json.dumps(amounts)
        answer = curl("-X", "PUT", path, "-H", self._admin, "-H", JSON, "-d", text)
        assert answer.status == 200, answer

    def _new_token(self) -> Any:
        return self.post("/api/tokens", {"agent_id": self._agent(10)}, self._admin)

    def _new_api_key(self, **fields: str) -> Any:
        return self.post("/api/v1/api-keys", {"role": "admin"} | fields, self._admin)

    def _runtime_of(self, agent_id: str) -> str:
        made = self.post("/api/tokens", {"agent_id": agent_id}, self._admin)
        return f"X-IC-Key: {made['token']}"

    def _lease(self, runtime: str, budget_usd: float = 1) -> str:
        body = {"requested_budget_usd": budget_usd, "provider": self["provider"]}
        return str(self.post("/api/budget/handshake", body, runtime)["lease_id"])
