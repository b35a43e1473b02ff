"""The Python client: `Runtime` runs agents on lent money, `Client` is the interface for people.

`play` lets a policy of the server play in an environment of gymnasium.

Start reading at async_runtime.py. Names are imported when first used: the server imports the pure
modules (`prices`, `seal`) and needs nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steward_client.async_runtime import AsyncRuntime
    from steward_client.client import AsyncClient, Client
    from steward_client.environment_run import EnvironmentSpec
    from steward_client.errors import StewardError
    from steward_client.playing import Episode, play
    from steward_client.runs import Metrics, RunId
    from steward_client.runtime import Runtime

__all__ = [
    "AsyncClient",
    "AsyncRuntime",
    "Client",
    "EnvironmentSpec",
    "Episode",
    "Metrics",
    "RunId",
    "Runtime",
    "StewardError",
    "play",
]

_HOME = {
    "AsyncClient": "client",
    "Client": "client",
    "StewardError": "errors",
    "AsyncRuntime": "async_runtime",
    "EnvironmentSpec": "environment_run",
    "Episode": "playing",
    "play": "playing",
    "Metrics": "runs",
    "RunId": "runs",
    "Runtime": "runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
