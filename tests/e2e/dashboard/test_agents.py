"""Agents: what they may spend, what they do with it, and who may change that."""

from __future__ import annotations

import csv
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.site import Site, Window, window_of

WHY = "The nightly crawl takes twice as many calls as it did last week."
NOT_NOW = "The crawl of last week was a mistake."


def money_of(site: Site, agent_id: str) -> float:
    limit: float = site.call("GET", f"/api/v1/agents/{agent_id}")["budget"]["limit_usd"]
    return limit


def spend(site: Site, agent_id: str, *costs_usd: float, model: str = "own") -> str:
    """Let an agent make calls; gives the token it showed."""
    token: str = site.call("POST", "/api/tokens", {"agent_id": agent_id})["token"]
    wish = {"requested_budget_usd": sum(costs_usd), "ic_token": token}
    lease_id = site.call("POST", "/api/budget/handshake", wish, token="")["lease_id"]
    for number, cost_usd in enumerate(costs_usd):
        report(site, token, lease_id, f"{lease_id}-{number}", cost_usd, model=model)
    return token


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


def row(page: Page, table: str, text: str) -> Locator:
    return (
        page.get_by_role("region", name=table, exact=True).get_by_role("row").filter(has_text=text)
    )


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def figure(page: Page, label: str) -> Locator:
    return page.locator(".figure").filter(has=page.get_by_text(label, exact=True))


def owned_by(site: Site, person: dict[str, Any], name: str) -> str:
    wish = {"name": name, "budget_usd": 3, "owner_id": person["user"]["id"]}
    agent_id: str = site.call("POST", "/api/v1/agents", wish)["id"]
    return agent_id


# All of them


def test_an_agent_is_created_with_what_it_is_given(window: Window, site: Site) -> None:
    site.agent("any, so that there is a provider")
    project_id = site.call("POST", "/api/v1/projects", {"name": "maps"})["id"]
    page = window.open("/agents")
    page.get_by_role("button", name="New agent").click()
    dialog(page).get_by_label("Name").fill("cartographer")
    dialog(page).get_by_label("Budget, in dollars").fill("12.5")
    dialog(page).get_by_label("The budget is given").select_option("each week")
    dialog(page).get_by_label("Provider").select_option("openai")
    dialog(page).get_by_label("Project").select_option("maps")
    window.assert_accessible()
    window.assert_fits(380)
    dialog(page).get_by_role("button", name="Create it").click()
    expect(page.get_by_role("heading", name="cartographer")).to_be_visible()
    agent = site.call("GET", f"/api/v1/agents/{page.url.rpartition('/')[2]}")
    assert (agent["name"], agent["provider"], agent["project_id"]) == (
        "cartographer",
        "openai",
        project_id,
    )
    assert (agent["budget"]["limit_usd"], agent["budget"]["period"]) == (12.5, "week")


def test_why_an_agent_cannot_be_created_is_said_at_its_field(window: Window, site: Site) -> None:
    page = window.open("/agents")
    page.get_by_role("button", name="New agent").click()
    dialog(page).get_by_label("Name").fill("x" * 300)
    dialog(page).get_by_label("Budget, in dollars").fill("1")
    dialog(page).get_by_role("button", name="Create it").click()
    name = dialog(page).get_by_label("Name")
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(name).to_be_focused()
    expect(name).to_have_accessible_description("has 300 characters; at most 100 are allowed")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    expect(page.get_by_role("button", name="New agent")).to_be_focused()
    window.faults.clear()  # the browser's own line about the 400


def test_agents_are_found_by_name_and_state_and_saved_as_csv(window: Window, site: Site) -> None:
    site.agent("findable one", 4)
    stopped = site.agent("findable two", 6)
    site.agent("somebody else")
    site.call("POST", f"/api/agents/{stopped}/stop", {"reason": "it is done"})
    page = window.open("/agents")
    page.get_by_label("Name").fill("FINDABLE")
    expect(row(page, "Agents", "findable one")).to_be_visible()
    expect(row(page, "Agents", "somebody else")).to_be_hidden()
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save as CSV").click()
    lines = list(csv.DictReader(saving.value.path().read_text().splitlines()))
    assert {(line["Agent"], line["Limit"]) for line in lines} == {
        ("findable one", "4"),
        ("findable two", "6"),
    }
    page.get_by_label("State").select_option("stopped")
    expect(row(page, "Agents", "findable one")).to_be_hidden()
    expect(row(page, "Agents", "findable two")).to_be_visible()
    page.get_by_label("Name").fill("nobody")
    expect(page.get_by_text("No agent is like that.")).to_be_visible()
    page.get_by_role("link", name="Show all agents").click()
    expect(row(page, "Agents", "somebody else")).to_be_visible()


@pytest.mark.parametrize(
    ("spent_usd", "tone", "percent"),
    [(4, "good", "40 %"), (8, "warn", "80 %"), (9.49, "warn", "94 %"), (9.5, "bad", "95 %")],
)
def test_a_budget_bar_changes_its_colour_where_the_budget_warns(
    window: Window, site: Site, spent_usd: float, tone: str, percent: str
) -> None:
    name = f"at {spent_usd} of ten"
    spend(site, site.agent(name, 10), spent_usd)
    page = window.open("/agents")
    meter = page.get_by_role("meter", name=f"Budget of {name}")
    expect(meter).to_contain_text(percent)
    expect(meter.locator(f".spent.{tone}")).to_have_count(1)
    assert [float(str(each.get_attribute("x"))) for each in meter.locator(".mark").all()] == [
        49.75,
        79.75,
        94.75,
    ]


def test_the_page_of_agents_is_accessible_and_fits(window: Window, site: Site) -> None:
    spend(site, site.agent("accessible", 10), 8.5)
    ask(site, site.agent("accessible too"))
    page = window.open("/agents")
    expect(row(page, "Agents", "accessible too")).to_be_visible()
    expect(row(page, "Budget requests", "accessible too")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)
    window.assert_fits(2560)


def test_a_raise_that_is_asked_for_arrives_by_itself_and_is_approved_where_it_appears(
    window: Window, site: Site
) -> None:
    agent_id = site.agent("asking live")
    page = window.open("/agents")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    request_id = ask(site, agent_id)
    waiting = row(page, "Budget requests", "asking live")
    waiting.get_by_role("button", name="Approve").click()
    expect(dialog(page)).to_contain_text("Its budget is $10.00, and $25.00 is asked for.")
    expect(dialog(page)).to_contain_text(WHY)
    dialog(page).get_by_label("New budget, in dollars").fill("20")
    dialog(page).get_by_role("button", name="Raise it").click()
    expect(waiting).to_be_hidden()
    expect(row(page, "Agents", "asking live")).to_contain_text("$20.00")
    assert (request_state(site, request_id), money_of(site, agent_id)) == ("approved", 20)


# One of them


def test_calls_and_money_of_an_agent_appear_without_a_reload(window: Window, site: Site) -> None:
    agent_id = site.agent("calling", 10)
    page = window.open(f"/agents/{agent_id}")
    expect(page.get_by_text("It has made no calls yet.")).to_be_visible()
    expect(page.get_by_text("steward run --agent calling agent.py")).to_be_visible()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    page.evaluate("window.isSame = true")
    spend(site, agent_id, 2.5, 0.75, model="gpt-own")
    expect(row(page, "Calls", "$0.75")).to_contain_text("gpt-own")
    expect(row(page, "Calls", "$2.50")).to_contain_text("1,234")
    expect(figure(page, "Spent")).to_contain_text("$3.25")
    expect(figure(page, "Left")).to_contain_text("$6.75")
    expect(page.get_by_role("heading", name="calling")).to_be_visible()
    assert page.evaluate("window.isSame")


def test_calls_of_others_do_not_make_an_agents_page_load_again(window: Window, site: Site) -> None:
    agent_id, other_id = site.agent("still"), site.agent("loud")
    page = window.open(f"/agents/{agent_id}")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    expect(page.get_by_text("It has made no calls yet.")).to_be_visible()
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    spend(site, other_id, 0.5)
    spend(site, agent_id, 0.25)
    expect(row(page, "Calls", "$0.25")).to_be_visible()
    assert sum("/api/v1/traces" in url for url in loaded) == 1


def test_an_agent_is_stopped_after_a_question_and_let_run_again(window: Window, site: Site) -> None:
    agent_id = site.agent("stoppable")
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Stop").click()
    dialog(page).get_by_label("Why?").fill("It goes in circles.")
    window.assert_accessible()
    dialog(page).get_by_role("button", name="Cancel").click()
    assert site.call("GET", f"/api/v1/agents/{agent_id}")["desired_state"] == "running"
    page.get_by_role("button", name="Stop").click()
    dialog(page).get_by_label("Why?").fill("It goes in circles.")
    dialog(page).get_by_role("button", name="Stop").click()
    again = page.get_by_role("button", name="Let it run again")
    expect(again).to_be_visible()
    assert site.call("GET", f"/api/v1/agents/{agent_id}")["desired_state"] == "stopped"
    audit = site.call("GET", f"/api/v1/audit?resource_id={agent_id}")
    assert "It goes in circles." in str(audit)
    again.click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    assert site.call("GET", f"/api/v1/agents/{agent_id}")["desired_state"] == "running"


def test_a_budget_is_changed_and_its_history_says_why(window: Window, site: Site) -> None:
    agent_id = site.agent("changeable")
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Name").fill("changed")
    dialog(page).get_by_label("Budget, in dollars").fill("42")
    dialog(page).get_by_label("Why?").fill("A larger map.")
    dialog(page).get_by_label("The budget is given").select_option("each day")
    dialog(page).get_by_label("Provider").select_option("any")
    window.assert_accessible()
    window.assert_fits(380)
    dialog(page).get_by_role("button", name="Change it").click()
    expect(page.get_by_role("heading", name="changed")).to_be_visible()
    expect(figure(page, "Budget")).to_contain_text("$42.00")
    expect(row(page, "Changes of the budget", "A larger map.")).to_contain_text("$10.00")
    agent = site.call("GET", f"/api/v1/agents/{agent_id}")
    assert (agent["name"], agent["provider"] or "") == ("changed", "")
    assert (agent["budget"]["limit_usd"], agent["budget"]["period"]) == (42, "day")


def test_a_change_keeps_what_it_does_not_name(window: Window, site: Site) -> None:
    project_id = site.call("POST", "/api/v1/projects", {"name": "kept"})["id"]
    agent_id = site.agent("kept as it is")
    site.call("PATCH", f"/api/v1/agents/{agent_id}", {"project_id": project_id})
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Budget, in dollars").fill("11")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(figure(page, "Budget")).to_contain_text("$11.00")
    agent = site.call("GET", f"/api/v1/agents/{agent_id}")
    kept = (agent["name"], agent["provider"], agent["project_id"], agent["budget"]["period"])
    assert kept == ("kept as it is", "openai", project_id, "none")


def test_another_name_leaves_a_raise_for_a_while_as_it_is(window: Window, site: Site) -> None:
    agent_id = site.agent("raised for an hour", 10)
    wish = {"agent_id": agent_id, "requested_budget_usd": 25, "justification": WHY}
    request = site.call("POST", "/api/v1/budget/requests", {**wish, "expires_in_s": 3600})
    site.call("PATCH", f"/api/v1/budget/requests/{request['id']}/approve", {})
    history = f"/api/v1/agents/{agent_id}/budget/history"
    before = site.call("GET", history)
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Name").fill("renamed meanwhile")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(page.get_by_role("heading", name="renamed meanwhile")).to_be_visible()
    assert site.call("GET", history) == before
    assert money_of(site, agent_id) == 25


def test_what_was_used_beyond_a_loan_counts_as_spent(window: Window, site: Site) -> None:
    agent_id = site.agent("over", 10)
    token = site.call("POST", "/api/tokens", {"agent_id": agent_id})["token"]
    wish = {"requested_budget_usd": 2, "ic_token": token}
    lease_id = site.call("POST", "/api/budget/handshake", wish, token="")["lease_id"]
    report(site, token, lease_id, "dear", 2.5)
    page = window.open(f"/agents/{agent_id}")
    expect(figure(page, "Spent")).to_contain_text("$2.50")
    expect(figure(page, "Spent")).to_contain_text("$0.50 of it above what was lent")
    window.open("/agents")
    expect(page.get_by_role("meter", name="Budget of over")).to_contain_text("25 %")


def test_who_was_faster_is_not_overwritten(window: Window, site: Site) -> None:
    agent_id = site.agent("wanted by two")
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Budget, in dollars").fill("5")
    site.call("PATCH", f"/api/v1/agents/{agent_id}", {"budget_usd": 15})
    expect(figure(page, "Budget")).to_contain_text("$15.00")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("version")
    assert money_of(site, agent_id) == 15
    window.faults.clear()  # the browser's own line about the 412


def test_a_budget_below_what_is_spent_is_refused_in_the_servers_words(
    window: Window, site: Site
) -> None:
    agent_id = site.agent("committed", 10)
    spend(site, agent_id, 4)
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Budget, in dollars").fill("3")
    dialog(page).get_by_role("button", name="Change it").click()
    told = dialog(page).get_by_role("alert").or_(dialog(page).locator(".wrong"))
    expect(told).to_contain_text("spent")
    assert money_of(site, agent_id) == 10
    window.faults.clear()  # the browser's own line about the refusal


def test_an_agent_is_deleted_after_a_question(window: Window, site: Site) -> None:
    agent_id = site.agent("short-lived")
    token = site.call("POST", "/api/tokens", {"agent_id": agent_id})["token"]
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Delete").click()
    expect(dialog(page)).to_contain_text("What it spent stays in the books.")
    dialog(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Agents", exact=True)).to_be_visible()
    expect(page.get_by_text("short-lived is deleted.")).to_be_visible()
    expect(row(page, "Agents", "short-lived")).to_be_hidden()
    assert agent_id not in str(site.call("GET", "/api/v1/agents?page_size=1000"))
    assert not is_good(site, token)


def test_a_raise_is_asked_for_and_rejected_on_the_agents_page(window: Window, site: Site) -> None:
    agent_id = site.agent("modest")
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="Ask for more").click()
    dialog(page).get_by_label("New budget, in dollars").fill("30")
    dialog(page).get_by_label("Why?").fill("Please.")
    dialog(page).get_by_role("button", name="Ask", exact=True).click()
    expect(dialog(page).get_by_text("must have at least 20 characters")).to_be_visible()
    dialog(page).get_by_label("Why?").fill(WHY)
    dialog(page).get_by_label("For how many hours").fill("6")
    window.assert_accessible()
    dialog(page).get_by_role("button", name="Ask", exact=True).click()
    asked = row(page, "Requests", WHY)
    expect(asked).to_contain_text("$30.00 for 6 h")
    expect(asked).to_contain_text("pending")
    asked.get_by_role("button", name="Reject").click()
    dialog(page).get_by_label("Why?").fill(NOT_NOW)
    dialog(page).get_by_role("button", name="Reject it").click()
    expect(asked).to_contain_text("rejected")
    expect(asked).to_contain_text(NOT_NOW)
    expect(asked.get_by_role("button")).to_have_count(0)
    [request] = site.call("GET", f"/api/v1/budget/requests?agent_id={agent_id}")["budget_requests"]
    assert (request["status"], request["expires_in_s"]) == ("rejected", 6 * 3600)
    assert money_of(site, agent_id) == 10
    window.faults.clear()  # the browser's own line about the 400


def test_a_raise_arrives_on_the_agents_page_and_is_approved_there(
    window: Window, site: Site
) -> None:
    agent_id = site.agent("asking on its page")
    page = window.open(f"/agents/{agent_id}")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    request_id = ask(site, agent_id, 18)
    asked = row(page, "Requests", WHY)
    asked.get_by_role("button", name="Approve").click()
    dialog(page).get_by_label("New budget, in dollars").fill("-1")
    dialog(page).get_by_role("button", name="Raise it").click()
    assert request_state(site, request_id) == "pending"
    dialog(page).get_by_label("New budget, in dollars").fill("18")
    dialog(page).get_by_label("A word about it").fill("Until the crawl is over.")
    dialog(page).get_by_role("button", name="Raise it").click()
    expect(asked).to_contain_text("approved")
    expect(asked).to_contain_text("Until the crawl is over.")
    expect(figure(page, "Budget")).to_contain_text("$18.00")
    assert (request_state(site, request_id), money_of(site, agent_id)) == ("approved", 18)


def test_a_decision_that_came_too_late_is_refused_in_the_servers_words(
    window: Window, site: Site
) -> None:
    agent_id = site.agent("decided elsewhere")
    request_id = ask(site, agent_id)
    page = window.open(f"/agents/{agent_id}")
    row(page, "Requests", WHY).get_by_role("button", name="Approve").click()
    page.route("**/api/v1/budget/requests?*", lambda route: route.abort())  # it hears too late
    site.call(
        "PATCH", f"/api/v1/budget/requests/{request_id}/reject", {"rejection_reason": NOT_NOW}
    )
    dialog(page).get_by_role("button", name="Raise it").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("rejected")
    assert money_of(site, agent_id) == 10
    window.faults.clear()  # the browser's own lines about the 409, and of what it was kept from


def test_who_asked_is_refused_the_decision_and_takes_it_back(window: Window, site: Site) -> None:
    agent_id = site.agent("asked for by the administrator")
    request_id = ask(site, agent_id)
    other = site.person("another administrator", "admin")
    page = window.open(f"/agents/{agent_id}")
    asked = row(page, "Requests", WHY)
    asked.get_by_role("button", name="Approve").click()
    dialog(page).get_by_role("button", name="Raise it").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("another administrator decides")
    page.keyboard.press("Escape")
    asked.get_by_role("button", name="Take it back").click()
    expect(asked).to_contain_text("cancelled")
    assert request_state(site, request_id) == "cancelled"
    site.end(f"/api/v1/users/{other['user']['id']}")  # the others decide alone
    window.faults.clear()  # the browser's own line about the 403


# Tokens


def test_a_token_is_made_and_its_text_shown_once_to_be_copied(window: Window, site: Site) -> None:
    agent_id = site.agent("with a token")
    page = window.open(f"/agents/{agent_id}")
    expect(page.get_by_text("No token yet.")).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="New token").click()
    dialog(page).get_by_label("What is it for?").fill("the crawl")
    dialog(page).get_by_label("Ends after, in days").fill("7")
    dialog(page).get_by_label("Good for inference").uncheck()
    dialog(page).get_by_label("Good for executions").uncheck()
    window.assert_accessible()
    window.assert_fits(380)
    dialog(page).get_by_role("button", name="Make it").click()
    field = page.get_by_label("The secret")
    secret = field.input_value()
    assert secret.startswith("ic_")
    window.assert_accessible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(field).to_be_visible()
    dialog(page).get_by_role("button", name="Copy").click()
    expect(dialog(page).get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    dialog(page).get_by_role("button", name="I have kept it").click()
    expect(dialog(page)).to_be_hidden()
    expect(row(page, "Tokens", "the crawl")).to_contain_text("active")
    assert secret not in page.content()
    expect(page.get_by_role("button", name="New token")).to_have_count(0)  # it has one already
    [token] = site.call("GET", f"/api/tokens?agent_id={agent_id}")["tokens"]
    assert token["scopes"] == ["budget", "events", "environments"]
    assert token["expires_at"]
    assert is_good(site, secret)


def test_a_second_token_is_refused_in_the_servers_words(window: Window, site: Site) -> None:
    agent_id = site.agent("given a token elsewhere")
    page = window.open(f"/agents/{agent_id}")
    page.get_by_role("button", name="New token").click()
    site.call("POST", "/api/tokens", {"agent_id": agent_id})
    dialog(page).get_by_role("button", name="Make it").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("rotate or revoke that")
    window.faults.clear()  # the browser's own line about the 409


def test_a_token_is_rotated_and_the_old_text_is_refused(window: Window, site: Site) -> None:
    agent_id = site.agent("with an old token")
    wish = {"agent_id": agent_id, "name": "worn"}
    old = site.call("POST", "/api/tokens", wish)["token"]
    page = window.open(f"/agents/{agent_id}")
    row(page, "Tokens", "worn").get_by_role("button", name="Rotate").click()
    expect(dialog(page)).to_contain_text("The old one is refused from now on.")
    dialog(page).get_by_role("button", name="Rotate").click()
    new = page.get_by_label("The secret").input_value()
    dialog(page).get_by_role("button", name="I have kept it").click()
    expect(dialog(page)).to_be_hidden()
    assert new != old
    assert (is_good(site, old), is_good(site, new)) == (False, True)


def test_a_token_is_revoked_after_a_question(window: Window, site: Site) -> None:
    agent_id = site.agent("with a lost token")
    lost = site.call("POST", "/api/tokens", {"agent_id": agent_id, "name": "lost"})["token"]
    page = window.open(f"/agents/{agent_id}")
    row(page, "Tokens", "lost").get_by_role("button", name="Revoke").click()
    dialog(page).get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("No token yet.")).to_be_visible()
    assert not is_good(site, lost)


# Other people, and nothing


def test_a_user_asks_for_their_own_agents_and_takes_it_back_but_decides_nothing(
    browser: Browser, site: Site
) -> None:
    person = site.person("una", "user")
    hers = owned_by(site, person, "una's own")
    site.agent("not una's")
    with window_of(browser, site, person) as window:
        page = window.open("/agents")
        expect(row(page, "Agents", "una's own")).to_be_visible()
        expect(page.get_by_text("not una's")).to_have_count(0)
        expect(page.get_by_role("button", name="New agent")).to_have_count(0)
        row(page, "Agents", "una's own").get_by_role("link").click()
        expect(page.get_by_role("heading", name="una's own")).to_be_visible()
        expect(page.get_by_text("It has made no calls yet.")).to_be_visible()
        for name in ("Change", "Delete", "New token"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        request_id = ask(site, hers, token=person["access_token"])
        asked = row(page, "Requests", WHY)
        expect(asked.get_by_role("button", name="Approve")).to_have_count(0)
        asked.get_by_role("button", name="Take it back").click()
        expect(asked).to_contain_text("cancelled")
        assert request_state(site, request_id) == "cancelled"
        page.get_by_role("button", name="Stop").click()
        dialog(page).get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Let it run again")).to_be_visible()
    assert site.call("GET", f"/api/v1/agents/{hers}")["desired_state"] == "stopped"


def test_a_user_takes_back_what_an_agent_of_theirs_asked_for(browser: Browser, site: Site) -> None:
    person = site.person("uma", "user")
    hers = owned_by(site, person, "uma's own")
    token = site.call("POST", "/api/tokens", {"agent_id": hers})["token"]
    request_id = ask(site, hers, token=token)
    with window_of(browser, site, person) as window:
        page = window.open(f"/agents/{hers}")
        asked = row(page, "Requests", WHY)
        expect(asked.get_by_role("button")).to_have_text(["Take it back"])
        asked.get_by_role("button").click()
        expect(asked).to_contain_text("cancelled")
    assert request_state(site, request_id) == "cancelled"


def test_a_viewer_looks_and_changes_nothing(browser: Browser, site: Site) -> None:
    person = site.person("vic", "viewer")
    his = owned_by(site, person, "vic's own")
    ask(site, his)
    with window_of(browser, site, person) as window:
        page = window.open(f"/agents/{his}")
        expect(page.get_by_text("It has made no calls yet.")).to_be_visible()
        expect(row(page, "Requests", WHY)).to_contain_text("pending")
        tools = page.get_by_role("main").get_by_role("button")
        expect(tools).to_have_count(0)


def test_without_agents_the_page_says_how_one_comes_about(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("new here", "user")) as window:
        page = window.open("/agents")
        expect(page.get_by_text("No agents yet.")).to_be_visible()
        expect(page.get_by_text("An administrator can create one for you.")).to_be_visible()
        expect(page.get_by_role("button", name="Save as CSV")).to_be_disabled()
        window.assert_accessible()


def test_an_agent_that_is_not_there_is_said_so_in_the_servers_words(
    window: Window, site: Site
) -> None:
    page = window.open("/agents/agent_none")
    expect(page.get_by_role("alert")).to_contain_text("agent_none")
    expect(page.get_by_role("link", name="Agents").last).to_be_visible()
    window.assert_accessible()
    window.faults.clear()  # the browser's own line about the 404


def test_one_agent_with_content_is_accessible_and_fits(window: Window, site: Site) -> None:
    agent_id = site.agent("full of content", 10)
    spend(site, agent_id, 5, 3.5)
    site.call("PATCH", f"/api/v1/agents/{agent_id}", {"budget_usd": 9, "budget_reason": "Less."})
    ask(site, agent_id)
    page = window.open(f"/agents/{agent_id}")
    for table in ("Requests", "Budgets", "Changes of the budget", "Tokens", "Calls"):
        expect(page.get_by_role("region", name=table, exact=True)).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)
    window.assert_fits(2560)


def test_a_dialog_is_worked_by_keys_alone(window: Window, site: Site) -> None:
    agent_id = site.agent("worked by keys")
    page = window.open(f"/agents/{agent_id}")
    opener = page.get_by_role("button", name="Ask for more")
    opener.focus()
    page.keyboard.press("Enter")
    expect(dialog(page).get_by_label("New budget, in dollars")).to_be_focused()
    page.keyboard.type("12")
    page.keyboard.press("Tab")
    page.keyboard.type(WHY)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(row(page, "Requests", WHY)).to_be_visible()
    expect(opener).to_be_focused()
    [request] = site.call("GET", f"/api/v1/budget/requests?agent_id={agent_id}")["budget_requests"]
    assert request["requested_budget_usd"] == 12
