"""What HTTP headers say about a call: credentials, request id, deadline; and what goes back."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from google.protobuf.message import Message
from multidict import MultiMapping

from steward_gateway.codec import FieldErrors
from steward_gateway.forwarding import FORWARDED_KEY
from steward_gateway.transport import Metadata

REQUEST_ID = "X-Request-Id"
SERVER = {"Server": "Steward"}
"""In place of aiohttp's, which names its version and Python's."""
PEER_KEY = "x-steward-peer"
"""Metadata with the caller's address, behind proxies of ours the one they name. Made here; a header
of that name is never passed on."""

# With these and the hops of proxies the core tells the user of this machine from others. Made here
# too.
_PLACE_HEADERS = {"Host": "x-steward-host", "Origin": "x-steward-origin"}

# Of credentials only these headers reach the core.
_CREDENTIAL_HEADERS = {
    "Authorization": "authorization",
    "X-IC-Key": "x-ic-key",
    "X-API-Key": "x-api-key",
}

# Callers that cannot send headers put a credential into the query of a stream.
_CREDENTIAL_PARAMETERS = {
    "token": ("authorization", "Bearer "),
    "api_key": ("x-api-key", ""),
    "ticket": ("x-ticket", ""),
}
CREDENTIAL_PROTOCOL = "Authorization"
"""The WebSocket subprotocol that says that the next one is a credential."""

_TOLD = {"content-disposition", "retry-after"}
"""What is told to callers beside `x-*`: how long to wait, and as what a file is to be saved."""

_NEVER_TOLD = {"x-request-id", PEER_KEY}
"""The one is told under its own name, the other is the caller's own address."""

_PROCESS = secrets.token_hex(8)
_COUNT = itertools.count(1)
"""Request ids name a call, they keep no secret: counting is a tenth of the price of drawing."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
MAX_USER_AGENT_CHARS = 256
MAX_IDEMPOTENCY_KEY_CHARS = 255


def _is_plain(text: str) -> bool:
    """Whether gRPC can carry a text: printable ASCII."""
    return text.isascii() and text.isprintable()


def _told(text: str) -> str:
    """What cannot be passed on must not look as if it had not been sent."""
    return text if _is_plain(text) else "unreadable"


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's request id if it is fit to be shown in headers and logs, else a new one."""
    given = headers.get(REQUEST_ID)
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_PROCESS}-{next(_COUNT):x}"


def forwarded_of(headers: MultiMapping[str]) -> str:
    """What proxies say of who called them; each may have put a header of its own."""
    return ", ".join(headers.getall(FORWARDED_KEY, ()))


def metadata_of(request: web.BaseRequest, request_id: str) -> list[tuple[str, str]]:
    """What the core is told about a caller. A header that gRPC could not carry is left out."""
    headers = request.headers
    metadata = [("x-request-id", request_id)]
    for name, key in _CREDENTIAL_HEADERS.items():
        value = headers.get(name)
        if value and _is_plain(value):
            metadata.append((key, value.strip()))
    agent = headers.get("User-Agent")
    if agent:
        shown = agent[:MAX_USER_AGENT_CHARS]
        if not _is_plain(shown):
            shown = "".join(c if " " <= c <= "~" else "?" for c in shown)
        metadata.append(("user-agent", shown))
    if FORWARDED_KEY in headers:
        metadata.append((FORWARDED_KEY, _told(forwarded_of(headers))))
    remote = request.remote
    if remote:
        metadata.append((PEER_KEY, remote))
    for name, key in _PLACE_HEADERS.items():
        place = headers.get(name)
        if place is not None:
            metadata.append((key, _told(place)))
    return metadata


def take_credentials(
    query: str, metadata: list[tuple[str, str]], own_parameters: Iterable[str]
) -> str:
    """Move credentials from a stream's query into its metadata; give the query without them.

    A parameter that the request itself has (`own_parameters`) is left alone. A header wins.
    """
    if not query:
        return query
    kept = []
    present = {key for key, _ in metadata}
    own = set(own_parameters)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return query  # refused where it is read
    for name, value in pairs:
        if name not in _CREDENTIAL_PARAMETERS or name in own:
            kept.append((name, value))
            continue
        key, prefix = _CREDENTIAL_PARAMETERS[name]
        if key not in present and value and _is_plain(value):
            metadata.append((key, prefix + value))
    return urlencode(kept)


def take_protocol_credential(
    headers: Mapping[str, str], metadata: list[tuple[str, str]]
) -> tuple[str, ...]:
    """Read `Sec-WebSocket-Protocol: Authorization, <token>` into metadata.

    The token may be preceded by "Bearer ", though browsers cannot send a space there. Gives the
    subprotocols to agree to.
    """
    offered = [item.strip() for item in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if CREDENTIAL_PROTOCOL not in offered:
        return ()
    position = offered.index(CREDENTIAL_PROTOCOL) + 1
    token = offered[position] if position < len(offered) else ""
    token = token.removeprefix("Bearer").strip() if token.startswith("Bearer ") else token
    present = any(key == "authorization" for key, _ in metadata)
    if token and not present and _is_plain(token):
        metadata.append(("authorization", f"Bearer {token}"))
    return (CREDENTIAL_PROTOCOL,)


def timeout_of(headers: Mapping[str, str], default_s: float | None, max_s: float) -> float | None:
    """The deadline a caller asks for, in seconds from now.

    Raises:
        FieldErrors: the header is not of its form.
    """
    seconds = headers.get("X-Request-Timeout")
    if seconds is not None:
        if not _SECONDS.fullmatch(seconds):
            raise FieldErrors({"X-Request-Timeout": "must be a number of seconds, such as 2.5"})
        return min(float(seconds), max_s)
    timeout = headers.get("grpc-timeout")
    if timeout is not None:
        found = _GRPC_TIMEOUT.fullmatch(timeout)
        if found is None:
            raise FieldErrors({"grpc-timeout": "must be a number and one of HMSmun, such as 250m"})
        return min(int(found[1]) * _UNIT_S[found[2]], max_s)
    return default_s


def idempotency_key_of(headers: Mapping[str, str]) -> str:
    """The caller's `Idempotency-Key`, or "".

    Raises:
        FieldErrors: it is too long or not printable ASCII.
    """
    key = headers.get("Idempotency-Key")
    if key is None:
        return ""
    key = key.strip()
    if len(key) > MAX_IDEMPOTENCY_KEY_CHARS or not _is_plain(key):
        raise FieldErrors(
            {"Idempotency-Key": f"must be up to {MAX_IDEMPOTENCY_KEY_CHARS} printable characters"}
        )
    return key


def fill_request_id(message: Message, field_name: str, headers: Mapping[str, str]) -> None:
    """Let the caller's `Idempotency-Key` stand for a request id that the message does not give.

    Raises:
        FieldErrors: the header is not of its form.
    """
    if field_name and (key := idempotency_key_of(headers)) and not getattr(message, field_name):
        setattr(message, field_name, key)


def plain_media_type(text: str) -> str:
    """A media type as it may stand in a header; bytes of no known type if it may not."""
    return text if text and _is_plain(text) else "application/octet-stream"


def headers_of(metadata: Metadata) -> dict[str, str]:
    """The metadata of an answer that its caller may see as headers."""
    return {
        key: value
        for key, value in metadata
        if key not in _NEVER_TOLD
        and isinstance(value, str)
        and (key.startswith("x-") or key in _TOLD)
        and _is_plain(value)
    }
