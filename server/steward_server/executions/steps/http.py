"""The step that sends an HTTP request.

A run may reach what this server reaches: other machines of the house, and services on this one.
Closed are addresses that mean something to a cloud's own machines alone. A name may not come to
mean one either, so that it is the address of each connection that is looked at.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson
from yarl import URL

from steward_server.credential import Credential
from steward_server.executions.steps.closed import is_closed
from steward_server.executions.steps.values import is_deep
from steward_server.executions.work import Job, StepFailed, Work

MOST_BODY = 1_048_576
"""Bytes of an answer."""
MOST_REDIRECTS = 5
_SHOWN = 500
"""Characters of the beginning of an answer, in a failure."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_FRAMING = {"connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer"}
"""Headers that say where a request ends, which is not for steps to say."""
_HARMLESS = {"accept", "accept-language", "content-type", "user-agent"}
"""Headers that go to another host as well, where an answer leads there."""
_UNREADABLE = "the URL cannot be read; it is http:// or https://, a host, and a path"
_REDIRECTS = {301, 302, 303, 307, 308}


class ClosedAddress(OSError):
    """An address that is closed to steps."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is closed to steps: it is link-local, or a cloud's metadata")


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: URL
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes | None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    text: str


def work() -> Mapping[str, Work]:
    """The work of this step, by type."""
    return {"http.request": _http_request}


async def _http_request(job: Job) -> Mapping[str, Any]:
    values, begun_s = job.values, time.perf_counter()
    request = _first(values)
    expected = values["expected_status"] or range(200, 300)
    try:
        async with asyncio.timeout(values["timeout"]), _session() as session:
            answer = await _answered(session, request, expected)
    except TimeoutError:
        raise StepFailed(
            f"{_shown(request.url)} did not answer within {values['timeout']:g} s"
        ) from None
    if answer.status not in expected:
        wanted = values["expected_status"] or ["200 to 299"]
        beginning = " ".join(answer.text[:_SHOWN].split())
        raise StepFailed(
            f"{_shown(request.url)} answered {answer.status}, not "
            f"{' or '.join(map(str, wanted))}{f': {beginning}' if beginning else ''}",
            status=answer.status,
            body=answer.text[:_SHOWN],
        )
    return {
        "status": answer.status,
        "headers": dict(answer.headers),
        "body": answer.text,
        "json": _json(answer.body),
        "duration_ms": round((time.perf_counter() - begun_s) * 1000),
    }


def _first(values: Mapping[str, Any]) -> _Request:
    """The request that a step asks for.

    Raises:
        StepFailed: it is none that can be sent.
    """
    headers = {"user-agent": "steward"}
    for name, text in values["headers"].items():
        if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING:
            raise StepFailed(f"a request of a step cannot have the header {name!r}")
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
            raise StepFailed(f"the header {name!r} holds a control character")
        headers[name.lower()] = text
    body = values["body"].encode() if values["body"] is not None else None
    if values["json"] is not None:
        body = orjson.dumps(values["json"], default=dict)
        headers.setdefault("content-type", "application/json")
    url = _url(values["url"])
    basic = _basic(values["credential"], url)
    if basic is not None:
        if "authorization" in headers:
            raise StepFailed("the request has the header 'authorization' and a credential as well")
        headers["authorization"] = basic
    return _Request(values["method"], url.with_user(None), headers, body)


def _url(text: str) -> URL:
    try:
        url = URL(text)
        if url.scheme in ("http", "https") and url.host and url.port:
            return url
    except ValueError:
        pass
    raise StepFailed(_UNREADABLE)


def _basic(credential: Credential | None, url: URL) -> str | None:
    """What signs in as a credential, or as whom the URL names."""
    if credential is not None:
        name, password = credential.username, credential.password
    elif url.user is not None:
        name, password = url.user, url.password or ""
    else:
        return None
    if ":" in name:
        raise StepFailed("a name with ':' in it cannot sign in by HTTP basic authentication")
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(socket_factory=open_socket, force_close=True)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=False,
    )


def open_socket(address_info: Any) -> socket.socket:
    """A socket for one connection, to an address that was looked up or written out.

    Raises:
        ClosedAddress: it may not be reached.
    """
    family, kind, protocol, _, address = address_info
    if is_closed(ipaddress.ip_address(address[0].partition("%")[0])):
        raise ClosedAddress(address[0])
    return socket.socket(family, kind, protocol)


async def _answered(session: aiohttp.ClientSession, request: _Request, expected: Any) -> _Answer:
    """The answer to a request, or to what it leads to."""
    for _ in range(MOST_REDIRECTS + 1):
        answer = await _sent(session, request)
        leads = answer.status in _REDIRECTS and answer.status not in expected
        if not leads or "location" not in answer.headers:
            return answer
        request = _led_on(request, answer)
    raise StepFailed(f"more than {MOST_REDIRECTS} redirects, the last one to {_shown(request.url)}")


def _led_on(request: _Request, answer: _Answer) -> _Request:
    """The request that an answer asks for.

    Raises:
        StepFailed: it leads where none may.
    """
    location = answer.headers["location"]
    where = f"{_shown(request.url)} answered {answer.status} and leads to"
    try:
        url = request.url.join(URL(location)).with_fragment(None)
        is_web = url.scheme in ("http", "https") and bool(url.host and url.port)
    except ValueError:
        is_web = False
    if not is_web:
        raise StepFailed(f"{where} what is no http:// or https:// address")
    if request.url.scheme == "https" and url.scheme == "http":
        raise StepFailed(f"{where} {_shown(url)}, which is not encrypted")
    is_elsewhere = url.origin() != request.url.origin()
    becomes_get = answer.status == 303 or (answer.status in (301, 302) and request.method == "POST")
    if becomes_get and request.method != "HEAD":
        headers = {name: text for name, text in request.headers.items() if name != "content-type"}
        request = replace(request, method="GET", headers=headers, body=None)
    if is_elsewhere:
        if request.body is not None:
            raise StepFailed(f"{where} {_shown(url)}, another host, which would be sent the body")
        headers = {name: text for name, text in request.headers.items() if name in _HARMLESS}
        request = replace(request, headers=headers)
    return replace(request, url=url.with_user(None))


async def _sent(session: aiohttp.ClientSession, request: _Request) -> _Answer:
    """One request, and its answer; answers are read to their end.

    Raises:
        StepFailed: there is no answer, or none that can be taken.
    """
    where = _shown(request.url)
    try:
        async with session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
        ) as response:
            body = await _body(response, where)
            return _Answer(
                response.status,
                {
                    name.lower(): ", ".join(response.headers.getall(name))
                    for name in response.headers
                },
                body,
                _text(body, response.charset),
            )
    except aiohttp.InvalidURL:
        raise StepFailed(_UNREADABLE) from None
    except aiohttp.ClientConnectorDNSError as error:
        raise StepFailed(f"there is no host {request.url.host!r}: {error.os_error}") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise StepFailed(f"the certificate of {where} is not good: {_certificate(error)}") from None
    except aiohttp.ClientSSLError as error:
        raise StepFailed(f"{where} does not speak TLS as it should: {error.os_error}") from None
    except aiohttp.ClientConnectorError as error:
        raise StepFailed(f"{where} cannot be reached: {_why(error.os_error)}") from None
    except aiohttp.ClientResponseError as error:
        raise StepFailed(f"{where} gave an answer that is no HTTP: {error.message}") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise StepFailed(f"{where} gave no whole answer: {error}") from None


async def _body(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BODY:
            raise StepFailed(
                f"{where} answered more than {MOST_BODY} bytes, which is more than a step takes",
                status=response.status,
            )
    return bytes(body)


def _text(body: bytes, charset: str | None) -> str:
    try:
        return body.decode(charset or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _json(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return None if is_deep(value) else value


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused; does anything listen there?"
    return error.strerror or str(error)


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    return str(getattr(found, "verify_message", "") or found)


def _shown(url: URL) -> str:
    """An address without what may be secret in it."""
    return str(url.with_user(None).with_query(None).with_fragment(None))
