"""`steward providers`: the LLM providers whose keys the server keeps."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Table

from steward_client.cli.output import card, moment, say, table
from steward_client.cli.steward import Steward, calls_server, secret
from steward_client.client.values import Provider, ProviderKind


@click.group()
def providers() -> None:
    """Add, list and delete LLM providers."""


@providers.command("add")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["openai", "anthropic"]),
    help="The API it speaks; taken from the name if that says it.",
)
@click.option("--base-url", default="", help="Where its API is; its public address if left out.")
@click.option("--key-stdin", is_flag=True, help="Read its key from standard input.")
@click.option(
    "--allow-plaintext-key", is_flag=True, help="Runtimes may have the key without a seal."
)
@click.option("--key-env", metavar="VARIABLE", help="Take its key from this variable.")
@calls_server
def add(
    steward: Steward,
    name: str,
    *,
    kind: ProviderKind | None,
    base_url: str,
    key_stdin: bool,
    key_env: str | None,
    allow_plaintext_key: bool,
) -> None:
    """Add a provider. Its key is asked for, and stored encrypted."""
    if key_stdin and key_env:
        raise click.UsageError("pass either --key-stdin or --key-env")
    api_key = secret(
        "API key", from_stdin=key_stdin, variable=key_env, option="--key-stdin or --key-env"
    )
    added = steward.client.providers.create(
        name,
        api_key=api_key,
        kind=kind,
        base_url=base_url,
        allow_plaintext_key=allow_plaintext_key,
    )
    steward.show(added, _provider_card)


@providers.command("list")
@calls_server
def list_providers(steward: Steward) -> None:
    """List providers, newest first."""
    steward.show(steward.client.providers.list(), _provider_table)


@providers.command("update")
@click.argument("provider_id")
@click.option(
    "--allow-plaintext-key/--seal-key",
    "allow_plaintext_key",
    required=True,
    help="Whether runtimes may have the key without a seal.",
)
@calls_server
def update(steward: Steward, provider_id: str, *, allow_plaintext_key: bool) -> None:
    """Change a provider."""
    changed = steward.client.providers.update(provider_id, allow_plaintext_key=allow_plaintext_key)
    steward.show(changed, _provider_card)


@providers.command("delete")
@click.argument("provider_id")
@calls_server
def delete(steward: Steward, provider_id: str) -> None:
    """Delete a provider and its key."""
    steward.client.providers.delete(provider_id)
    say(f"deleted {provider_id}")


def _provider_card(provider: Provider) -> Table:
    return card(
        [
            ("id", provider.id),
            ("name", provider.name),
            ("kind", provider.kind),
            ("address", provider.base_url),
            ("key", provider.masked_key),
            ("in clear", "allowed" if provider.allow_plaintext_key else "no"),
        ]
    )


def _provider_table(listed: Sequence[Provider]) -> Table:
    return table(
        ["ID", "NAME", "KIND", "ADDRESS", "KEY", "LAST USED", "USABLE"],
        [
            (
                provider.id,
                provider.name,
                provider.kind,
                provider.base_url,
                provider.masked_key,
                moment(provider.last_used_at),
                "yes" if provider.usable else "no: add its key again",
            )
            for provider in listed
        ],
    )
