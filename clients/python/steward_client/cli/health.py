"""`steward health`: how the server is."""

from __future__ import annotations

import click
from rich.table import Table

from steward_client.cli.endings import FAILED
from steward_client.cli.output import card, dollars, moment, word
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.values import Health


@click.command()
@calls_server
def health(steward: Steward) -> None:
    """Tell how the server is, and whether its books balance; needs no sign-in.

    Ends with 0 if it is healthy, 1 if something is wrong with it, 9 if it does not answer.
    """
    answer = steward.client.health()
    steward.show(answer, _health_card)
    if answer.status != "healthy":
        raise click.exceptions.Exit(FAILED)


def _health_card(answer: Health) -> Table:
    ledger = answer.ledger
    return card(
        [
            ("status", word(answer.status)),
            ("version", answer.version),
            ("time", moment(answer.timestamp)),
            ("books", "balance" if ledger.balanced else "do not balance"),
            ("checked", f"{moment(ledger.checked_at)}, commit {ledger.commit_number}"),
            ("accounts", str(ledger.account_count)),
            ("open leases", str(ledger.open_lease_count)),
            ("overrun", dollars(ledger.overrun_usd)),
            *(("notice", notice) for notice in answer.notices),
        ]
    )
