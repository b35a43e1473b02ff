"""How a command of a caller is put to a machine's supervisor, and what comes back if it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from steward_server.environments.asked import must_be_runnable, must_not_be_root
from steward_server.environments.driver import Command, Unusable
from steward_server.environments.sandbox.inside.build import UID_COUNT
from steward_server.environments.sandbox.record import Record


def invocation(record: Record, command: Command) -> dict[str, Any]:
    """What a supervisor is told about a command.

    Raises:
        Unusable: reason BAD_USER, RUN_AS_NON_ROOT or NOT_EXECUTABLE; it asks for too much.
    """
    user = record.user if command.user is None else command.user
    must_not_be_root(user, wanted=record.must_not_be_root)
    if not 0 <= user < UID_COUNT:
        raise Unusable("BAD_USER", f"user {user} is not between 0 and {UID_COUNT - 1}")
    env = {**record.env, **command.env}
    must_be_runnable(replace(command, env=env))
    if command.tty:
        env.setdefault("TERM", "xterm-256color")
    return {
        "argv": list(command.argv),
        "env": env,
        "cwd": command.working_dir or record.working_dir or "/workspace",
        "user": user,
        "group": record.group if user == record.user else user,
        "tty": command.tty,
    }


def refuse(command: Command, fault: dict[str, Any], folder: str) -> NoReturn:
    """Say why a command does not run."""
    if fault["stage"] == "working directory":
        raise Unusable("NO_SUCH_DIRECTORY", f"cannot work in {folder!r}: {fault['text']}")
    if fault["stage"] == "program":
        raise Unusable("NOT_EXECUTABLE", f"cannot run {command.argv[0]!r}: {fault['text']}")
    raise Unusable("NO_ISOLATION", f"a command could not be isolated: {fault['text']}")
