"""`steward users`, `steward password` and `steward audit`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.integration.cli.conftest import Shell
from tests.live import ServerProcess

PASSWORD = "a boat on the lake"
OTHER = "a house on the hill"


async def test_people_are_let_in_changed_and_deleted(shell: Shell) -> None:
    stdin = {"stdin": f"{PASSWORD}\n"}
    made = await shell(
        *("users", "create", "ann", "--email", "ann@example.com", "--password-stdin", "--json"),
        **stdin,
    )
    twice = await shell("users", "create", "ann", "--password-stdin", **stdin)
    quiet = await shell("users", "create", "bob", "--password-stdin", "-q", **stdin)
    named_like_an_id = await shell("users", "create", "user_eve", "--password-stdin", **stdin)
    by_name = await shell("users", "show", "user_eve", "--json")
    by_id = await shell("users", "show", quiet.out.strip(), "--json")
    listed = await shell("users", "list", "--search", "ANN@", "--json")
    table = await shell("users", "list")
    suspended = await shell("users", "suspend", "ann", "--reason", "left", "--json")
    shown = await shell("users", "show", "ann")
    active = await shell("users", "activate", made.json["id"], "--json")
    role = await shell("users", "role", "ann", "viewer", "--json")
    deleted = await shell("users", "delete", "bob")
    gone = await shell("users", "show", "bob")
    last = await shell("users", "role", "admin", "user")

    assert (made.json["username"], made.json["role"]) == ("ann", "user")
    assert twice.code == 6
    assert quiet.out.startswith("user_")
    assert named_like_an_id.code == 0
    assert [each.json["username"] for each in (by_name, by_id)] == ["user_eve", "bob"]
    assert [each["username"] for each in listed.json] == ["ann"]
    assert "ann@example.com" in table.out
    assert (suspended.json["state"], suspended.json["suspend_reason"]) == ("suspended", "left")
    assert "left" in shown.out
    assert active.json["state"] == "active"
    assert role.json["role"] == "viewer"
    assert (deleted.code, deleted.out) == (0, "")
    assert gone.code == 5
    assert last.code == 6
    assert "last active administrator" in last.err


async def test_a_password_that_was_reset_is_changed_by_whoever_it_belongs_to(
    shell: Shell, tmp_path: Path
) -> None:
    await shell("users", "create", "cid", "--password-stdin", stdin=PASSWORD)
    reset = await shell("users", "reset-password", "cid", "--password-stdin", stdin=OTHER)
    none = await shell("users", "reset-password", "cid")
    cid = Shell(tmp_path / "cid", shell.server)
    entered = await cid("login", "--user", "cid", "--password-stdin", stdin=OTHER)
    before = await cid("agents", "list")
    wrong = await cid("password", "--passwords-stdin", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    changed = await cid("password", "--passwords-stdin", stdin=f"{OTHER}\n{PASSWORD}\n")
    after = await cid("agents", "list")

    assert "must be changed" in reset.out
    assert none.code == 2
    assert (entered.code, before.code, wrong.code) == (0, 4, 2)
    assert "steward password" in entered.err
    assert "steward password" in before.err
    assert (changed.code, after.code) == (0, 0)
    assert OTHER not in reset.out + entered.out + wrong.err


async def test_what_people_wrote_is_shown_as_they_wrote_it(shell: Shell) -> None:
    """No markup: it would hide words from whoever looks, or keep them from looking at all."""
    for text in ("[/x] unopened", "[black on black]hidden[/]", "[link=http://x]y[/link] :bomb:"):
        key = await shell("keys", "create", text, "--json")
        listed = await shell("keys", "list")
        audited = await shell("audit", "list", "--resource", key.json["id"])
        assert (listed.code, audited.code) == (0, 0)
        assert text in listed.out
        assert text in audited.out


async def test_the_audit_log_is_listed_and_verified(
    shell: Shell, server: ServerProcess, tmp_path: Path
) -> None:
    agent = (await shell("agents", "create", "audited", "--budget", "1", "-q")).out.strip()
    listed = await shell("audit", "list", "--resource", agent, "--json")
    table = await shell("audit", "list", "--most", "1")
    none = await shell("audit", "list", "--since", "2999-01-01", "--json")
    verified = await shell("audit", "verify", "--json")
    verdict = verified.json
    head = f"{verdict['head_number']}:{verdict['head_hash']}"
    again = await shell("audit", "verify", "--head", head)
    forged = await shell("audit", "verify", "--head", f"1:{verdict['head_hash']}")
    malformed = await shell("audit", "verify", "--head", "nonsense")

    assert [each["action"] for each in listed.json] == ["agent.created"]
    assert listed.json[0]["before"] is None
    assert listed.json[0]["after"]["name"] == "audited"
    assert agent in table.out
    assert none.json == []
    assert (verified.code, verdict["verified"]) == (0, True)
    assert (again.code, forged.code, malformed.code) == (0, 1, 2)
    assert "NO" in forged.out

    # The same from the file, while the server runs; and when somebody has altered a copy.
    data_dir = server.data_dir
    offline = await shell("audit", "verify", "--data-dir", str(data_dir), "--head", head, "--json")
    assert (offline.code, offline.json["verified"]) == (0, True)
    copy = tmp_path / "copy"
    copy.mkdir()
    with (
        closing(sqlite3.connect(data_dir / "steward.db")) as source,
        closing(sqlite3.connect(copy / "steward.db")) as target,
    ):
        source.backup(target)
    with closing(sqlite3.connect(copy / "steward.db")) as connection, connection:
        connection.execute("UPDATE audit_entry SET actor_id = 'user_x' WHERE number = 2")
    altered = await shell("audit", "verify", "--data-dir", str(copy))
    nowhere = await shell("audit", "verify", "--data-dir", str(tmp_path / "none"))
    assert altered.code == 1
    assert "entry 2" in altered.out
    assert nowhere.code == 1
    assert "no database" in nowhere.err
