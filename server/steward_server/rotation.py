"""`steward rotate-master-key`: a new key for what the server keeps sealed."""

from __future__ import annotations

import click

from steward_server.config import BadSetting
from steward_server.settings import Settings
from steward_server.vault import VaultError, add_key


@click.command("rotate-master-key")
def rotate_master_key() -> None:
    """Add a new master key to the file of this machine's server, by the settings it has.

    The server takes it at its next start, and seals everything anew with it: provider keys,
    credentials, signing keys. A day later the older lines can be taken out of the file; older
    backups of the database still need them.
    """
    try:
        server = Settings.read().server
        path = server.master_key_file or server.data_dir / "master.key"
        version = add_key(path)
    except (BadSetting, VaultError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{path} has key {version} now; restart the server, and keep a copy of the file")
