"""`steward serve`: the server as a process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sqlite3
import sys

import click
import structlog

from steward_server import logs
from steward_server.app import Running, serving
from steward_server.config import BadSetting
from steward_server.db.migrate import SchemaError
from steward_server.db.sqlite import DatabaseInUse
from steward_server.settings import Settings
from steward_server.vault import VaultError

log = structlog.get_logger(__name__)


@click.command()
def serve() -> None:
    """Run the server until it is told to stop (see docs/configuration.md for settings)."""
    try:
        settings = Settings.read()
        logs.configure(settings.server.log_format, settings.server.log_level)
        _run(settings)
    except (BadSetting, DatabaseInUse, SchemaError, VaultError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except sqlite3.DatabaseError as error:
        raise click.ClickException(f"the database cannot be used: {error}") from None


def _run(settings: Settings) -> None:
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # there is none for Windows
        runner = asyncio.Runner()
    with runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    async with serving(settings) as running:
        _spare_the_collector()
        _announce(settings, running)
        await stopped.wait()
        log.info("server.stopping", drain_s=settings.server.drain_s)


def _spare_the_collector() -> None:
    """Keep what lives as long as the server out of every collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _announce(settings: Settings, running: Running) -> None:
    """Say on standard output, for people and for scripts, that everything answers."""
    scheme = "https" if settings.server.tls_cert_file else "http"
    user = settings.server.admin_user
    password = running.first_password
    lines = [f"ready grpc={running.grpc_address} http={scheme}://{running.http_address}"]
    if password is not None:
        lines += [
            "",
            f"First administrator: {user}   password: {password}   (shown this once)",
        ]
    lines += [
        "",
        "Try:",
        f"  {scheme}://{running.http_address}/ in a browser",
        f"  steward login --server {running.grpc_address} --user {user}",
        f"  grpcurl {'' if scheme == 'https' else '-plaintext '}{running.grpc_address} list",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
