"""The way to one Ignition gateway: requests, whole answers, and who is signed in.

People sign in as a browser does: at the gateway's own identity provider, by challenges whose token
changes with each. Their session is in cookies, and what changes something needs its CSRF token as
well. An API key goes with each request instead. Nothing of an answer is believed before it is
looked at.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import aiohttp
from yarl import URL

from steward_server.config import setting
from steward_server.executions.steps.http import ClosedAddress, open_socket
from steward_server.executions.steps.ignition_answers import (
    Answer,
    NotSignedIn,
    Unavailable,
    not_set_up,
    refused,
    shown,
    went_well,
    without_redirect,
)
from steward_server.executions.work import StepFailed

MAX_ANSWER_BYTES = 4 << 20
"""No answer that is used here comes near it."""
_MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class IgnitionConfig:
    """How Ignition gateways are called; the section `ignition` of the settings."""

    request_timeout_s: float = setting(
        30.0, "How long a gateway may take for an answer, in seconds.", minimum=0.01, maximum=600
    )
    upload_timeout_s: float = setting(
        600.0, "How long a module may take to be uploaded, in seconds.", minimum=0.01
    )
    poll_s: float = setting(
        2.0, "How long to wait between two looks at what is waited for, in seconds.", minimum=0.01
    )
    settle_s: float = setting(
        10.0,
        "How long a gateway that was told to restart, or to install something, may still show what "
        "was before, in seconds.",
        minimum=0,
    )
    ca_file: Path | None = setting(
        None, "PEM certificates that sign those of gateways; unset: those the system trusts."
    )


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who signs in; or, with an API key, its name and the key."""

    username: str
    password: str = field(repr=False)
    is_api_key: bool = False


class Link:
    """Talks to one gateway, and keeps its session."""

    def __init__(self, http: aiohttp.ClientSession, base: URL, config: IgnitionConfig) -> None:
        self._http = http
        self._base = base
        self._config = config
        self._csrf_token = ""
        self._who: SignIn | None = None

    @property
    def address(self) -> str:
        """Of the gateway, as it is told to people."""
        return str(self._base).rstrip("/")

    @property
    def is_signed_in(self) -> bool:
        """Whether somebody signed in, and not out again; their session may have ended since."""
        return self._who is not None

    async def sign_in(self, who: SignIn) -> None:
        """Sign in, instead of whoever was.

        Raises:
            StepFailed: it does not let them in.
        """
        self.forget()
        await (self._try_api_key(who) if who.is_api_key else self._sign_in_by_password(who))
        self._who = who

    async def sign_in_again(self) -> None:
        """As whoever signed in last.

        Raises:
            StepFailed: it does not let them in any more.
        """
        if self._who is None:
            raise self._nobody()
        who = self._who
        try:
            await self.sign_in(who)
        finally:
            self._who = who

    async def check_session(self) -> None:
        """Make sure that whoever signed in still is.

        Raises:
            NotSignedIn: they are not.
        """
        await self.call("GET", "/data/api/v1/gateway-info")

    async def sign_out(self) -> None:
        """End the session. It is forgotten here, whatever the gateway says.

        Raises:
            StepFailed: the gateway cannot be told.
        """
        try:
            if self._who is not None and not self._who.is_api_key:
                answer = await self._send("GET", "/data/app/logout")
                if answer.status >= 500:
                    raise refused(answer)
        finally:
            self.forget()

    def forget(self) -> None:
        """Nobody is signed in here."""
        self._who = None
        self._csrf_token = ""
        self._http.cookie_jar.clear()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: IO[bytes] | None = None,
        statuses: Collection[int] = (),
    ) -> Answer:
        """Have something done, as whoever signed in; gives the answer to what went well.

        Args:
            method: of HTTP.
            path: on the gateway.
            query: what the URL has beside it.
            content: a file that is sent, piece by piece.
            statuses: others that are no failure.

        Raises:
            NotSignedIn: nobody is.
            Unavailable: the gateway does not serve now.
            StepFailed: anything else is wrong.
        """
        if self._who is None:
            raise self._nobody()
        answer = await self._send(method, path, query=query, content=content)
        return answer if answer.status in statuses else went_well(answer)

    async def ask(self, path: str) -> Answer:
        """Ask for what everybody may know; gives the answer.

        Raises:
            Unavailable: the gateway does not serve now.
            StepFailed: anything else is wrong.
        """
        return went_well(await self._exchange("GET", self._at(path)))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: IO[bytes] | None = None,
    ) -> Answer:
        headers = {}
        if self._who is not None and self._who.is_api_key:
            headers["X-Ignition-API-Token"] = _api_token(self._who)
        elif self._csrf_token and method != "GET":
            headers["X-CSRF-Token"] = self._csrf_token
        url = self._at(path).with_query(query or {})
        return await self._exchange(method, url, headers=headers, content=content)

    def _at(self, path: str) -> URL:
        return URL(self.address + path, encoded=True)

    def _nobody(self) -> NotSignedIn:
        return NotSignedIn(
            f"nobody is signed in to {self.address}; put a gateway.login step before this one"
        )

    async def _try_api_key(self, who: SignIn) -> None:
        if not _api_token(who).isprintable():
            raise StepFailed(f"the API key {who.username!r} has characters that no key has")
        answer = await self._exchange(
            "GET",
            self._at("/data/api/v1/gateway-info"),
            headers={"X-Ignition-API-Token": _api_token(who)},
        )
        if answer.status == 401:
            raise StepFailed(
                f"{self.address} does not know the API key {who.username!r}; the username is the "
                "key's name and the password what follows its colon",
                **answer.context,
            )
        went_well(_without_words(answer))

    async def _sign_in_by_password(self, who: SignIn) -> None:
        passed = await self._redirects(self._at("/data/app/login"), "/authn/login")
        login = passed[-1]
        token = login.query.get("token", "")
        asked = [url for url in passed if url.path.endswith("/oidc/auth")]
        if not login.path.endswith("/authn/login") or not token or not asked:
            raise StepFailed(
                f"{self.address} does not sign people in itself; use an API key (method: api_key)"
            )
        authn = login.with_query(None).parent
        first = await self._challenge(authn / "next-challenge", {"token": token})
        kinds = [each.get("type") for each in _maps(first.get("nextChallenge"))]
        if kinds and "basic" not in kinds:
            raise StepFailed(
                f"{self.address} asks for something else than a name and a password; use an API "
                "key (method: api_key)"
            )
        given = {"username": who.username, "password": who.password}
        entered = await self._challenge(
            authn / "submit-challenge" / "basic",
            {"token": first["token"], "rememberMe": False, "challenge": given},
        )
        if entered.get("success") is not True:
            raise StepFailed(
                f"{self.address} refuses {who.username!r}: the name or the password is wrong, or "
                "they are locked out"
            )
        last = await self._challenge(authn / "next-challenge", {"token": entered["token"]})
        if last.get("complete") is not True:
            expired = last.get("passwordExpired") is True
            why = "a new password" if expired else "more than a name and a password"
            raise StepFailed(
                f"{self.address} wants {why} of {who.username!r}; sign in to it in a browser, or "
                "use an API key (method: api_key)"
            )
        await self._redirects(asked[-1].update_query(token=last["token"]), "/app")
        answer = went_well(await self._send("GET", "/data/app/session"))
        session = answer.json()
        csrf_token = session.get("csrfToken") if isinstance(session, dict) else None
        if not isinstance(csrf_token, str) or not csrf_token:
            raise answer.odd("a session")
        self._csrf_token = csrf_token

    async def _challenge(self, url: URL, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a challenge of the identity provider; gives the next, with its token."""
        answer = await self._exchange("POST", url, json=given)
        if answer.status in (400, 401, 403):
            raise StepFailed(
                f"{self.address} refuses to sign anybody in here, or the name or the password is "
                "wrong",
                **answer.context,
            )
        if answer.status >= 300:
            raise refused(_without_words(answer))
        told = answer.json()
        if not isinstance(told, dict) or not isinstance(told.get("token"), str):
            raise answer.odd("a challenge")
        return told

    async def _redirects(self, url: URL, until: str) -> list[URL]:
        """Where redirects lead, at least to one place; the one that ends so is not asked.

        Raises:
            StepFailed: they lead to another host, or nowhere.
        """
        passed: list[URL] = []
        for _ in range(_MAX_REDIRECTS):
            answer = await self._exchange("GET", url)
            if answer.location is None:
                if passed and answer.status < 400:
                    return passed
                raise without_redirect(answer)
            url = answer.location
            if answer.leads_away and url.host == self._base.host:
                raise refused(answer)  # mostly to https
            if answer.leads_away:
                raise StepFailed(
                    f"{self.address} has people signed in by {shown(url.origin())}, which is not "
                    "asked; if that is the gateway, name it as its URL, else use an API key "
                    "(method: api_key)",
                    **answer.context,
                )
            if url.path.startswith("/welcome"):
                raise not_set_up(answer)
            passed.append(url)
            if url.path.rstrip("/").endswith(until):
                return passed
        raise StepFailed(f"{self.address} redirects without end", request=f"GET {shown(url)}")

    async def _exchange(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: IO[bytes] | None = None,
    ) -> Answer:
        """One request; redirects are not followed.

        Raises:
            Unavailable: there is no whole answer.
            StepFailed: what answers is no gateway, or cannot be trusted.
        """
        config = self._config
        timeout_s = config.request_timeout_s if content is None else config.upload_timeout_s
        where = f"{method} {shown(url)}"
        sent = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # what is small may unpack to anything
            "Origin": str(self._base.origin()),
            **(headers or {}),
        }
        if content is not None:
            sent["Content-Type"] = "application/octet-stream"
        try:
            async with self._http.request(
                method,
                url,
                headers=sent,
                json=json,
                data=content,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                body = await _bounded(response)
                location = _location(response, url, where)
                return Answer(
                    where,
                    response.status,
                    response.content_type[:100],
                    body,
                    location,
                    location is not None and location.origin() != url.origin(),
                )
        except (aiohttp.ClientError, OSError, _TooLong, ValueError) as error:
            raise self._broken(error, where, timeout_s) from None

    def _broken(self, error: Exception, where: str, timeout_s: float) -> StepFailed:
        context = {"request": where, "error": type(error).__name__}
        match error:
            case _TooLong():
                return StepFailed(
                    f"{where} was answered with more than {MAX_ANSWER_BYTES >> 20} MiB; is this "
                    "an Ignition gateway?",
                    **context,
                )
            case TimeoutError():
                return Unavailable(
                    f"{self.address} gave no whole answer within {timeout_s:g} s; is it "
                    "overloaded, or something on the way to it?",
                    **context,
                )
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                return StepFailed(
                    f"the certificate of {self.address} is not trusted; set "
                    "STEWARD_IGNITION_CA_FILE to the one that signed it, or fix the gateway's URL",
                    **context,
                )
            case aiohttp.ClientConnectorDNSError():
                return Unavailable(
                    f"no host {self._base.host!r} is known; check the gateway's URL, "
                    f"{self.address}",
                    **context,
                )
            case aiohttp.ClientConnectorError(os_error=ClosedAddress() as closed):
                return StepFailed(f"{self.address} is no gateway: {closed}", **context)
            case aiohttp.ClientConnectorError():
                return Unavailable(
                    f"nothing answers at {self.address}; is the gateway running, and its URL "
                    "right?",
                    **context,
                )
            case (
                aiohttp.ServerDisconnectedError()
                | aiohttp.ClientPayloadError()
                | aiohttp.ClientOSError()
            ):
                return Unavailable(
                    f"{self.address} closed the connection in the middle of {where}; if this goes "
                    "on, look at the gateway's logs",
                    **context,
                )
        return StepFailed(
            f"what answers at {self.address} does not speak HTTP; check the gateway's URL",
            **context,
        )


@asynccontextmanager
async def linked(
    address: str, config: IgnitionConfig, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Link]:
    """A link to a gateway, for as long as the block lasts.

    Raises:
        StepFailed: the address is none.
    """
    connector = aiohttp.TCPConnector(
        # A gateway that restarts leaves old connections dead; there are few requests anyway.
        force_close=True,
        use_dns_cache=False,
        socket_factory=open_socket,
        ssl=True if trust is None else trust,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        # Gateways are often known by an address, not by a name.
        cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False),
        headers={"User-Agent": "Steward-Playbooks/1"},
        trust_env=False,
        auto_decompress=False,
    ) as http:
        yield Link(http, base_url(address), config)


def base_url(address: str) -> URL:
    """Where a gateway is.

    Raises:
        StepFailed: it is not told well.
    """
    try:
        url = URL(address)
        is_good = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        is_good = False
    if not is_good:
        raise StepFailed("the gateway's URL is none; write it as in http://gateway.example:8088")
    if url.user is not None or url.password is not None:
        raise StepFailed(
            "the gateway's URL has a user or a password in it; take that out, and sign in with "
            "gateway.login"
        )
    return url.with_query(None).with_fragment(None)


class _TooLong(Exception):
    """An answer has more than anybody needs."""


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise _TooLong
    return bytes(body)


def _location(response: aiohttp.ClientResponse, url: URL, where: str) -> URL | None:
    """Where an answer leads; None if nowhere."""
    location = response.headers.get("Location")
    if location is None or not 300 <= response.status < 400:
        return None
    try:
        joined = url.join(URL(location))
        joined.origin()
    except ValueError:
        raise StepFailed(f"{where} leads to something that is no URL") from None
    return joined


def _without_words(answer: Answer) -> Answer:
    """An answer to a secret: what is said of it is not told on, or it could be told with it."""
    return replace(answer, body=b"")


def _api_token(who: SignIn) -> str:
    return f"{who.username}:{who.password}"


def _maps(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
