"""Larger budgets: asked for, decided over, and taken back."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.agents import NOT_NOW, WHY, ask, money_of, owned_by, request_state
from tests.e2e.dashboard.parts import behind, dialog, figure, row
from tests.e2e.dashboard.site import Site, Window, window_of


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


def test_a_dialog_stays_though_somebody_else_was_faster_and_says_so(
    window: Window, site: Site
) -> None:
    agent_id = site.agent("decided meanwhile")
    request_id = ask(site, agent_id)
    page = window.open(f"/agents/{agent_id}")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    row(page, "Requests", WHY).get_by_role("button", name="Approve").click()
    dialog(page).get_by_label("A word about it").fill("Until the crawl is over.")
    site.call(
        "PATCH", f"/api/v1/budget/requests/{request_id}/reject", {"rejection_reason": NOT_NOW}
    )
    expect(behind(page, WHY)).to_contain_text("rejected")
    expect(dialog(page).get_by_label("A word about it")).to_have_value("Until the crawl is over.")
    dialog(page).get_by_role("button", name="Raise it").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("rejected")
    assert money_of(site, agent_id) == 10
    window.faults.clear()  # the browser's own line about the 409


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
