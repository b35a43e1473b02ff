"""Inference: policies, who steps with them and how fast, and a pole that one balances."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.parts import button, row
from tests.e2e.dashboard.site import Site, Window, window_of


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One policy of the server's own folder cannot be served."""
    folder: Path = tmp_path_factory.mktemp("policies")
    version = folder / "crooked" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"this is no model")
    (version / "policy.yaml").write_text("obs_dim: many\n", encoding="utf-8")
    return {"STEWARD_INFERENCE_FOLDER": str(folder)}


def begun(site: Site, agent_id: str, policy: str, steps: int = 0) -> None:
    """Let an agent of the administrator's step."""
    site.call("POST", "/reset", {"agent_id": agent_id, "policy": policy})
    seen = {"cartpole": [0, 0, 0, 0.1], "cartpole-memory": [0.01, 0.02], "pendulum": [1, 0, 0]}
    for _ in range(steps):
        site.call("POST", "/step", {"agent_id": agent_id, "observation": seen[policy]})


def agents(site: Site, policy: str = "") -> list[dict[str, Any]]:
    answer = site.call("GET", f"/api/v1/inference/agents?policy={policy}")
    found: list[dict[str, Any]] = answer["agents"]
    return found


def is_loaded(site: Site, policy: str) -> bool:
    found = site.call("GET", f"/api/v1/policies/{policy}")
    loaded: bool = found["versions"][0]["is_loaded"]
    return loaded


def figure(page: Page, name: str) -> Locator:
    return page.locator(".figure").filter(has_text=name).locator(".value")


def test_the_policies_are_shown_with_what_they_take_and_give(window: Window) -> None:
    page = window.open("/inference")
    expect(row(page, "Policies", "cartpole@1")).to_contain_text("default")
    expect(row(page, "Policies", "cartpole@1")).to_contain_text("4 numbers")
    expect(row(page, "Policies", "cartpole@1")).to_contain_text("1 of 2 choices")
    expect(row(page, "Policies", "pendulum@1")).to_contain_text("serving")
    expect(row(page, "Policies", "crooked@1")).to_contain_text("failed")
    expect(figure(page, "Steps a second")).to_have_text(re.compile(r"\d"))
    window.assert_accessible()
    window.assert_fits(380)


def test_the_first_figure_of_a_chart_stands_in_its_middle(window: Window) -> None:
    page = window.page
    looks = iter(range(2))
    page.route("**/metrics", lambda route: None if next(looks, None) is None else route.continue_())
    window.open("/inference")
    expect(page.locator("figcaption")).to_have_text(re.compile(r"last: .*\d"))
    drawn, point = page.locator(".u-over"), page.locator(".u-cursor-pt")
    drawn.hover()
    expect(point).to_be_visible()
    around, at = drawn.bounding_box(), point.bounding_box()
    assert around is not None
    assert at is not None
    middle_px = around["x"] + around["width"] / 2
    assert abs(at["x"] + at["width"] / 2 - middle_px) < 3


def test_one_that_cannot_be_served_says_why(window: Window) -> None:
    page = window.open("/inference")
    button(row(page, "Policies", "crooked@1"), "Load").click()
    expect(row(page, "Policies", "crooked@1").get_by_role("alert")).to_contain_text("obs_dim")
    window.faults.clear()  # the browser's own line about the refusal


def test_a_policy_is_unloaded_after_a_question_and_loaded_again(window: Window, site: Site) -> None:
    begun(site, "fan", "pendulum", steps=1)
    page = window.open("/inference")
    button(row(page, "Policies", "pendulum@1"), "Unload").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 session ends")
    window.assert_accessible()
    button(dialog, "Unload").click()
    expect(row(page, "Policies", "pendulum@1")).to_contain_text("not loaded")
    assert not is_loaded(site, "pendulum")
    assert agents(site, "pendulum") == []
    button(row(page, "Policies", "pendulum@1"), "Load").click()
    expect(row(page, "Policies", "pendulum@1")).to_contain_text("serving")
    assert is_loaded(site, "pendulum")


def test_one_policy_has_a_page_with_what_it_keeps(window: Window, site: Site) -> None:
    begun(site, "rememberer", "cartpole-memory", steps=2)
    begun(site, "forgetter", "cartpole", steps=1)
    page = window.open("/inference")
    row(page, "Policies", "cartpole-memory@1").get_by_role("link").click()
    expect(page.get_by_role("heading", name="cartpole-memory")).to_be_visible()
    expect(page.get_by_text(re.compile("memory 32 . 32"))).to_be_visible()
    expect(page.get_by_text("How much of the memory is in use", exact=False)).to_be_visible()
    expect(row(page, "Sessions", "rememberer")).to_be_visible()
    expect(row(page, "Sessions", "forgetter")).to_have_count(0)
    window.assert_accessible()
    window.assert_fits(380)


def test_sessions_show_their_pressure_the_highest_first(window: Window, site: Site) -> None:
    begun(site, "full", "cartpole-memory", steps=9)
    begun(site, "empty", "cartpole-memory", steps=1)
    by_id = {each["agent_id"]: each for each in agents(site)}
    page = window.open("/inference")
    for name in ("full", "empty"):
        pressure = f"{by_id[name]['pressure']:.3f}"
        expect(row(page, "Sessions", name)).to_contain_text(pressure)
        expect(row(page, "Sessions", name)).to_contain_text("you")
    ids = page.get_by_role("region", name="Sessions").locator("td:first-child")
    shown = ids.all_inner_texts()
    assert shown.index("full") < shown.index("empty")
    page.get_by_label("Which first").select_option("last_step")
    expect(ids.first).to_have_text("empty")
    window.assert_accessible()


def test_a_session_is_ended_by_whose_it_is_alone(
    window: Window, browser: Browser, site: Site
) -> None:
    begun(site, "ending", "cartpole", steps=1)
    stepper = site.person("stepper", "user")
    wish = {"agent_id": "theirs", "policy": "cartpole"}
    site.call("POST", "/reset", wish, token=stepper["access_token"])
    page = window.open("/inference")
    expect(row(page, "Sessions", "theirs")).to_be_visible()
    expect(button(row(page, "Sessions", "theirs"), "End")).to_have_count(0)
    button(row(page, "Sessions", "ending"), "End").click()
    button(page.get_by_role("dialog"), "End").click()
    expect(row(page, "Sessions", "ending")).to_have_count(0)
    assert "ending" not in [each["agent_id"] for each in agents(site)]
    with window_of(browser, site, stepper) as theirs:
        page = theirs.open("/inference")
        expect(row(page, "Sessions", "theirs")).to_be_visible()
        expect(page.get_by_role("region", name="Sessions").get_by_role("row")).to_have_count(2)
        expect(button(page, "Unload")).to_have_count(0)
        expect(button(page, "Let it run")).to_be_visible()


def test_whether_to_end_a_session_is_asked_for_as_long_as_it_takes_though_its_row_has_gone(
    window: Window, site: Site
) -> None:
    begun(site, "gone-before", "cartpole", steps=1)
    page = window.open("/inference")
    button(row(page, "Sessions", "gone-before"), "End").click()
    question = page.get_by_role("dialog")
    site.end("/api/v1/inference/agents/gone-before")
    expect(page.locator("tr").filter(has_text="gone-before")).to_have_count(0)
    button(question, "End").click()
    expect(question.get_by_role("alert")).to_be_visible()
    window.faults.clear()  # the browser's own line about the 404


def test_the_cartpole_is_started_and_stopped_by_keys_and_the_figures_move(
    window: Window, site: Site
) -> None:
    page = window.open("/inference")
    pole = page.locator(".cartpole .pole")
    score = page.locator(".score")
    expect(page.get_by_text("It stands still.")).to_be_visible()
    expect(button(page, "Push it left")).to_be_disabled()
    stood = pole.get_attribute("x2")
    page.get_by_role("button", name="Let it run").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("It is balanced.")).to_be_visible()
    expect(score).to_have_text(re.compile(r"^[1-9]\d+ steps"))
    assert pole.get_attribute("x2") != stood
    streams = [each for each in agents(site, "cartpole") if not each["agent_id"]]
    assert len(streams) == 1
    assert streams[0]["step_count"] > 0
    expect(row(page, "Sessions", "of a stream")).to_be_visible()
    expect(figure(page, "Steps a second")).to_have_text(re.compile(r"^[1-9]"))
    expect(figure(page, "Latency of a step")).to_have_text(re.compile(r" ms$"))
    expect(figure(page, "Batch size")).to_have_text("1")
    page.get_by_label("Figure").select_option("latency")
    expect(page.locator(".chart figcaption")).to_have_text(re.compile("last: Latency .* ms$"))
    window.assert_accessible()

    expect(button(page, "Stop it")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_text("It stands still.")).to_be_visible()
    expect(row(page, "Sessions", "of a stream")).to_have_count(0)
    assert [each for each in agents(site, "cartpole") if not each["agent_id"]] == []


def test_a_push_is_answered_and_another_policy_balances_it_from_memory(window: Window) -> None:
    page = window.open("/inference")
    score = page.locator(".score")
    page.get_by_label("Policy that balances it").select_option("cartpole-memory")
    button(page, "Let it run").click()
    expect(score).to_have_text(re.compile(r"pressure 0\.\d\d\d$"))
    harder_than_it_can_answer = "b => { for (let i = 0; i < 8; i++) b.click(); }"
    button(page, "Push it right").evaluate(harder_than_it_can_answer)
    expect(score).not_to_contain_text("fallen 0 times")
    button(page, "Stop it").click()


def test_who_is_refused_a_stream_is_told_so(window: Window, site: Site) -> None:
    page = window.open("/inference")
    expect(button(page, "Let it run")).to_be_visible()
    page.route_web_socket("**/stream", lambda socket: socket.on_message(_refuse(socket)))
    button(page, "Let it run").click()
    expect(page.get_by_text("It was refused: no room for another agent")).to_be_visible()
    expect(button(page, "Let it run")).to_be_visible()


def _refuse(socket: Any) -> Any:
    return lambda _: socket.send('{"error": "no room for another agent"}')


def test_a_viewer_sees_policies_and_figures_and_no_switches(browser: Browser, site: Site) -> None:
    begun(site, "unseen", "cartpole", steps=1)
    with window_of(browser, site, site.person("beholder", "viewer")) as window:
        page = window.open("/inference")
        expect(row(page, "Policies", "cartpole@1")).to_be_visible()
        expect(page.get_by_text("No agent steps now.")).to_be_visible()
        expect(page.get_by_text("unseen")).to_have_count(0)
        for name in ("Load", "Unload", "End", "Let it run"):
            expect(button(page, name)).to_have_count(0)
        window.assert_accessible()


def test_a_policy_that_is_not_there_leads_back(window: Window) -> None:
    page = window.open("/inference/nobody")
    expect(page.get_by_text("No policy is called nobody.")).to_be_visible()
    page.get_by_role("link", name="Show all policies").click()
    expect(row(page, "Policies", "cartpole@1")).to_be_visible()
