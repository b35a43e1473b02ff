"""Spending: what was spent over time, on what, and by whom."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.agents import report
from tests.e2e.dashboard.parts import figure, row
from tests.e2e.dashboard.site import Site, Window, window_of

PERIODS = {
    "last-hour": "the last hour",
    "today": "today",
    "yesterday": "yesterday",
    "last-7-days": "the last 7 days",
    "last-30-days": "the last 30 days",
    "this-month": "this month",
    "last-month": "last month",
    "all-time": "all time",
}
COLOURS = """
    figure => [...figure.querySelectorAll(".swatch")]
      .map((each) => getComputedStyle(each).backgroundColor)
"""
PAINTED = """
    canvas => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const found = new Set();
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] === 255) found.add(`rgb(${data[i]}, ${data[i + 1]}, ${data[i + 2]})`);
      }
      return [...found];
    }
"""


class Spender:
    """A new agent, that makes calls of models at their costs in dollars."""

    def __init__(
        self,
        site: Site,
        name: str,
        *calls: tuple[str, float],
        provider: str = "openai",
        owner_id: str | None = None,
    ) -> None:
        self.site = site
        known = site.call("GET", "/api/v1/providers")["providers"]
        if provider not in {each["name"] for each in known}:
            keyed = {"name": provider, "kind": "openai", "api_key": "sk-1"}
            site.call("POST", "/api/v1/providers", keyed)
        wish = {"name": name, "budget_usd": 1000, "provider": provider}
        if owner_id:
            wish["owner_id"] = owner_id
        self.id: str = site.call("POST", "/api/v1/agents", wish)["id"]
        self.token = site.call("POST", "/api/tokens", {"agent_id": self.id})["token"]
        self.spend(*calls)

    def spend(self, *calls: tuple[str, float]) -> None:
        wish = {"requested_budget_usd": sum(usd for _, usd in calls), "ic_token": self.token}
        lease_id = self.site.call("POST", "/api/budget/handshake", wish, token="")["lease_id"]
        for number, (model, usd) in enumerate(calls):
            report(self.site, self.token, lease_id, f"{lease_id}-{number}", usd, model=model)


def card(page: Page, title: str) -> Locator:
    return page.locator(".card").filter(has=page.get_by_role("heading", name=title, exact=True))


def legend(page: Page) -> Locator:
    return card(page, "Over time").locator(".legend").get_by_role("listitem")


def saved(page: Page, title: str) -> tuple[str, list[dict[str, str]]]:
    """The name and the lines of what a card saves."""
    with page.expect_download() as saving:
        card(page, title).get_by_role("button", name="Save as CSV").click()
    text = saving.value.path().read_text()
    return saving.value.suggested_filename, list(csv.DictReader(text.splitlines()))


def over_time(site: Site, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = site.call("GET", f"/api/v1/analytics/spending/over-time?{query}")
    return answer


def test_spending_is_drawn_by_agent_provider_and_model(window: Window, site: Site) -> None:
    Spender(site, "grouped one", ("model a", 3), ("model b", 1), provider="first-provider")
    Spender(site, "grouped two", ("model a", 2), provider="second-provider")
    page = window.open("/spending?period=last-hour")
    expect(page.get_by_label("Period", exact=True)).to_have_value("last-hour")
    expect(legend(page).filter(has_text="grouped one")).to_contain_text("$4.00")
    page.get_by_label("Drawn by", exact=True).select_option("provider")
    expect(legend(page).filter(has_text="first-provider")).to_contain_text("$4.00")
    expect(legend(page).filter(has_text="second-provider")).to_contain_text("$2.00")
    page.get_by_label("Drawn by", exact=True).select_option("model")
    expect(legend(page).filter(has_text="model a")).to_contain_text("$5.00")
    expect(legend(page).filter(has_text="model b")).to_contain_text("$1.00")
    assert page.url.endswith("/spending?period=last-hour&by=model")
    page.reload()
    expect(page.get_by_label("Drawn by", exact=True)).to_have_value("model")
    expect(card(page, "Over time").locator("canvas")).to_be_visible()


@pytest.mark.parametrize("period", PERIODS)
def test_every_period_shows_what_the_server_counts_in_it(
    window: Window, site: Site, period: str
) -> None:
    Spender(site, f"in {period}", ("gpt-own", 0.5))
    page = window.open("/spending")
    page.get_by_label("Period", exact=True).select_option(PERIODS[period])
    total = site.call("GET", f"/api/v1/analytics/spending/total?period={period}")["total_spend"]
    expect(figure(page, "Spent")).to_contain_text(f"${total:,.2f}")
    expect(figure(page, "Spent")).to_contain_text(PERIODS[period])
    if total > 0:
        expect(row(page, "By agent", f"in {period}")).to_contain_text("$0.50")
        expect(card(page, "Over time").locator("canvas")).to_be_visible()
    else:
        expect(page.get_by_text("Nothing was spent in this time.")).to_be_visible()
        expect(page.get_by_text("Choose a longer period")).to_be_visible()


def test_spending_is_narrowed_to_an_agent_a_provider_and_a_model(
    window: Window, site: Site
) -> None:
    calls = (("narrow a", 3.0), ("narrow b", 1.5))
    agent = Spender(site, "narrowed", *calls, provider="narrow-provider")
    Spender(site, "left out", ("narrow a", 7), provider="other-provider")
    page = window.open("/spending?period=today")
    page.get_by_label("Agent", exact=True).select_option("narrowed")
    expect(figure(page, "Spent")).to_contain_text("$4.50")
    expect(figure(page, "A call")).to_contain_text("$2.25")
    expect(figure(page, "Tokens")).to_contain_text("2,468")
    page.get_by_label("Model", exact=True).select_option("narrow b")
    expect(figure(page, "Spent")).to_contain_text("$1.50")
    expect(row(page, "By agent", "left out")).to_have_count(0)
    page.get_by_label("Provider", exact=True).select_option("other-provider")
    expect(page.get_by_text("Nothing of that was spent in this time.")).to_be_visible()
    page.get_by_role("button", name="Show everything").click()
    expect(row(page, "By agent", "left out")).to_contain_text("$7.00")
    page.goto(f"{site.url}/agents/{agent.id}")
    page.get_by_role("link", name="on what").click()
    expect(page.get_by_label("Agent", exact=True)).to_have_value(agent.id)
    expect(figure(page, "Spent")).to_contain_text("$4.50")


def test_tables_are_sorted_by_what_was_spent_and_by_a_click(window: Window, site: Site) -> None:
    Spender(site, "sorted b", ("sorted", 2))
    Spender(site, "sorted c", ("sorted", 4), ("sorted", 5))
    Spender(site, "sorted a", ("sorted", 3))
    page = window.open("/spending?period=today&model=sorted")
    table = page.get_by_role("region", name="By agent", exact=True)
    names = table.locator("tbody td:first-child")
    expect(names).to_have_text(["sorted c", "sorted a", "sorted b"])
    table.get_by_role("button", name="Agent").click()
    table.get_by_role("button", name="Agent").click()
    expect(names).to_have_text(["sorted a", "sorted b", "sorted c"])
    expect(table.get_by_role("columnheader", name="Agent")).to_have_attribute(
        "aria-sort", "ascending"
    )
    table.get_by_role("button", name="Calls").press("Enter")
    expect(names.first).to_have_text("sorted c")


def test_what_is_saved_as_csv_is_what_the_server_says(window: Window, site: Site) -> None:
    agent = Spender(site, "=saved, one", ("saved a", 3), ("saved b", 0.000000001))
    page = window.open(f"/spending?period=last-hour&by=model&agent_id={agent.id}")
    expect(row(page, "By agent", "saved")).to_be_visible()
    expect(row(page, "By model", "saved b")).to_contain_text("$0.000000001")
    name, lines = saved(page, "By agent")
    assert name == "spending-by-agent.csv"
    expected = {"Agent": "'=saved, one", "Calls": "2", "Spent": "3.000000001"}
    assert {key: lines[0][key] for key in expected} == expected
    name, lines = saved(page, "By model")
    assert name == "spending-by-model.csv"
    assert [(line["Model"], line["Provider"], line["Tokens"]) for line in lines] == [
        ("saved a", "openai", "1234"),
        ("saved b", "openai", "1234"),
    ]
    assert [float(line["Spent"]) for line in lines] == [3, 0.000000001]
    name, lines = saved(page, "By provider")
    assert (name, lines[0]["Provider"], lines[0]["Agents"]) == (
        "spending-by-provider.csv",
        "openai",
        "1",
    )
    name, lines = saved(page, "Over time")
    assert name == "spending-last-hour.csv"
    told = over_time(site, f"period=last-hour&step=minute&group_by=model&agent_id={agent.id}")
    assert abs(len(lines) - len(told["data"])) <= 1  # a minute may have passed
    assert sum(float(line["saved a"]) for line in lines) == 3
    assert sum(float(line["saved b"]) for line in lines) == 0.000000001


def test_what_is_spent_meanwhile_appears_without_a_reload(window: Window, site: Site) -> None:
    agent = Spender(site, "spending on", ("growing", 1))
    page = window.open(f"/spending?period=last-hour&agent_id={agent.id}")
    expect(figure(page, "Spent")).to_contain_text("$1.00")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    agent.spend(("growing", 0.25))
    expect(figure(page, "Spent")).to_contain_text("$1.25")
    expect(figure(page, "Calls")).to_contain_text("2")
    expect(row(page, "By model", "growing")).to_contain_text("$1.25")


def test_nine_series_have_nine_colours_and_all_are_painted(window: Window, site: Site) -> None:
    models = [(f"colour {number}", 10.0 + number) for number in range(8)]
    agent = Spender(site, "colourful", *models)
    page = window.open(f"/spending?period=last-hour&by=model&agent_id={agent.id}")
    expect(legend(page)).to_have_count(8)
    agent.spend(("too small for a colour", 9.0))
    expect(legend(page)).to_have_count(9)
    expect(legend(page).last).to_contain_text("others")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        chart = card(page, "Over time").locator(".chart")
        colours = chart.evaluate(COLOURS)
        assert len(set(colours)) == 9
        page.wait_for_function(
            f"colours => {{ const painted = ({PAINTED})(document.querySelector('.chart canvas'));"
            " return colours.every((each) => painted.includes(each)); }",
            arg=colours,
        )


def test_the_chart_says_what_one_points_at_and_stays_as_high(window: Window, site: Site) -> None:
    agent = Spender(site, "pointed at", ("pointed a", 2), ("pointed b", 1))
    page = window.open(f"/spending?period=last-hour&by=model&agent_id={agent.id}")
    chart = card(page, "Over time").locator(".chart")
    expect(chart).to_contain_text("In all")
    expect(chart.locator("canvas")).to_be_visible()
    before = chart.bounding_box()
    over = chart.locator(".u-over")
    box = over.bounding_box()
    assert before
    assert box
    page.mouse.move(box["x"] + 5, box["y"] + 20)
    expect(chart).not_to_contain_text("In all")
    expect(legend(page).filter(has_text="pointed a")).to_contain_text("$0.00")
    assert chart.bounding_box() == before
    page.mouse.move(0, 0)
    expect(chart).to_contain_text("In all")


def test_the_page_with_content_is_accessible_and_fits(window: Window, site: Site) -> None:
    Spender(site, "accessible", ("a-model-with-a-rather-long-name-20250514", 2), ("short", 1))
    page = window.open("/spending?by=model")
    expect(row(page, "By agent", "accessible")).to_be_visible()
    expect(card(page, "Over time").locator("canvas")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)
    window.assert_fits(2560)


def test_who_spent_nothing_is_told_what_to_do(browser: Browser, site: Site) -> None:
    Spender(site, "somebody else's", ("gpt-own", 1))
    with window_of(browser, site, site.person("frugal", "user")) as window:
        page = window.open("/spending")
        expect(page.get_by_text("Nothing was spent in this time.")).to_be_visible()
        expect(page.get_by_text("let an agent make a call")).to_be_visible()
        expect(page.get_by_text("somebody else's")).to_have_count(0)
        for button in page.get_by_role("button", name="Save as CSV").all():
            expect(button).to_be_disabled()
        window.assert_accessible()
        page.get_by_label("Period", exact=True).select_option("all time")
        expect(page.get_by_text("steward run --agent")).to_be_visible()


def test_a_viewer_sees_what_their_agents_spent_and_nobody_elses(
    browser: Browser, site: Site
) -> None:
    person = site.person("watching", "viewer")
    Spender(site, "watched", ("watched model", 2), owner_id=person["user"]["id"])
    other = Spender(site, "hidden from them", ("hidden model", 1)).id
    with window_of(browser, site, person) as window:
        page = window.open("/spending?period=today&by=model")
        expect(row(page, "By agent", "watched")).to_contain_text("$2.00")
        expect(figure(page, "Spent")).to_contain_text("$2.00")
        expect(page.get_by_text("hidden")).to_have_count(0)
        page.goto(f"{site.url}/spending?agent_id={other}")
        expect(page.get_by_role("alert").first).to_contain_text(other)
        window.faults.clear()  # the browser's own lines about the 404


def test_what_the_server_refuses_is_said_and_can_be_tried_again(window: Window, site: Site) -> None:
    Spender(site, "there again", ("gpt-own", 1))
    refusal = {"status": 503, "json": {"error": {"message": "the books are being closed"}}}
    window.page.route("**/analytics/spending/by-agent?*", lambda route: route.fulfill(**refusal))
    page = window.open("/spending?period=today")
    told = card(page, "By agent").get_by_role("alert")
    expect(told).to_contain_text("the books are being closed")
    window.assert_accessible()
    page.unroute("**/analytics/spending/by-agent?*")
    told.get_by_role("button", name="Try again").click()
    expect(row(page, "By agent", "there again")).to_be_visible()
    window.faults.clear()  # the browser's own lines about the 503
