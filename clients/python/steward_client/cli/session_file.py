"""Sign-ins kept between commands: a file for each server, readable by its owner only."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import asdict
from pathlib import Path

import orjson

from steward_client.client.credentials import SignIn
from steward_client.client.values import User


def home() -> Path:
    """`STEWARD_HOME`, else `steward` in the user's configuration folder."""
    if given := os.environ.get("STEWARD_HOME"):
        return Path(given)
    configuration = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configuration) if configuration else Path.home() / ".config") / "steward"


class SessionFile:
    """The sign-in at one server. Commands that run at the same time may share it."""

    def __init__(self, folder: Path, server: str) -> None:
        self._folder = folder
        self._server = server
        self.path = folder / f"session-{re.sub(r'[^A-Za-z0-9.-]', '_', server)}.json"

    def load(self) -> SignIn | None:
        try:
            kept = orjson.loads(self.path.read_bytes())
            return SignIn(**{**kept, "user": User(**kept["user"])})
        except (FileNotFoundError, orjson.JSONDecodeError, TypeError, KeyError):
            return None

    def save(self, sign_in: SignIn | None) -> None:
        if sign_in is None:
            self.path.unlink(missing_ok=True)
            return
        _write(self.path, orjson.dumps(asdict(sign_in)))
        _write(_last(self._folder), self._server.encode())


def last_server(folder: Path) -> str | None:
    """The server that was signed in to last."""
    with contextlib.suppress(FileNotFoundError):
        return _last(folder).read_text().strip() or None
    return None


def _last(folder: Path) -> Path:
    return folder / "server"


def _write(path: Path, content: bytes) -> None:
    """Replace the file at once, so that another command never reads half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # made with mode 600
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
