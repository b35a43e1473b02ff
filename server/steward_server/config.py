"""Settings: what the rooms declare, filled from `steward.toml` and `STEWARD_*` variables.

A section is a frozen dataclass of `setting(...)` fields. A field `lease_ttl_s` of the section
`budget` is read from the variable `STEWARD_BUDGET_LEASE_TTL_S`, else from `lease_ttl_s` under
`[budget]` in the file. Fields of the section `server` have no section in their names.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Section = TypeVar("Section")

MAX_PORT = 65_535


class BadSetting(Exception):
    """A setting is wrong; the message names it, its value and what is accepted."""


def setting(
    default: Any,
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of a section: its default, and a sentence for `docs/configuration.md`.

    Both `minimum` and `maximum` are allowed values.
    """
    return field(
        default=default,
        metadata={
            "meaning": meaning,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
        },
    )


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What concerns the whole server."""

    host: str = setting("127.0.0.1", "Address both ports listen on.")
    http_port: int = setting(
        8080,
        "Port of REST, WebSocket and dashboard; 0 picks a free one.",
        minimum=0,
        maximum=MAX_PORT,
    )
    grpc_port: int = setting(
        50051, "Port of gRPC; 0 picks a free one.", minimum=0, maximum=MAX_PORT
    )
    data_dir: Path = setting(
        Path(".data"), "Folder of the database, the master key and the lock; made if missing."
    )
    profile: str = setting(
        "production",
        "`development` allows well-known secrets and serves channelz.",
        choices=("production", "development"),
    )
    insecure_bind: bool = setting(
        False, "Allow an address beyond loopback without TLS: credentials then travel in clear."
    )
    tls_cert_file: Path | None = setting(None, "PEM certificate chain of both ports.")
    tls_key_file: Path | None = setting(None, "PEM private key of both ports.")
    tls_client_ca_file: Path | None = setting(
        None, "PEM certificates that sign clients' certificates; set, clients must show one."
    )
    admin_user: str = setting("admin", "Name of the first administrator.")
    admin_password: str | None = setting(
        None, "Password of the first administrator; generated and printed once if unset."
    )
    static_token: str | None = setting(
        None, "Bearer token of inference clients, at least 16 characters; unset: off."
    )
    local_single_user: bool = setting(
        False,
        "Treat callers on this machine without a credential as the administrator; loopback only.",
    )
    master_key_file: Path | None = setting(
        None, "Keys that wrap the stored secrets; unset: `master.key` in the data folder."
    )
    log_format: str = setting(
        "auto",
        "Log lines as JSON, or as text for people; `auto` is text at a terminal.",
        choices=("auto", "json", "text"),
    )
    log_level: str = setting(
        "info", "Least severe level logged.", choices=("debug", "info", "warning", "error")
    )
    cors_origins: str = setting(
        "",
        "Origins whose pages may call the gateway from a browser, separated by commas; `*` is any.",
    )
    trusted_proxies: str = setting(
        "",
        "Addresses and networks (CIDR) of the proxies in front, such as `10.0.0.0/8`, separated by "
        "commas: callers are then known by the address that `X-Forwarded-For` names, over HTTP and "
        "gRPC; unset: by the address that connects.",
    )
    max_connections: int = setting(
        10_000,
        "Connections to the HTTP port at a time; more are answered 503. Fewer where the process "
        "may not open that many files.",
        minimum=1,
    )
    max_connections_per_address: int | None = setting(
        None, "The same for each address; leave it unset behind a proxy.", minimum=1
    )
    head_timeout_s: float = setting(
        10.0, "How long the headers of a request may take to come, in seconds.", minimum=0.1
    )
    drain_s: float = setting(
        5.0, "How long calls under way may go on when the server stops, in seconds.", minimum=0
    )


def read_file(path: Path | None) -> dict[str, Any]:
    """The tables of a `steward.toml`; empty without one.

    Raises:
        BadSetting: the file cannot be read or is not TOML.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not even UTF-8
        raise BadSetting(f"{path} is not a TOML file: {error}") from None


def load(
    name: str, section: type[Section], file: Mapping[str, Any], environ: Mapping[str, str]
) -> Section:
    """One section from the file and the environment, the environment first.

    Raises:
        BadSetting: a value has the wrong type or is out of range, or the file has an unknown key.
    """
    table = file.get(name, {})
    if not isinstance(table, Mapping):
        raise BadSetting(f"{name} is {table!r} in the file; it must be a table, [{name}]")
    hints = get_type_hints(section)
    fields = {each.name: each for each in dataclasses.fields(section)}  # type: ignore[arg-type]
    if unknown := sorted(table.keys() - fields.keys()):
        raise BadSetting(f"[{name}] has no setting {unknown[0]!r}; it has {', '.join(fields)}")
    values = {}
    for key, each in fields.items():
        variable = variable_name(name, key)
        if variable in environ:
            values[key] = _parse(variable, environ[variable], hints[key], each.metadata)
        elif key in table:
            values[key] = _parse(f"[{name}] {key}", table[key], hints[key], each.metadata)
    return section(**values)


def variable_name(section: str, key: str) -> str:
    """The environment variable of a setting."""
    middle = "" if section == "server" else f"{section.upper()}_"
    return f"STEWARD_{middle}{key.upper()}"


def _parse(name: str, raw: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if raw == "":
            return None
        hint = next(each for each in get_args(hint) if each is not type(None))
    value = _convert(name, raw, hint)
    minimum, maximum = metadata["minimum"], metadata["maximum"]
    if minimum is not None and value < minimum:
        raise BadSetting(f"{name} is {value}; it must be at least {minimum:g}")
    if maximum is not None and value > maximum:
        raise BadSetting(f"{name} is {value}; it must be at most {maximum:g}")
    if (choices := metadata["choices"]) and value not in choices:
        raise BadSetting(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    return value


def _convert(name: str, raw: Any, hint: Any) -> Any:
    if hint is bool:
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False, "": False}
        text = str(raw).strip().lower()
        if text not in words:
            raise BadSetting(f"{name} is {raw!r}; write 1 or 0")
        return words[text]
    if hint is str:
        if not isinstance(raw, str):  # not shown: it may be a password
            raise BadSetting(f"{name} must be text, in quotes")
        return raw
    try:
        return _READ[hint](raw)
    except (ValueError, InvalidOperation):
        raise BadSetting(f"{name} is {raw!r}; it must be {_KIND[hint]}") from None


def _whole(raw: Any) -> int:
    if isinstance(raw, str):
        return int(raw)
    if type(raw) is not int:  # the file's `true` and `1.5` would both pass for one
        raise ValueError
    return raw


def _number(raw: Any) -> float:
    number = float(raw) if type(raw) in (str, int, float) else math.nan
    if not math.isfinite(number):
        raise ValueError
    return number


def _decimal(raw: Any) -> Decimal:
    number = Decimal(str(raw))
    if not number.is_finite():
        raise ValueError
    return number


def _path(raw: Any) -> Path:
    if not isinstance(raw, str) or not raw:
        raise ValueError
    return Path(raw)


_READ: Mapping[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    Decimal: _decimal,
    Path: _path,
}
_KIND = {int: "a whole number", float: "a number", Decimal: "a decimal number", Path: "a path"}


def environment() -> Mapping[str, str]:
    """The process's variables."""
    return os.environ
