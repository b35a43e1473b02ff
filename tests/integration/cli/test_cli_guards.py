"""`steward limits` and `steward webhooks`."""

from __future__ import annotations

from tests.integration.cli.conftest import Shell


async def test_limits_are_set_shown_and_removed(shell: Shell) -> None:
    made = await shell("limits", "set", "everyone", "--tokens-per-day", "5000", "--json")
    table = await shell("limits", "show")
    shown = await shell("limits", "show", "--json")
    removed = await shell("limits", "remove", "everyone")
    nothing = await shell("limits", "remove", "everyone")

    assert made.json["max_tokens_per_day"] == 5000
    assert [each["scope"] for each in shown.json] == ["everyone"]
    assert "everyone" in table.out
    assert "0 of 5000" in table.out
    assert (removed.code, removed.err) == (0, "lifted the limits of everyone\n")
    assert nothing.code != 0
    assert nothing.err.startswith("Error: no limit")


async def test_setting_no_limit_says_what_to_pass(shell: Shell) -> None:
    ended = await shell("limits", "set", "everyone")
    assert ended.code == 2
    assert "--requests-per-minute" in ended.err


async def test_a_webhook_is_added_tested_and_deleted(shell: Shell) -> None:
    url = "https://hooks.invalid/x"
    added = await shell("webhooks", "add", url, "--event", "Overrun", "--json")
    webhook_id = added.json["id"]
    tested = await shell("webhooks", "test", webhook_id, "--json")
    deliveries = await shell("webhooks", "deliveries", webhook_id)
    rotated = await shell("webhooks", "rotate", webhook_id)
    disabled = await shell("webhooks", "update", webhook_id, "--disable", "--json")
    listed = await shell("webhooks", "list")
    deleted = await shell("webhooks", "delete", webhook_id)

    assert added.json["events"] == ["Overrun"]
    assert tested.json["event_type"] == "Test"
    assert tested.json["id"] in deliveries.out
    assert "whsec_" in rotated.out
    assert disabled.json["enabled"] is False
    assert url in listed.out
    assert "whsec_" not in listed.out
    assert deleted.err == f"deleted {webhook_id}\n"


async def test_a_webhook_into_a_private_network_is_refused(shell: Shell) -> None:
    ended = await shell("webhooks", "add", "https://10.0.0.1/")
    assert ended.code != 0
    assert "private network" in ended.err
