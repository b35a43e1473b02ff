"""`steward audit`: who changed what, and whether anything of that was altered."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table

from steward_client.cli.endings import FAILED
from steward_client.cli.of_server import of_server
from steward_client.cli.output import card, moment, table
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.values import AuditEntry, AuditVerdict

HASH = re.compile(r"[0-9a-f]{64}")


class Head(click.ParamType[tuple[int, str]]):
    """Number and hash of an entry: `17:9f86d0…`."""

    name = "number:hash"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, str]:
        if isinstance(value, tuple):
            return value
        number, _, digest = str(value).partition(":")
        if not re.fullmatch(r"[1-9][0-9]{0,17}", number) or not HASH.fullmatch(digest):
            self.fail(f"{value!r} is not the head of an earlier verification", param, ctx)
        return int(number), digest


@click.group()
def audit() -> None:
    """See who changed what, and verify that nothing of it was altered."""


@audit.command("list")
@click.option("--action", default="", help='Only these, as "agent.created".')
@click.option("--type", "resource_type", default="", help='Only about such things, as "agent".')
@click.option("--resource", "resource_id", default="", help="Only about the thing with this id.")
@click.option("--actor", "actor_id", default="", help="Only what the person with this id did.")
@click.option("--since", type=click.DateTime(), help="From this time on, in UTC.")
@click.option("--until", type=click.DateTime(), help="Before this time, in UTC.")
@click.option("--most", type=click.IntRange(1), default=100, show_default=True)
@calls_server
def list_entries(
    steward: Steward,
    *,
    action: str,
    resource_type: str,
    resource_id: str,
    actor_id: str,
    since: datetime | None,
    until: datetime | None,
    most: int,
) -> None:
    """List what was changed, newest first."""
    entries = steward.client.audit.list(
        action=action,
        resource_type=resource_type,
        resource_id=resource_id,
        actor_id=actor_id,
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
        most=most,
    )
    steward.show(entries, _entry_table)


@audit.command("verify")
@click.option(
    "--head", type=Head(), help="Printed by an earlier verification, and kept elsewhere since."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Read the database in this folder, and ask no server.",
)
@calls_server
def verify(steward: Steward, *, head: tuple[int, str] | None, data_dir: Path | None) -> None:
    """Read the whole log; ends with 1 if anything of it was altered.

    Whoever can write to the database can write a whole new log that is sound in itself. Keep the
    head that this prints elsewhere, and give it to the next verification.
    """
    if data_dir is None:
        number, digest = head or (0, "")
        verdict = steward.client.audit.verify(known_number=number, known_hash=digest)
    else:
        verdict = _read(data_dir, head)
    steward.show(verdict, _verdict_card)
    if not verdict.verified:
        sys.stdout.flush()
        raise SystemExit(FAILED)


def _read(data_dir: Path, head: tuple[int, str] | None) -> AuditVerdict:
    """Have the server's own code read a database."""
    verify_file = of_server("verify-audit", "can read its data")
    known = (head[0], bytes.fromhex(head[1])) if head else None
    try:
        verdict = verify_file(data_dir, known)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    broken = verdict.broken
    return AuditVerdict(
        verified=broken is None,
        entries=verdict.number,
        head_number=verdict.number,
        head_hash=verdict.hash.hex(),
        broken_at=broken.number if broken else 0,
        what=broken.what if broken else "",
    )


def _entry_table(entries: Sequence[AuditEntry]) -> Table:
    return table(
        ["#", "WHEN", "ACTION", "WHAT", "WHO", "FROM", "CHANGE", "REASON"],
        [
            (
                str(entry.number),
                moment(entry.at),
                entry.action,
                entry.resource_id,
                entry.actor_id or entry.actor_kind,
                entry.address or "-",
                _change(entry),
                entry.reason or "-",
            )
            for entry in entries
        ],
    )


def _change(entry: AuditEntry) -> str:
    states = [orjson.dumps(each).decode() for each in (entry.before, entry.after) if each]
    return " → ".join(states) or "-"


def _verdict_card(verdict: AuditVerdict) -> Table:
    if not verdict.verified:
        return card(
            [
                ("verified", "NO"),
                ("broken at", f"entry {verdict.broken_at}"),
                ("what", verdict.what),
            ]
        )
    return card(
        [
            ("verified", "yes"),
            ("entries", str(verdict.entries)),
            ("head", f"{verdict.head_number}:{verdict.head_hash}"),
        ]
    )
