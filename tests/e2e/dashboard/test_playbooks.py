"""Playbooks: looked for, read, written with their faults at lines, and run from a form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.parts import button, dialog
from tests.e2e.dashboard.site import Site, Window, window_of

WAITING = """\
# What a start form can ask for.
name: Everything Asked
version: "2"
description: Asks for a value of each type
domain: checks
parameters:
  - {name: site, type: string, description: Where to look}
  - {name: pause_s, type: float, required: false, default: 0.5}
  - {name: tries, type: integer, required: false, default: 3, description: How often}
  - {name: deep, type: boolean, required: false, default: true}
  - {name: maybe, type: boolean, required: false}
  - {name: tags, type: list, required: false, default: [a, b]}
  - {name: login, type: credential, required: false}
steps:
  - {id: tell, name: Tell, type: utility.log, parameters: {message: "{{ parameter.site }}"}}
  - {id: nap, name: Nap, type: utility.sleep, when: parameter.deep, parameters: {seconds: 60}}
finally:
  - {id: bye, name: Say Goodbye, type: utility.log, parameters: {message: bye}}
"""
SMALL = """\
name: {name}
version: "1"
steps:
  - {{id: tell, name: Tell, type: utility.log, parameters: {{message: hello}}}}
"""
EMPTIED = """\
name: Emptied
version: "1"
parameters:
  - {name: prefix, type: string, required: false, default: usual}
  - {name: password, type: string, required: false}
steps:
  - {id: tell, name: Tell, type: utility.log, parameters: {message: "{{ parameter.prefix }}"}}
"""
FAULTY = """\
name: Broken
version: "1"
steps:
  - {id: a, name: A, type: utility.lag}
  - {id: a, name: B, type: utility.log, parameters: {mesage: "x"}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's folder of what people made."""
    return tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, str]:
    return {"STEWARD_PLAYBOOKS_FOLDER": str(folder)}


def saved(site: Site, path: str, text: str) -> None:
    site.call("PUT", f"/api/playbooks/{path}", {"text": text})


def source(site: Site, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = site.call("GET", f"/api/playbooks/{path}?source=true")
    return answer


def editor(page: Page) -> Locator:
    return page.get_by_label("Text of the playbook")


def faults(page: Page) -> Locator:
    return page.get_by_role("list", name="Faults").get_by_role("listitem")


def test_the_library_is_searched_and_filtered_in_the_address(window: Window) -> None:
    page = window.open("/playbooks")
    table = page.get_by_role("region", name="Playbooks")
    expect(table.get_by_role("link", name="Inference Smoke Test")).to_be_visible()
    window.assert_accessible()
    page.get_by_label("Domain").select_option("gateway")
    expect(table.get_by_role("link", name="Inference Smoke Test")).to_have_count(0)
    expect(table.get_by_role("link", name="Module Upgrade")).to_be_visible()
    page.get_by_label("Search").fill("HEALTHY")
    expect(table.get_by_role("link")).to_have_count(1)
    assert page.url.endswith("?domain=gateway&search=HEALTHY")
    page.get_by_label("Search").fill("nothing is called so")
    expect(page.get_by_text("No playbook is like that.")).to_be_visible()
    page.get_by_role("link", name="Show all playbooks").click()
    expect(page.get_by_label("Search")).to_have_value("")
    expect(table.get_by_role("link", name="Inference Smoke Test")).to_be_visible()
    window.assert_fits(380)


def test_one_with_slashes_in_its_path_is_shown_with_what_it_asks_for_and_does(
    window: Window,
) -> None:
    page = window.open("/playbooks")
    page.get_by_role("link", name="Inference Smoke Test").click()
    expect(page.get_by_role("heading", name="Inference Smoke Test")).to_be_visible()
    assert page.url.endswith("/playbooks/inference/smoke.yaml")
    expect(page.get_by_text("comes with Steward")).to_be_visible()
    observation = page.get_by_role("region", name="Parameters").get_by_role("row").nth(2)
    expect(observation).to_contain_text("What it sees")
    expect(observation).to_contain_text("[0,0.1,0.02,-0.1]")
    expect(page.get_by_role("region", name="Steps")).to_contain_text("inference.reset")
    expect(editor(page)).to_have_value(re.compile("^# Whether policies are served"))
    expect(page.get_by_text("no faults")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)


def test_the_line_of_a_step_leads_to_it_in_the_text(window: Window, site: Site) -> None:
    saved(site, "checks/lines.yaml", WAITING)
    page = window.open("/playbooks/checks/lines.yaml")
    expect(page.get_by_text("at the end, however that comes")).to_be_visible()
    button(page, "Show line 18").click()
    selected = "e => e.value.slice(e.selectionStart, e.selectionEnd)"
    assert "Say Goodbye" in editor(page).evaluate(selected)


def test_a_new_one_is_begun_corrected_at_its_lines_and_saved(window: Window, site: Site) -> None:
    page = window.open("/playbooks")
    button(page, "New playbook").click()
    dialog(page).get_by_label("Path").fill("checks/begun")
    window.assert_accessible()
    button(dialog(page), "Begin it").click()
    expect(page.get_by_role("heading", name="A new playbook")).to_be_visible()
    assert page.url.endswith("/playbooks/checks/begun.yaml")
    expect(button(page, "Save")).to_be_disabled()

    editor(page).fill(FAULTY)
    expect(faults(page)).to_have_count(3)
    expect(faults(page).first).to_contain_text("line 4, column 28")
    expect(faults(page).first).to_contain_text("did you mean 'utility.log'?")
    window.assert_accessible()
    button(page, "Save").click()
    expect(page.get_by_role("alert")).to_contain_text("It is not saved")
    assert source(site, "checks/begun.yaml")["text"].startswith("name: A new playbook")
    faults(page).first.get_by_role("button").click()
    expect(editor(page)).to_be_focused()
    line = editor(page).evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)")
    assert line == "  - {id: a, name: A, type: utility.lag}"

    editor(page).fill(SMALL.format(name="Mended"))
    expect(faults(page)).to_have_count(0)
    button(page, "Save").click()
    expect(page.get_by_role("heading", name="Mended")).to_be_visible()
    assert source(site, "checks/begun.yaml")["text"] == SMALL.format(name="Mended")
    window.faults.clear()  # the browser's own line about the 400


def test_nothing_is_begun_where_something_is(window: Window, site: Site) -> None:
    saved(site, "checks/taken.yaml", SMALL.format(name="Taken"))
    page = window.open("/playbooks")
    button(page, "New playbook").click()
    dialog(page).get_by_label("Path").fill("checks/taken.yaml")
    button(dialog(page), "Begin it").click()
    expect(dialog(page).get_by_text("checks/taken.yaml is there already")).to_be_visible()
    expect(dialog(page).get_by_label("Path")).to_be_focused()
    assert source(site, "checks/taken.yaml")["text"] == SMALL.format(name="Taken")
    window.faults.clear()  # the browser's own line about the 409


def test_what_somebody_else_saved_meanwhile_is_not_overwritten(window: Window, site: Site) -> None:
    path = "checks/contested.yaml"
    saved(site, path, SMALL.format(name="Mine"))
    page = window.open(f"/playbooks/{path}")
    editor(page).fill(SMALL.format(name="Mine, later"))
    saved(site, path, SMALL.format(name="Theirs"))
    button(page, "Save").click()
    expect(page.get_by_text("Somebody else has saved it meanwhile.")).to_be_visible()
    expect(editor(page)).to_have_value(SMALL.format(name="Mine, later"))
    assert source(site, path)["text"] == SMALL.format(name="Theirs")
    button(page, "Discard changes").click()
    expect(editor(page)).to_have_value(SMALL.format(name="Theirs"))
    window.faults.clear()  # the browser's own line about the 409


def test_what_is_not_saved_yet_is_there_again_after_a_look_elsewhere(
    window: Window, site: Site
) -> None:
    saved(site, "checks/draft.yaml", SMALL.format(name="Draft"))
    page = window.open("/playbooks/checks/draft.yaml")
    editor(page).fill(SMALL.format(name="Half a thought"))
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    page.go_back()
    expect(editor(page)).to_have_value(SMALL.format(name="Half a thought"))
    button(page, "Discard changes").click()
    expect(editor(page)).to_have_value(SMALL.format(name="Draft"))


def test_what_is_not_saved_yet_overwrites_nothing_that_was_saved_during_a_look_elsewhere(
    window: Window, site: Site
) -> None:
    path = "checks/left_alone.yaml"
    saved(site, path, SMALL.format(name="Begun"))
    page = window.open(f"/playbooks/{path}")
    editor(page).fill(SMALL.format(name="Mine"))
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    saved(site, path, SMALL.format(name="Theirs"))
    page.go_back()
    expect(page.get_by_text("Somebody else has saved it meanwhile.")).to_be_visible()
    expect(editor(page)).to_have_value(SMALL.format(name="Mine"))
    button(page, "Save").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert source(site, path)["text"] == SMALL.format(name="Theirs")
    window.faults.clear()  # the browser's own line about the 409


def test_one_that_comes_with_steward_is_changed_into_ones_own_and_back(
    window: Window, site: Site
) -> None:
    path = "web/page_check.yaml"
    page = window.open(f"/playbooks/{path}")
    expect(button(page, "Delete")).to_have_count(0)
    editor(page).fill(SMALL.format(name="Our Check"))
    button(page, "Save as your own").click()
    expect(page.get_by_role("heading", name="Our Check")).to_be_visible()
    assert source(site, path)["origin"] == "user"
    button(page, "Delete").click()
    button(dialog(page), "Delete").click()
    expect(page.get_by_role("heading", name="Playbooks")).to_be_visible()
    assert source(site, path)["origin"] == "built_in"


def test_a_copy_has_another_name_and_one_that_names_nothing_is_refused(
    window: Window, site: Site
) -> None:
    page = window.open("/playbooks/inference/smoke.yaml")
    button(page, "Duplicate").click()
    dialog(page).get_by_label("Name of the copy").fill("---")
    button(dialog(page), "Duplicate it").click()
    expect(dialog(page).get_by_text("must have a letter or a digit")).to_be_visible()
    dialog(page).get_by_label("Name of the copy").fill("Our Smoke")
    button(dialog(page), "Duplicate it").click()
    expect(page.get_by_role("heading", name="Our Smoke")).to_be_visible()
    assert page.url.endswith("/playbooks/inference/our-smoke.yaml")
    assert source(site, "inference/our-smoke.yaml")["origin"] == "user"
    window.faults.clear()  # the browser's own line about the refusal


def test_one_that_was_put_there_with_faults_tells_them_and_cannot_be_run(
    window: Window, browser: Browser, site: Site, folder: Path
) -> None:
    (folder / "broken.yaml").write_text(FAULTY, encoding="utf-8")
    page = window.open("/playbooks?search=broken")
    row = page.get_by_role("row").filter(has_text="Broken")
    expect(row).to_contain_text("3 faults")
    expect(row).to_contain_text("there is no type of step 'utility.lag'")
    page.get_by_role("link", name="Broken").click()
    expect(page.get_by_text("cannot be run")).to_be_visible()
    expect(faults(page)).to_have_count(3)
    expect(button(page, "Run")).to_have_count(0)
    window.assert_accessible()
    with window_of(browser, site, site.person("reader", "viewer")) as reader:
        page = reader.open("/playbooks/broken.yaml")
        expect(page.get_by_role("alert")).to_contain_text("line 5, column 54")
        expect(editor(page)).to_have_count(0)
        reader.faults.clear()  # the browser's own line about the 400
    window.faults.clear()


def test_a_run_is_started_from_the_form_that_its_parameters_make(
    window: Window, site: Site
) -> None:
    saved(site, "checks/asked.yaml", WAITING)
    wish = {"name": "plant-2", "username": "op", "password": "pw-for-plant-2"}
    site.call("POST", "/api/credentials", {**wish, "gateway_url": "http://localhost:8088"})
    page = window.open("/playbooks/checks/asked.yaml")
    button(page, "Run").click()
    form = dialog(page)
    expect(form.get_by_label("tries")).to_have_value("3")
    expect(form.get_by_label("deep")).to_be_checked()
    expect(form.get_by_label("tags")).to_have_value('["a","b"]')
    form.get_by_label("login").select_option("plant-2")
    window.assert_accessible()
    button(form, "Start it").click()
    assert form.get_by_label("site").evaluate("e => e.validity.valueMissing")

    form.get_by_label("site").fill("Hall 3")
    form.get_by_label("tries").fill("1.5")
    form.get_by_label("tags").fill("no list")
    button(form, "Start it").click()
    expect(form.get_by_text("parameter 'tags' must be a list, not text")).to_be_visible()
    expect(form.get_by_label("tries")).to_have_attribute("aria-invalid", "true")
    expect(form.get_by_label("tries")).to_be_focused()
    window.assert_accessible()

    form.get_by_label("tries").fill("2")
    form.get_by_label("tags").fill('["x", 1]')
    form.get_by_label("maybe").select_option("no")
    form.get_by_label("Debug mode").check()
    button(form, "Start it").click()
    page.wait_for_url(re.compile("/executions/"))
    expect(page.get_by_role("heading", name="Everything Asked", exact=True)).to_be_visible()
    run = site.call("GET", f"/api/executions/{page.url.rsplit('/', 1)[1]}")
    assert run["debug_mode"] is True
    asked = {"site": "Hall 3", "pause_s": 0.5, "tries": 2, "deep": True, "maybe": False}
    given = {name: run["parameters"][name] for name in asked}
    assert given == asked
    assert run["parameters"]["tags"] == ["x", 1]
    site.call("POST", f"/api/executions/{run['execution_id']}/cancel", {})
    window.faults.clear()  # the browser's own line about the 400


def test_a_text_that_is_emptied_is_no_default_and_a_password_is_not_shown(
    window: Window, site: Site
) -> None:
    saved(site, "checks/emptied.yaml", EMPTIED)
    page = window.open("/playbooks/checks/emptied.yaml")
    button(page, "Run").click()
    expect(dialog(page).get_by_label("password")).to_have_attribute("type", "password")
    dialog(page).get_by_label("prefix").fill("")
    dialog(page).get_by_label("password").fill("not-for-all-to-see")
    button(dialog(page), "Start it").click()
    page.wait_for_url(re.compile("/executions/"))
    run = site.call("GET", f"/api/executions/{page.url.rsplit('/', 1)[1]}")
    assert run["parameters"]["prefix"] == ""


def test_its_runs_are_one_link_away(window: Window, site: Site) -> None:
    saved(site, "checks/counted.yaml", SMALL.format(name="Counted"))
    site.call("POST", "/api/executions", {"playbook_path": "checks/counted.yaml"})
    site.call("POST", "/api/executions", {"playbook_path": "inference/smoke.yaml"})
    page = window.open("/playbooks/checks/counted.yaml")
    page.get_by_role("link", name="Its runs").click()
    table = page.get_by_role("region", name="Runs")
    expect(table.get_by_role("link", name="Counted")).to_be_visible()
    expect(table.get_by_role("link", name="Inference Smoke Test")).to_have_count(0)


def test_one_that_is_not_there_leads_back_to_the_library(window: Window) -> None:
    page = window.open("/playbooks/no/such.yaml")
    expect(page.get_by_role("alert")).to_contain_text("not found")
    expect(button(page, "Run")).to_have_count(0)
    expect(editor(page)).to_have_count(0)
    page.get_by_role("link", name="Playbooks").last.click()
    expect(page.get_by_role("heading", name="Playbooks")).to_be_visible()
    window.faults.clear()  # the browser's own lines about the 404


def test_a_viewer_reads_what_there_is_and_changes_nothing(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("onlooker", "viewer")) as window:
        page = window.open("/playbooks")
        page.get_by_role("link", name="Inference Smoke Test").wait_for()
        expect(button(page, "New playbook")).to_have_count(0)
        page.get_by_role("link", name="Inference Smoke Test").click()
        expect(page.get_by_role("region", name="Steps")).to_contain_text("Begin Anew")
        for name in ("Run", "Duplicate", "Delete", "Save"):
            expect(button(page, name)).to_have_count(0)
        expect(editor(page)).to_have_count(0)
        window.assert_accessible()


def test_a_user_runs_and_writes(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("writer", "user")) as window:
        page = window.open("/playbooks/inference/smoke.yaml")
        expect(editor(page)).to_be_visible()
        button(page, "Run").click()
        button(dialog(page), "Start it").click()
        page.wait_for_url(re.compile("/executions/"))
        expect(page.locator("main .head").first).to_contain_text("completed")


def test_a_dialog_is_opened_filled_and_left_by_keys(window: Window) -> None:
    page = window.open("/playbooks/inference/smoke.yaml")
    button(page, "Run").focus()
    page.keyboard.press("Enter")
    expect(dialog(page).get_by_label("policy")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)
    expect(button(page, "Run")).to_be_focused()
