"""The token of an agent: made, shown once, changed for another and revoked."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.dashboard.agents import is_good
from tests.e2e.dashboard.parts import dialog, row
from tests.e2e.dashboard.site import Site, Window


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
