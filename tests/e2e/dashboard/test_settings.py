"""The settings: who may come in, with what, and what happened."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Route, expect

from tests.e2e.dashboard.parts import behind, dialog, loaded_again, row
from tests.e2e.dashboard.site import TWO_FRAMES, Site, Window, held_at, window_of


def test_a_person_is_let_in_given_a_role_kept_out_and_deleted(window: Window, site: Site) -> None:
    page = window.open("/settings/people")
    page.get_by_role("button", name="Let somebody in").click()
    dialog(page).get_by_label("Name").fill("grace")
    dialog(page).get_by_label("First password").fill("short")
    window.assert_accessible()
    dialog(page).get_by_role("button", name="Let them in").click()
    expect(dialog(page).get_by_text("8 to 1000 characters")).to_be_visible()
    dialog(page).get_by_label("First password").fill("the compiler works now")
    dialog(page).get_by_role("button", name="Let them in").click()
    expect(dialog(page)).to_be_hidden()
    grace = row(page, "People", "grace")
    grace.get_by_role("button", name="Role").click()
    dialog(page).get_by_label("Role").select_option("viewer")
    dialog(page).get_by_role("button", name="Set it").click()
    expect(grace.get_by_role("cell", name="viewer")).to_be_visible()
    grace.get_by_role("button", name="Password").click()
    dialog(page).get_by_label("New password").fill("another one for grace")
    dialog(page).get_by_label("They choose another").uncheck()
    dialog(page).get_by_role("button", name="Set it").click()
    expect(dialog(page)).to_be_hidden()
    assert site.sign_in("grace", "another one for grace")["user"]["role"] == "viewer"
    grace.get_by_role("button", name="Suspend").click()
    dialog(page).get_by_label("Why?").fill("on leave")
    dialog(page).get_by_role("button", name="Suspend").click()
    expect(grace.get_by_text("on leave")).to_be_visible()
    grace.get_by_role("button", name="Let in again").click()
    expect(grace.get_by_text("active")).to_be_visible()
    window.assert_accessible()
    grace.get_by_role("button", name="Delete").click()
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    grace.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete").click()
    expect(grace).to_be_hidden()
    window.faults.clear()  # the browser's own line about the 400


def test_a_key_is_shown_once_works_and_is_revoked(window: Window, site: Site) -> None:
    page = window.open("/settings/keys")
    expect(page.get_by_text("You have no API keys.")).to_be_visible()
    page.get_by_role("button", name="New key").click()
    dialog(page).get_by_label("What is it for?").fill("CI of ours")
    dialog(page).get_by_label("Role").select_option("readonly")
    dialog(page).get_by_label("Ends after, in days").fill("30")
    dialog(page).get_by_role("button", name="Make it").click()
    secret = dialog(page).get_by_label("The secret").input_value()
    assert site.call("GET", "/api/v1/auth/me", token=secret)["username"] == "admin"
    window.assert_accessible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_visible()  # it is not shown again: nobody closes it by mistake
    dialog(page).get_by_role("button", name="I have kept it").click()
    assert secret not in page.content()
    expect(row(page, "API keys", "CI of ours")).to_contain_text("readonly")
    row(page, "API keys", "CI of ours").get_by_role("button", name="Revoke").click()
    dialog(page).get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("You have no API keys.")).to_be_visible()


def test_a_key_that_the_browser_does_not_copy_is_copied_by_hand(window: Window) -> None:
    page = window.open("/settings/keys")
    page.evaluate(
        """() => {
            navigator.clipboard.writeText = () => Promise.reject(new DOMException("not allowed"));
            document.execCommand = () => false;
        }"""
    )
    page.get_by_role("button", name="New key").click()
    dialog(page).get_by_label("What is it for?").fill("copied by hand")
    dialog(page).get_by_role("button", name="Make it").click()
    dialog(page).get_by_role("button", name="Copy").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("copy it by hand")
    expect(dialog(page).get_by_label("The secret")).to_be_focused()
    dialog(page).get_by_role("button", name="I have kept it").click()
    row(page, "API keys", "copied by hand").get_by_role("button", name="Revoke").click()
    dialog(page).get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("You have no API keys.")).to_be_visible()


def test_all_that_was_wrong_is_told_also_once_the_dialog_is_closed(window: Window) -> None:
    page = window.open("/settings/keys")
    wrong = {"description": "is dull", "owner": "is away"}
    refusal = {"error": {"code": "VALIDATION_ERROR", "message": "two are wrong", "fields": wrong}}
    held = held_at(page, "**/api/v1/api-keys")
    page.get_by_role("button", name="New key").click()
    dialog(page).get_by_label("What is it for?").fill("dull")
    with page.expect_request("**/api/v1/api-keys"):
        dialog(page).get_by_role("button", name="Make it").click()
    expect(dialog(page).get_by_role("button", name="One moment…")).to_be_visible()
    held.pop().fulfill(status=400, json=refusal)
    expect(dialog(page).get_by_text("is dull")).to_be_visible()
    expect(dialog(page).get_by_role("alert")).to_contain_text("owner is away")
    with page.expect_request("**/api/v1/api-keys"):
        dialog(page).get_by_role("button", name="Make it").click()
    expect(dialog(page).get_by_role("button", name="One moment…")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    held.pop().fulfill(status=400, json=refusal)
    expect(page.get_by_role("status").get_by_text("two are wrong")).to_be_visible()
    window.faults.clear()  # the browser's own lines about the 400s


def test_a_provider_is_added_and_its_key_never_shown(window: Window) -> None:
    page = window.open("/settings/providers")
    page.get_by_role("button", name="Add a provider").click()
    dialog(page).get_by_label("Name").fill("Not A Name")
    dialog(page).get_by_label("API key").fill("sk-canary-0123456789")
    dialog(page).get_by_role("button", name="Add it").click()
    expect(dialog(page).get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    dialog(page).get_by_label("Name").fill("anthropic")
    dialog(page).get_by_role("button", name="Add it").click()
    provider = row(page, "Providers", "api.anthropic.com")
    expect(provider).to_contain_text("sk-c...789")
    assert "canary" not in page.content()
    provider.get_by_role("button", name="Allow").click()
    expect(provider).to_contain_text("allowed")
    window.assert_accessible()
    provider.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No provider yet.")).to_be_visible()
    window.faults.clear()  # the browser's own line about the 400


def test_a_project_shares_a_budget(window: Window, site: Site) -> None:
    page = window.open("/settings/projects")
    page.get_by_role("button", name="New project").click()
    dialog(page).get_by_label("Name").fill("Apollo")
    dialog(page).get_by_label("Budget, in dollars").fill("12.5")
    dialog(page).get_by_role("button", name="Make it").click()
    project = row(page, "Projects", "Apollo")
    expect(project.get_by_role("meter")).to_be_visible()
    project.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Budget, in dollars").fill("")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(dialog(page)).to_be_hidden()  # its own hint says "no limit" too
    expect(project).to_contain_text("no limit")
    [known] = site.call("GET", "/api/v1/projects")["projects"]
    assert (known["name"], known["budget"]["limit_usd"]) == ("Apollo", None)
    window.assert_accessible()
    project.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No projects.")).to_be_visible()


def test_a_limit_is_set_changed_and_lifted(window: Window, site: Site) -> None:
    page = window.open("/settings/limits")
    page.get_by_role("button", name="Set a limit").click()
    dialog(page).get_by_label("Of whom").fill("nobody")
    dialog(page).get_by_label("Tokens a day").fill("1000")
    dialog(page).get_by_role("button", name="Set it").click()
    expect(dialog(page).get_by_role("alert").or_(dialog(page).locator(".wrong"))).to_be_visible()
    dialog(page).get_by_label("Of whom").fill("everyone")
    dialog(page).get_by_role("button", name="Set it").click()
    everyone = row(page, "Limits", "everyone")
    expect(everyone).to_contain_text("0 of 1,000")
    everyone.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Dollars a month").fill("7.5")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(everyone).to_contain_text("$0.00 of $7.50")
    [limit] = site.call("GET", "/api/limits")["limits"]
    assert (limit["max_tokens_per_day"], limit["max_cost_per_month_usd"]) == (1000, 7.5)
    window.assert_accessible()
    everyone.get_by_role("button", name="Lift").click()
    dialog(page).get_by_role("button", name="Lift").click()
    expect(page.get_by_text("No limits.")).to_be_visible()
    window.faults.clear()  # the browser's own line about the 400


def test_what_somebody_else_changes_while_it_is_being_changed_is_not_overwritten(
    window: Window, site: Site
) -> None:
    site.call("PUT", "/api/v1/limits/everyone", {"max_tokens_per_day": 1000})
    page = window.open("/settings/limits")
    row(page, "Limits", "everyone").get_by_role("button", name="Change").click()
    site.call("PUT", "/api/v1/limits/everyone", {"max_tokens_per_day": 2000})
    loaded_again(page)
    expect(behind(page, "everyone")).to_contain_text("0 of 2,000")
    dialog(page).get_by_label("Dollars a month").fill("7")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(dialog(page).get_by_role("alert")).to_be_visible()
    [limit] = site.call("GET", "/api/limits")["limits"]
    assert (limit["max_tokens_per_day"], limit["max_cost_per_month_usd"]) == (2000, None)
    site.end("/api/v1/limits/everyone")

    made = site.call("POST", "/api/v1/projects", {"name": "Gemini", "budget_usd": 3})
    page = window.open("/settings/projects")
    row(page, "Projects", "Gemini").get_by_role("button", name="Change").click()
    site.call("PATCH", f"/api/v1/projects/{made['id']}", {"budget_usd": 44})
    loaded_again(page)
    bar = page.locator("[role=meter][aria-label='Budget of Gemini']")
    expect(bar).to_have_attribute("title", re.compile(re.escape("$44.00")))
    dialog(page).get_by_label("Name").fill("Apollo")
    dialog(page).get_by_role("button", name="Change it").click()
    expect(dialog(page).get_by_role("alert")).to_be_visible()
    [known] = site.call("GET", "/api/v1/projects")["projects"]
    assert (known["name"], known["budget"]["limit_usd"]) == ("Gemini", 44)
    site.end(f"/api/v1/projects/{made['id']}")
    window.faults.clear()  # the browser's own lines about the 412


def test_a_question_stays_though_what_it_is_about_has_gone(window: Window, site: Site) -> None:
    made = site.call("POST", "/api/v1/projects", {"name": "Mercury"})
    page = window.open("/settings/limits")
    page.get_by_role("link", name="Projects").click()
    row(page, "Projects", "Mercury").get_by_role("button", name="Delete").click()
    site.end(f"/api/v1/projects/{made['id']}")
    loaded_again(page)
    expect(behind(page, "Mercury")).to_have_count(0)
    dialog(page).get_by_role("button", name="Delete").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text(made["id"])
    page.go_back()
    expect(dialog(page)).to_have_count(0)  # it was of the page that was left
    window.faults.clear()  # the browser's own line about the 404


def test_a_credential_is_saved_and_its_password_never_shown(window: Window, site: Site) -> None:
    page = window.open("/settings/credentials")
    page.get_by_role("button", name="Save a credential").click()
    dialog(page).get_by_label("Name").fill("pump-house")
    dialog(page).get_by_label("User").fill("operator")
    dialog(page).get_by_label("Password").fill("canary-in-the-mine")
    dialog(page).get_by_role("button", name="Save it").click()
    expect(row(page, "Credentials", "pump-house")).to_contain_text("any gateway")
    assert "canary" not in page.content()
    assert site.call("GET", "/api/credentials")["credentials"][0]["username"] == "operator"
    window.assert_accessible()
    row(page, "Credentials", "pump-house").get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No credentials.")).to_be_visible()


def test_the_audit_log_is_filtered_by_its_address_verified_and_saved(window: Window) -> None:
    page = window.open("/settings/audit?resource_type=session")
    expect(row(page, "Audit log", "session.opened").first).to_be_visible()
    expect(row(page, "Audit log", "user.created")).to_have_count(0)
    page.get_by_label("Kind of thing").fill("user")
    page.keyboard.press("Enter")
    expect(row(page, "Audit log", "user.created").first).to_be_visible()
    assert "resource_type=user" in page.url
    first = row(page, "Audit log", "user.created").last
    first.get_by_text("Show").click()
    expect(first.get_by_text('"hash"')).to_be_visible()
    page.get_by_role("link", name="Audit log").click()
    expect(page.get_by_label("Kind of thing")).to_have_value("")
    page.get_by_role("button", name="Verify").click()
    expect(
        page.get_by_text(re.compile(r"All \d+ entries are as they were written"))
    ).to_be_visible()
    window.assert_accessible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    saved = download.value.path().read_text(encoding="utf-8")
    assert saved.startswith("Number,When,What,Of,By,From\n")
    assert "user.created" in saved


def test_what_an_older_filter_asked_for_is_not_shown_under_a_newer_one(window: Window) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "resource_type=session" in route.request.url:
            held.append(route)
        else:
            route.continue_()

    window.page.route("**/api/v1/audit?*", hold)
    page = window.open("/settings/audit?resource_type=session")
    page.get_by_label("Kind of thing").fill("user")
    page.keyboard.press("Enter")
    expect(row(page, "Audit log", "user.created").first).to_be_visible()
    with page.expect_response(lambda answer: "resource_type=session" in answer.url) as late:
        held[0].continue_()
    late.value.finished()
    page.evaluate(TWO_FRAMES)
    expect(row(page, "Audit log", "user.created").first).to_be_visible()
    expect(row(page, "Audit log", "session.opened")).to_have_count(0)


def test_the_health_of_the_server_and_of_its_books_is_told(window: Window) -> None:
    page = window.open("/settings/health")
    expect(page.get_by_text("healthy")).to_be_visible()
    expect(page.get_by_text("Open leases")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)


def test_a_viewer_sees_their_own_and_may_change_their_password(
    browser: Browser, site: Site
) -> None:
    with window_of(browser, site, site.person("vera", "viewer"), width=380) as window:
        page = window.open("/settings")
        tabs = page.get_by_role("navigation", name="Settings")
        expect(tabs.get_by_role("link")).to_have_text(
            ["Account", "API keys", "Credentials", "Limits", "Health"]
        )
        page.get_by_label("Present password").fill("a quiet evening by the lake")
        page.get_by_label("New password", exact=False).first.fill("a loud morning in town")
        page.get_by_label("New password, again").fill("a loud morning in town")
        page.get_by_role("button", name="Change password").click()
        expect(page.get_by_text("Your password is changed")).to_be_visible()
        assert site.sign_in("vera", "a loud morning in town")["user"]["username"] == "vera"
        window.assert_fits(380)
        tabs.get_by_role("link", name="Credentials").click()
        expect(page.get_by_text("No credentials.")).to_be_visible()
        expect(page.get_by_role("button", name="Save a credential")).to_have_count(0)
        window.open("/settings/people")
        expect(page.get_by_text("Nothing is here for you.")).to_be_visible()
