"""Every section of settings there is, how a start reads them, and their page in the documentation.

`python -m steward_server.settings --write docs/configuration.md` writes that page, `--check` tells
whether it is true.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from steward_server.agents.config import AgentsConfig
from steward_server.alerts.config import AlertsConfig
from steward_server.analytics.config import AnalyticsConfig
from steward_server.api_keys.config import ApiKeysConfig
from steward_server.auth.config import AuthConfig
from steward_server.budget.config import BudgetConfig
from steward_server.config import (
    BadSetting,
    ServerConfig,
    environment,
    load,
    read_file,
    variable_name,
)
from steward_server.environments.config import EnvironmentsConfig
from steward_server.events.config import EventsConfig
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.steps.ignition_link import IgnitionConfig
from steward_server.executions.steps.pages.config import BrowserConfig
from steward_server.idempotency.config import IdempotencyConfig
from steward_server.inference.config import InferenceConfig
from steward_server.limits.config import LimitsConfig
from steward_server.playbooks.config import PlaybooksConfig
from steward_server.rates import RatesConfig
from steward_server.requests.config import RequestsConfig
from steward_server.tokens.config import TokensConfig

FILE_VARIABLE = "STEWARD_CONFIG"
DEFAULT_FILE = Path("steward.toml")

SECTIONS: dict[str, type[Any]] = {
    "server": ServerConfig,
    "auth": AuthConfig,
    "tokens": TokensConfig,
    "api_keys": ApiKeysConfig,
    "rates": RatesConfig,
    "agents": AgentsConfig,
    "budget": BudgetConfig,
    "requests": RequestsConfig,
    "events": EventsConfig,
    "limits": LimitsConfig,
    "alerts": AlertsConfig,
    "analytics": AnalyticsConfig,
    "environments": EnvironmentsConfig,
    "inference": InferenceConfig,
    "playbooks": PlaybooksConfig,
    "executions": ExecutionsConfig,
    "ignition": IgnitionConfig,
    "browser": BrowserConfig,
    "idempotency": IdempotencyConfig,
}

CLIENT_VARIABLES = frozenset(
    {
        "STEWARD_SERVER",
        "STEWARD_API_KEY",
        "STEWARD_IC_TOKEN",
        "STEWARD_CA_FILE",
        "STEWARD_HOME",
        "STEWARD_STATE_DIR",
    }
)
"""Variables of the client, which share the prefix."""

_KUBERNETES = re.compile(
    r"STEWARD_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT = re.compile(r"(?:tcp|udp|sctp)://.*")
"""Kubernetes tells every pod of a service named "steward" where it is, in variables like ours."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections of one server."""

    server: ServerConfig = field(default_factory=ServerConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    api_keys: ApiKeysConfig = field(default_factory=ApiKeysConfig)
    rates: RatesConfig = field(default_factory=RatesConfig)
    agents: AgentsConfig = field(default_factory=AgentsConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    requests: RequestsConfig = field(default_factory=RequestsConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    analytics: AnalyticsConfig = field(default_factory=AnalyticsConfig)
    environments: EnvironmentsConfig = field(default_factory=EnvironmentsConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    playbooks: PlaybooksConfig = field(default_factory=PlaybooksConfig)
    executions: ExecutionsConfig = field(default_factory=ExecutionsConfig)
    ignition: IgnitionConfig = field(default_factory=IgnitionConfig)
    browser: BrowserConfig = field(default_factory=BrowserConfig)
    idempotency: IdempotencyConfig = field(default_factory=IdempotencyConfig)

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this process: variables first, then the file, then defaults.

        Raises:
            BadSetting: a setting is wrong or unknown.
        """
        environ = environment() if environ is None else environ
        file = read_file(_file(environ))
        if unknown := sorted(file.keys() - SECTIONS.keys()):
            raise BadSetting(
                f"the file has a table [{unknown[0]}]; there are {', '.join(SECTIONS)}"
            )
        _refuse_unknown(environ)
        return cls(**{name: load(name, each, file, environ) for name, each in SECTIONS.items()})


def _file(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt variable would silently do nothing."""
    known = {FILE_VARIABLE} | {
        variable_name(name, each.name)
        for name, section in SECTIONS.items()
        for each in dataclasses.fields(section)
    }
    for variable, text in sorted(environ.items()):
        if not variable.startswith("STEWARD_") or variable in known | CLIENT_VARIABLES:
            continue
        if _KUBERNETES.fullmatch(variable) or _KUBERNETES_PORT.fullmatch(text):
            continue
        close = get_close_matches(variable, known, 1)
        hint = f"did you mean {close[0]}?" if close else "see docs/configuration.md"
        raise BadSetting(f"there is no setting {variable}; {hint}")


def page() -> str:
    """The documentation of every setting, as Markdown."""
    parts = [
        "# Configuration\n",
        (
            "Settings are read from environment variables, then from `steward.toml` in the working "
            "directory (or the file that `STEWARD_CONFIG` names), then from the defaults below. In "
            "the file a setting stands in its table under its short name:\n"
        ),
        "```toml\n[server]\nhttp_port = 8080\n\n[budget]\nlease_ttl_s = 900\n```\n",
        (
            "An unknown table, key or `STEWARD_*` variable refuses to start, and so does a value "
            "of the wrong kind or out of range.\n"
        ),
    ]
    for name, section in SECTIONS.items():
        parts.append(f"## `[{name}]`\n")
        parts.append(f"{(section.__doc__ or '').strip()}\n")
        parts.append("| variable | in the file | default | meaning |\n|---|---|---|---|")
        hints = get_type_hints(section)
        for each in dataclasses.fields(section):
            meaning = each.metadata["meaning"]
            if choices := each.metadata["choices"]:
                meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
            default = _shown(each.default, hints[each.name])
            variable = variable_name(name, each.name)
            parts.append(f"| `{variable}` | `{each.name}` | {default} | {meaning} |")
        parts.append("")
    return "\n".join(parts)


def _shown(default: object, hint: object) -> str:
    if default is None:
        return "unset"
    if hint is bool:
        return "`1`" if default else "`0`"
    return f"`{default}`"


def main(arguments: list[str]) -> int:
    """Write or check the page; 1 if it is stale."""
    action, path = arguments[0], Path(arguments[1])
    if action == "--write":
        path.write_text(page(), encoding="utf-8")
        return 0
    if path.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{path} is stale; run: make format\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
