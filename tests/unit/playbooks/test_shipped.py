"""The playbooks that come with Steward."""

from __future__ import annotations

from pathlib import Path

import pytest

from steward_server.playbooks.catalogue.forms import Need
from steward_server.playbooks.checking import load, needs
from steward_server.playbooks.folders import SHIPPED, Folders, check_file
from steward_server.playbooks.planning import Will, plan
from steward_server.playbooks.playbook import Playbook
from steward_server.playbooks.starting import autofilled, start_values

FILES = sorted(SHIPPED.rglob("*.yaml"))
LIBRARY = Folders([SHIPPED])


def shipped(path: str) -> Playbook:
    found = LIBRARY.find(path)
    assert found is not None
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_well_and_says_what_it_is_for(file: Path) -> None:
    assert check_file(file, SHIPPED) == ()
    playbook = load(file.read_bytes())
    assert playbook.description
    assert playbook.domain
    assert all(each.description for each in playbook.parameters)
    assert all(each.timeout_s for each in playbook.steps if needs(playbook) and each.type in _SLOW)


_SLOW = ("gateway.login", "browser.navigate", "environment.exec")


def test_there_are_as_many_as_are_promised() -> None:
    paths = [file.relative_to(SHIPPED).as_posix() for file in FILES]
    assert {"gateway/health_check.yaml", "gateway/module_upgrade.yaml"} <= {*paths}
    assert len(paths) >= 7


def test_the_health_check_needs_nothing_but_a_gateway() -> None:
    playbook = shipped("gateway/health_check.yaml")
    assert start_values(playbook, {}) == {}
    assert needs(playbook, LIBRARY) == {Need.GATEWAY}
    assert all(each.is_read_only for each in plan(playbook, {}, LIBRARY).steps)


def test_the_module_upgrade_starts_with_what_the_guide_sends() -> None:
    playbook = shipped("gateway/module_upgrade.yaml")
    given = autofilled(
        playbook,
        {"module_path": "/path/to/module.modl"},
        gateway_url="http://localhost:8088",
        credential="my-gateway",
    )
    assert start_values(playbook, given) == {
        "module_path": "/path/to/module.modl",
        "gateway_url": "http://localhost:8088",
        "restart": False,
        "accept_terms": False,
    }
    first = playbook.parameters[0]
    assert (first.name, first.type, first.required, first.description) == (
        "gateway_url",
        "string",
        True,
        "Gateway base URL",
    )
    login = playbook.steps[0]
    assert (login.id, login.name, login.type) == ("login", "Login to Gateway", "gateway.login")
    assert (playbook.name, playbook.version) == ("Module Upgrade", "1.0")
    assert playbook.description == "Upgrade modules on a gateway"


def test_a_restart_asks_first_unless_it_is_told_not_to() -> None:
    playbook = shipped("gateway/restart_and_wait.yaml")
    asking = plan(playbook, {"reason": "new licence"}, LIBRARY)
    assert {each.id: each.will for each in asking.steps}["approval"] is Will.RUN
    child = asking.steps[-1].child
    assert child is not None
    assert child.name == "Gateway Health Check"
    at_once = plan(playbook, {"reason": "new licence", "ask_first": False}, LIBRARY)
    assert {each.id: each.will for each in at_once.steps}["approval"] is Will.SKIP


def test_a_page_is_checked_for_a_text_only_if_there_is_one() -> None:
    playbook = shipped("web/page_check.yaml")
    assert plan(playbook, {"url": "http://a"}).steps[2].will is Will.SKIP
    text = plan(playbook, {"url": "http://a", "text": "hello"}).steps[2]
    assert (text.will, text.parameters["text"]) == (Will.RUN, "hello")


def test_a_sandbox_is_deleted_whatever_happens() -> None:
    playbook = shipped("sandbox/run_tests.yaml")
    (remove,) = plan(playbook, {}).finally_
    assert (remove.type, remove.attempts) == ("environment.delete", 5)
    tests = plan(playbook, {"command": ["pytest"], "timeout_s": 60}).steps[2]
    assert (tests.parameters["command"], tests.parameters["timeout"]) == (["pytest"], 60)


def test_a_person_is_asked_only_when_money_is_short() -> None:
    made = plan(shipped("agents/budget_guard.yaml"), {"agent_id": "a"})
    assert [each.will for each in made.steps] == [Will.RUN, Will.DEPEND, Will.RUN]


def test_policies_are_tried_with_the_one_that_ships() -> None:
    made = plan(shipped("inference/smoke.yaml"), {})
    assert made.parameters["policy"] == "cartpole"
    assert made.steps[1].parameters["observation"] == [0.0, 0.1, 0.02, -0.1]


def test_a_link_out_of_the_library_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_bytes(FILES[0].read_bytes())
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    folders = Folders([tmp_path / "library"])
    assert folders.find("link.yaml") is None
    assert folders.find("../secret.yaml") is None
    assert folders.find(str(tmp_path / "secret.yaml")) is None


def test_a_folder_of_ones_own_comes_before_what_ships(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    mine = FILES[0].read_text().replace("name: Budget Guard", "name: Mine")
    (tmp_path / "gateway" / "health_check.yaml").write_text(mine)
    found = Folders([tmp_path, SHIPPED]).find("gateway/health_check.yaml")
    assert found is not None
    assert found.name == "Mine"
