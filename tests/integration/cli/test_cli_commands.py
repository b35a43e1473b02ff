"""What commands print and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from decimal import Decimal
from pathlib import Path

import pytest

from steward_client.cli.output import dollars
from tests.integration.cli.conftest import Shell
from tests.live import ADMIN_PASSWORD, ServerProcess

KEY = "sk-live-canary-0123456789abcdef"


async def test_a_sign_in_is_kept_in_a_file_only_its_owner_can_read(stranger: Shell) -> None:
    shell = await stranger.sign_in()
    files = list(shell.home.iterdir())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}

    assert stat.S_IMODE(shell.home.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert (await shell("agents", "list")).code == 0
    assert ADMIN_PASSWORD not in "".join(path.read_text() for path in files)


async def test_the_server_signed_in_to_last_is_called_where_none_is_named(shell: Shell) -> None:
    listed = await shell("agents", "list", "--json", STEWARD_SERVER="")

    assert (listed.code, listed.err) == (0, "")


async def test_login_prints_who_signed_in_and_no_secret(stranger: Shell) -> None:
    ended = await stranger(
        "login", "--user", "admin", "--password-stdin", "--json", stdin=f"{ADMIN_PASSWORD}\n"
    )

    assert ended.json["user"] == "admin"
    assert ended.json["role"] == "admin"
    assert set(ended.json) == {"server", "user", "role", "id"}


async def test_a_wrong_password_ends_with_3(stranger: Shell) -> None:
    ended = await stranger("login", "--user", "nobody", "--password-stdin", stdin="guess")

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("Error: ")
    assert len(ended.err.splitlines()) == 1


async def test_login_without_a_terminal_says_how(stranger: Shell) -> None:
    ended = await stranger("login", "--user", "admin")

    assert ended.code == 2
    assert "--password-stdin" in ended.err


async def test_who_has_not_signed_in_is_told_to(stranger: Shell) -> None:
    ended = await stranger("agents", "list")

    assert (ended.code, ended.out) == (3, "")
    assert "steward login" in ended.err


async def test_after_logout_the_sign_in_is_gone(stranger: Shell) -> None:
    shell = await stranger.sign_in()
    out = await shell("logout")
    again = await shell("logout")

    assert out.code == again.code == 0
    assert "not signed in" in again.err
    assert (await shell("agents", "list")).code == 3


async def test_an_agent_is_created_shown_changed_and_deleted(shell: Shell) -> None:
    made = await shell("agents", "create", "scout-1", "--budget", "$2.000000001", "--json")
    agent_id = made.json["id"]
    shown = await shell("agents", "show", "scout-1")
    changed = await shell("agents", "update", agent_id, "--budget", "3", "--json")
    stopped = await shell("agents", "stop", agent_id, "--json")
    started = await shell("agents", "start", agent_id, "--json")
    deleted = await shell("agents", "delete", agent_id)
    gone = await shell("agents", "show", agent_id)

    assert '"limit_usd": 2.000000001' in made.out
    assert made.json["created_at"].endswith("Z")
    assert "$2.000000001" in shown.out
    assert changed.json["budget"]["limit_usd"] == 3
    assert stopped.json == {"agent_id": agent_id, "status": "stopping"}
    assert started.json == {"agent_id": agent_id, "status": "idle"}
    assert (deleted.code, deleted.out) == (0, "")
    assert gone.code == 5
    assert agent_id in gone.err


WHY = "The crawl has grown to twice its size."


async def test_a_budget_is_asked_for_granted_and_looked_back_on(shell: Shell) -> None:
    await shell("agents", "create", "scout-b", "--budget", "5")
    ask = ("budget", "request", "scout-b", "$8", "-m", WHY)
    made = await shell(*ask, "--for", "2h", "--json")
    granted = await shell("budget", "approve", made.json["id"], "--budget", "7", "--for", "1h")
    again = await shell("budget", "approve", made.json["id"])
    listed = await shell("budget", "requests", "--agent", "scout-b")
    history = await shell("budget", "history", "scout-b")
    told = await shell("budget", "history", "scout-b", "--json")

    assert (made.json["status"], made.json["expires_in_s"]) == ("pending", 7_200)
    assert (granted.code, granted.err) == (0, "")
    assert "$7.00, until" in granted.out
    assert again.code == 6
    assert "was approved by" in again.err
    assert listed.out.splitlines()[-1].split()[1:6] == [
        "scout-b",
        "approved",
        "$5.00",
        "$8.00",
        "$7.00",
    ]
    assert "raised" in history.out
    assert told.json["summary"]["current_budget_usd"] == 7
    assert [each["change_usd"] for each in told.json["changes"]] == [2]


async def test_a_request_is_rejected_or_cancelled(shell: Shell) -> None:
    await shell("agents", "create", "scout-c", "--budget", "5")
    ask = ("budget", "request", "scout-c", "8", "-m", WHY, "--json")
    one, two = (await shell(*ask)).json["id"], (await shell(*ask)).json["id"]
    rejected = await shell("budget", "reject", one, "--reason", "There is none left to give.")
    cancelled = await shell("budget", "cancel", two)
    pending = await shell(
        "budget", "requests", "--agent", "scout-c", "--status", "pending", "--json"
    )

    assert "There is none left to give." in rejected.out
    assert (cancelled.code, cancelled.out) == (0, "")
    assert two in cancelled.err
    assert pending.json == []


async def test_a_request_that_asks_for_nothing_new_ends_with_2(shell: Shell) -> None:
    await shell("agents", "create", "scout-d", "--budget", "5")
    same = await shell("budget", "request", "scout-d", "5", "-m", WHY)
    vague = await shell("budget", "request", "scout-d", "8", "-m", WHY, "--for", "soon")

    assert (same.code, vague.code) == (2, 2)
    assert "ask for more" in same.err
    assert "say 90s, 45m, 2h or 7d" in vague.err


async def test_quiet_prints_what_a_script_needs_and_nothing_else(shell: Shell) -> None:
    agent = await shell("agents", "create", "scout-2", "--budget", "1", "-q")
    token = await shell("tokens", "create", agent.out.strip(), "-q")

    assert agent.out == f"{agent.out.strip()}\n"
    assert token.out == f"{token.out.strip()}\n"
    assert " " not in token.out
    assert token.err == ""


async def test_a_token_is_created_rotated_listed_and_revoked(shell: Shell) -> None:
    await shell("agents", "create", "scout-3", "--budget", "1")
    made = await shell("tokens", "create", "scout-3", "--name", "ci", "--json")
    second = await shell("tokens", "create", "scout-3")
    rotated = await shell("tokens", "rotate", made.json["id"], "--json")
    listed = await shell("tokens", "list", "--agent", "scout-3", "--json")
    revoked = await shell("tokens", "revoke", made.json["id"])
    again = await shell("tokens", "revoke", made.json["id"])

    assert second.code == 6
    assert rotated.json["token"] not in ("", made.json["token"])
    assert [(each["name"], each["token"]) for each in listed.json] == [("ci", "")]
    assert revoked.code == 0
    assert again.code == 6


async def test_a_credentials_password_comes_from_stdin_or_a_variable_only(shell: Shell) -> None:
    save = ("credential", "save", "my-gateway", "--username", "admin")
    where = ("--gateway-url", "http://localhost:8088", "--description", "Local")
    one = await shell(*save, *where, "--password-stdin", stdin=f"{KEY}\n")
    listed = await shell("credential", "list", "--json")
    again = await shell(*save, "--password-env", "THE_PASSWORD", THE_PASSWORD=KEY)
    replaced = await shell("credential", "list")
    none = await shell(*save)
    both = await shell(*save, "--password-stdin", "--password-env", "THE_PASSWORD", stdin=KEY)
    as_argument = await shell(*save, "--password", KEY)
    wrong = await shell(
        "credential", "save", "my gateway", *save[3:], "--password-stdin", stdin=KEY
    )
    deleted = await shell("credential", "delete", "my-gateway")
    gone = await shell("credential", "delete", "my-gateway")

    assert (one.code, listed.code, again.code, deleted.code) == (0, 0, 0, 0)
    assert listed.json == [
        {
            "name": "my-gateway",
            "username": "admin",
            "gateway_url": "http://localhost:8088",
            "description": "Local",
        }
    ]
    assert "my-gateway" in replaced.out
    assert "8088" not in replaced.out
    assert (none.code, both.code, as_argument.code) == (2, 2, 2)
    assert "no terminal" in none.err
    assert "name" in wrong.err
    assert "Credential 'my-gateway' not found" in gone.err
    assert (wrong.code, gone.code) == (2, 5)
    assert KEY not in "".join(each.out + each.err for each in (one, listed, again, replaced, wrong))


async def test_a_providers_key_comes_from_stdin_or_a_variable_only(shell: Shell) -> None:
    address = ("--kind", "openai", "--base-url", "http://127.0.0.1:9/v1")
    one = await shell("providers", "add", "one", *address, "--key-stdin", "--json", stdin=KEY)
    two = await shell("providers", "add", "two", *address, "--key-env", "THE_KEY", THE_KEY=KEY)
    none = await shell("providers", "add", "three", *address)
    unset = await shell("providers", "add", "three", *address, "--key-env", "NO_SUCH")
    twice = await shell("providers", "add", "one", *address, "--key-stdin", stdin=KEY)
    listed = await shell("providers", "list")
    deleted = await shell("providers", "delete", one.json["id"])

    assert (one.code, two.code, deleted.code) == (0, 0, 0)
    assert (none.code, unset.code, twice.code) == (2, 2, 6)
    assert "NO_SUCH" in unset.err
    assert KEY not in one.out + two.out + listed.out
    assert "one" in listed.out
    assert "two" in listed.out


async def test_budgets_add_up(shell: Shell) -> None:
    await shell("agents", "create", "scout-4", "--budget", "1.5")
    one = await shell("budget", "show", "scout-4", "--json")
    every = await shell("budget", "show", "--json")
    table = await shell("budget", "show")

    shown = dict(one.json)
    assert [each["scope"].partition(":")[0] for each in shown.pop("path")] == [
        "agent",
        "organisation",
    ]
    assert shown["available_usd"] == 1.5
    assert {each["name"]: each["budget"] for each in every.json}["scout-4"] == shown
    limits = [Decimal(str(each["budget"]["limit_usd"])) for each in every.json]
    assert table.out.splitlines()[-1].split()[:2] == ["total", dollars(sum(limits, Decimal(0)))]


async def test_a_project_is_created_shared_shown_changed_and_deleted(shell: Shell) -> None:
    made = await shell(
        *("projects", "create", "shared-1", "--budget", "5", "--period", "month", "--json")
    )
    agent = await shell(
        *("agents", "create", "scout-5", "--budget", "9", "--project", "shared-1"),
        *("--period", "day", "--json"),
    )
    shown = await shell("projects", "show", "shared-1", "--json")
    path = await shell("budget", "show", "scout-5")
    listed = await shell("projects", "list")
    changed = await shell("projects", "update", "shared-1", "--unlimited", "--json")
    in_use = await shell("projects", "delete", "shared-1")
    moved = await shell("agents", "update", "scout-5", "--project", "", "--json")
    deleted = await shell("projects", "delete", "shared-1")
    gone = await shell("projects", "show", "shared-1")

    assert (made.json["budget"]["limit_usd"], made.json["budget"]["period"]) == (5, "month")
    assert agent.json["project_id"] == made.json["id"]
    assert agent.json["budget"]["available_usd"] == 5
    assert [child["name"] for child in shown.json["children"]] == ["scout-5"]
    assert [line.split()[0] for line in path.out.splitlines()[-3:]] == [
        f"agent:{agent.json['id']}",
        f"project:{made.json['id']}",
        "organisation",
    ]
    assert "$9.00 a day" in path.out
    assert "$5.00 a month" in path.out
    assert f"project:{made.json['id']}" in listed.out
    assert changed.json["budget"]["limit_usd"] is None
    assert (in_use.code, moved.json["project_id"], deleted.code, gone.code) == (6, "", 0, 5)


async def test_the_organisations_budget_is_shown_and_changed(shell: Shell) -> None:
    changed = await shell(
        *("organisation", "update", "--name", "acme", "--budget", "90000"),
        *("--mode", "informative", "--json"),
    )
    shown = await shell("organisation", "show")
    nothing = await shell("organisation", "update")
    await shell("organisation", "update", "--unlimited", "--mode", "restrictive")

    assert (changed.json["name"], changed.json["budget"]["limit_usd"]) == ("acme", 90000)
    assert "$90000.00" in shown.out
    assert "informative" in shown.out
    assert nothing.code == 2


async def test_prices_are_set_and_listed(shell: Shell) -> None:
    set_price = await shell(
        "prices", "set", "openai", "house", "--input", "0.15", "--output", "0.6", "--json"
    )
    listed = await shell("prices", "list", "--model", "house", "--json")
    too_fine = await shell("prices", "set", "openai", "x", "--input", "1e-9", "--output", "1")

    assert listed.json == [set_price.json]
    assert '"input_usd_per_million": 0.15,' in set_price.out
    assert too_fine.code == 2


async def test_health_needs_no_sign_in(stranger: Shell) -> None:
    told = await stranger("health")
    as_json = await stranger("health", "--json")

    assert told.code == as_json.code == 0
    assert "books" in told.out
    assert as_json.json["ledger"]["balanced"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        ("agents", "create", "scout", "--budget", "-1"),
        ("agents", "create", "scout", "--budget", "much"),
        ("agents", "create", "scout"),
        ("agents", "create", "", "--budget", "1"),
        ("agents", "update", "agent_x"),
        ("events", "tail", "--type", "Nonsense"),
        ("prices", "set", "nobody", "m", "--input", "1", "--output", "1"),
        ("health", "--server", "ftp://somewhere"),
        ("nonsense",),
    ],
)
async def test_a_wrong_value_ends_with_2(shell: Shell, wrong: tuple[str, ...]) -> None:
    ended = await shell(*wrong)

    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err


async def test_a_server_that_is_not_there_ends_with_9(stranger: Shell) -> None:
    ended = await stranger("health", "--server", "127.0.0.1:1")

    assert (ended.code, ended.out) == (9, "")
    assert "Connection refused" in ended.err
    assert "steward serve" in ended.err


async def test_an_ambiguous_name_asks_for_the_id(shell: Shell) -> None:
    ids = [
        (await shell("agents", "create", "twin", "--budget", "1", "-q")).out.strip()
        for _ in range(2)
    ]
    ended = await shell("agents", "show", "twin")

    assert ended.code == 5
    assert all(agent_id in ended.err for agent_id in ids)


async def test_output_is_not_cut_where_there_is_no_terminal(shell: Shell) -> None:
    name = "a very long name " * 5
    agent = await shell("agents", "create", name.strip(), "--budget", "1", "-q")
    listed = await shell("agents", "list")

    row = next(line for line in listed.out.splitlines() if agent.out.strip() in line)
    assert name.strip() in row
    assert "\x1b" not in listed.out


async def test_every_command_explains_itself(stranger: Shell) -> None:
    shown = await stranger("--help")
    names = [line.split()[0] for line in shown.out.split("Commands:")[1].splitlines() if line]

    assert "serve" in names
    for name in names:
        ended = await stranger(name, "--help")
        assert ended.code == 0
        assert "Usage: steward" in ended.out


async def test_the_session_file_of_another_server_is_left_alone(
    shell: Shell, server: ServerProcess
) -> None:
    port = server.grpc_address.rpartition(":")[2]
    other = await shell("agents", "list", "--server", f"localhost:{port}")

    assert other.code == 3
    assert (await shell("agents", "list")).code == 0


async def test_a_session_file_that_is_damaged_means_not_signed_in(shell: Shell) -> None:
    file = next(path for path in Path(shell.home).iterdir() if path.name.startswith("session-"))
    file.write_text(json.dumps({"access_token": 1}))

    assert (await shell("agents", "list")).code == 3


async def test_the_password_is_asked_for_at_a_terminal_and_not_shown(stranger: Shell) -> None:
    ours, theirs = os.openpty()
    with stranger.running("login", "--user", "admin", terminal=theirs) as login:
        os.close(theirs)
        asked = b""
        while b"Password" not in asked:
            asked += await asyncio.to_thread(os.read, ours, 1_000)
        os.write(ours, f"{ADMIN_PASSWORD}\n".encode())
        out, _ = await asyncio.to_thread(login.communicate)
        shown = await asyncio.to_thread(os.read, ours, 1_000)
    os.close(ours)

    assert login.returncode == 0
    assert "admin" in out
    assert ADMIN_PASSWORD.encode() not in asked + shown
    assert (await stranger("agents", "list")).code == 0


async def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    with shell.running("prices", "list", "--json") as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        told = await asyncio.to_thread(listing.stderr.read)

    assert told == ""


async def test_a_key_is_shown_once_and_calls_as_its_owner(shell: Shell, stranger: Shell) -> None:
    made = await shell(
        *("keys", "create", "the nightly build", "--role", "readonly", "--expires-in-days", "30"),
        *("--permission", "env-1=write", "--json"),
    )
    key = made.json["key"]
    listed = await shell("keys", "list")
    as_json = await shell("keys", "list", "--json")
    nobody = stranger.home.with_name("nobody")
    by_key = await shell("agents", "list", STEWARD_API_KEY=key, STEWARD_HOME=str(nobody))
    too_much = await shell("keys", "create", STEWARD_API_KEY=key)
    revoked = await shell("keys", "revoke", made.json["id"])
    gone = await shell("agents", "list", STEWARD_API_KEY=key)

    assert made.code == listed.code == by_key.code == revoked.code == 0, (made, by_key)
    assert key not in listed.out + as_json.out
    assert "the nightly build" in listed.out
    assert "env-1=write" in listed.out
    assert [each["id"] for each in as_json.json if each["key"]] == []
    assert (too_much.code, gone.code) == (4, 3)
    assert key not in too_much.err + gone.err


async def test_a_new_key_alone_is_printed_for_a_variable(shell: Shell) -> None:
    quiet = await shell("keys", "create", "--quiet")
    shown = await shell("keys", "create", "laptop", "--kind", "itk")

    assert quiet.out.startswith("agentbox_")
    assert (len(quiet.out.split()), quiet.err) == (1, "")
    assert "itk_" in shown.out
    assert "shown this once" in shown.err


async def test_a_key_of_the_wrong_shape_is_not_asked_for(shell: Shell) -> None:
    for arguments in (
        ("--permission", "env-1"),
        ("--permission", "env-1=root"),
        ("--permission", "=read"),
        ("--role", "owner"),
        ("--kind", "ak_live"),
        ("--expires-in-days", "0"),
    ):
        assert (await shell("keys", "create", *arguments)).code == 2, arguments
