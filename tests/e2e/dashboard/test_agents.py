"""Agents: what they may spend, what they do with it, and who may change that."""

from __future__ import annotations

import csv

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.agents import WHY, ask, is_good, money_of, owned_by, report, spend
from tests.e2e.dashboard.parts import dialog, figure, row
from tests.e2e.dashboard.site import Site, Window, window_of


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
    expect(page.get_by_label("Name")).to_have_value("")
    expect(page.get_by_label("State")).to_have_value("")
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
