"""What agents do and have, beside the dashboard."""

from __future__ import annotations

from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.e2e.dashboard.site import Site

WHY = "The nightly crawl takes twice as many calls as it did last week."
NOT_NOW = "The crawl of last week was a mistake."


def money_of(site: Site, agent_id: str) -> float:
    limit: float = site.call("GET", f"/api/v1/agents/{agent_id}")["budget"]["limit_usd"]
    return limit


def spend(site: Site, agent_id: str, *costs_usd: float, model: str = "own") -> str:
    """Let an agent make calls; gives the token it showed."""
    token, lease_id = lent(site, agent_id, sum(costs_usd))
    for number, cost_usd in enumerate(costs_usd):
        report(site, token, lease_id, f"{lease_id}-{number}", cost_usd, model=model)
    return token


def lent(site: Site, agent_id: str, budget_usd: float = 5) -> tuple[str, str]:
    """A new token of an agent, and the id of a lease."""
    token: str = site.call("POST", "/api/tokens", {"agent_id": agent_id})["token"]
    wish = {"requested_budget_usd": budget_usd, "ic_token": token}
    lease_id: str = site.call("POST", "/api/budget/handshake", wish, token="")["lease_id"]
    return token, lease_id


def report(
    site: Site, token: str, lease_id: str, request_id: str, cost_usd: float, *, model: str = "own"
) -> None:
    usage = {
        "lease_id": lease_id,
        "request_id": request_id,
        "model": model,
        "cost_usd": cost_usd,
        "input_tokens": 1200,
        "output_tokens": 34,
    }
    site.call("POST", "/api/budget/report", usage, token=token)


def ask(site: Site, agent_id: str, usd: float = 25, *, token: str | None = None) -> str:
    """The id of a new request for a larger budget."""
    wish = {"agent_id": agent_id, "requested_budget_usd": usd, "justification": WHY}
    request_id: str = site.call("POST", "/api/v1/budget/requests", wish, token=token)["id"]
    return request_id


def request_state(site: Site, request_id: str) -> str:
    state: str = site.call("GET", f"/api/v1/budget/requests/{request_id}")["status"]
    return state


def is_good(site: Site, token: str) -> bool:
    """Whether a runtime is lent anything for a token."""
    wish = f'{{"requested_budget_usd": 0.01, "ic_token": "{token}"}}'.encode()
    url = site.url + "/api/budget/handshake"
    try:
        with urlopen(Request(url, wish, {"Content-Type": "application/json"}), timeout=30):
            return True
    except HTTPError as error:
        if error.code not in (401, 403):
            raise
        return False


def owned_by(site: Site, person: dict[str, Any], name: str) -> str:
    wish = {"name": name, "budget_usd": 3, "owner_id": person["user"]["id"]}
    agent_id: str = site.call("POST", "/api/v1/agents", wish)["id"]
    return agent_id
