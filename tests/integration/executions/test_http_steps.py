"""The step that sends HTTP requests, to sites on this machine."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from steward_server.credential import Credential
from steward_server.executions.steps import http
from tests.certificates import Authority
from tests.integration.executions.acting import do, failure
from tests.jobs import TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = http.work()
COME = web.AppKey("come", asyncio.Event)
LEFT = web.AppKey("left", asyncio.Event)
KIM = Credential("site", "kim", "p:ss wörd")


async def echo(request: web.Request) -> web.Response:
    """What came, as JSON."""
    told = {
        "method": request.method,
        "path": request.path_qs,
        "headers": {name.lower(): text for name, text in request.headers.items()},
        "body": (await request.read()).decode(),
    }
    return web.json_response(told, headers={"X-Reply": "yes"})


async def answer(request: web.Request) -> web.Response:
    """Answers the status in its path; it leads to `to`."""
    headers = {"Location": request.query["to"]} if "to" in request.query else {}
    return web.Response(
        status=int(request.match_info["status"]), text="so\n  it is\n", headers=headers
    )


async def loop(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])
    return web.Response(status=302, headers={"Location": f"/loop/{number + 1}"})


async def slow(request: web.Request) -> web.Response:
    request.app[COME].set()
    try:
        await asyncio.sleep(30)
    finally:
        request.app[LEFT].set()
    return web.Response()


async def large(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * int(request.match_info["size"]))


async def bomb(request: web.Request) -> web.Response:
    """A quarter of a megabyte that is 256 MiB."""
    data = gzip.compress(bytes(1024**2)) * 256
    return web.Response(body=data, headers={"Content-Encoding": "gzip"})


async def text(request: web.Request) -> web.Response:
    charset = request.match_info["charset"]
    content_type = f"text/plain; charset={charset}"
    return web.Response(body="wörd".encode("latin-1"), headers={"Content-Type": content_type})


async def deep(request: web.Request) -> web.Response:
    return web.Response(body=b"[" * 100 + b"]" * 100)


ROUTES = [
    web.route("*", "/echo", echo),
    web.route("*", "/answer/{status}", answer),
    web.get("/loop/{number}", loop),
    web.get("/slow", slow),
    web.get("/large/{size}", large),
    web.get("/bomb", bomb),
    web.get("/text/{charset}", text),
    web.get("/deep", deep),
]


@asynccontextmanager
async def site_of(
    app: web.Application, context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    app.add_routes(ROUTES)
    app[COME], app[LEFT] = asyncio.Event(), asyncio.Event()
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    served = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await served.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app() -> web.Application:
    return web.Application()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(app: web.Application) -> AsyncIterator[str]:
    async with site_of(app) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def elsewhere() -> AsyncIterator[str]:
    """Another site."""
    async with site_of(web.Application()) as url:
        yield url


@asynccontextmanager
async def raw(said: bytes) -> AsyncIterator[str]:
    """A site that says the same to everybody, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.fixture
def session(tmp_path: Path) -> TestSession:
    return TestSession(tmp_path)


async def request(session: TestSession, url: str, **parameters: Any) -> Any:
    return await do(session, WORK, "http.request", url=url, **parameters)


async def test_an_answer_is_given_whole(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/echo?a=1", headers={"X-Asked": "yes"})
    assert outputs["status"] == 200
    assert outputs["headers"]["x-reply"] == "yes"
    assert outputs["json"] == orjson.loads(outputs["body"])
    told = outputs["json"]
    assert (told["method"], told["path"], told["body"]) == ("GET", "/echo?a=1", "")
    assert (told["headers"]["x-asked"], told["headers"]["user-agent"]) == ("yes", "steward")


async def test_text_is_sent_as_it_is(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/echo", method="POST", body="grün")
    assert (outputs["json"]["method"], outputs["json"]["body"]) == ("POST", "grün")


async def test_values_are_sent_as_json(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/echo", method="PUT", json={"a": [1, None]})
    assert outputs["json"]["body"] == '{"a":[1,null]}'
    assert outputs["json"]["headers"]["content-type"] == "application/json"


async def test_what_is_no_json_has_none(session: TestSession, site: str) -> None:
    assert (await request(session, f"{site}/answer/200"))["json"] is None


async def test_json_that_is_nested_too_deep_is_text_only(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/deep")
    assert (outputs["json"], len(outputs["body"])) == (None, 200)


@pytest.mark.parametrize(("charset", "read"), [("latin-1", "wörd"), ("klingon", "w\ufffdrd")])
async def test_text_is_read_as_it_says_it_is_written(
    session: TestSession, site: str, charset: str, read: str
) -> None:
    assert (await request(session, f"{site}/text/{charset}"))["body"] == read


async def test_a_head_has_no_body(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/large/5000000", method="HEAD")
    assert (outputs["body"], outputs["headers"]["content-length"]) == ("", "5000000")


async def test_a_credential_signs_in(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/echo", credential=KIM)
    scheme, _, sent = outputs["json"]["headers"]["authorization"].partition(" ")
    assert (scheme, base64.b64decode(sent).decode()) == ("Basic", "kim:p:ss wörd")


async def test_a_name_that_cannot_sign_in_is_told(session: TestSession, site: str) -> None:
    failed = await failure(request(session, f"{site}/echo", credential=Credential("s", "a:b", "")))
    assert str(failed) == "a name with ':' in it cannot sign in by HTTP basic authentication"


async def test_a_credential_beside_a_header_of_its_own_is_refused(
    session: TestSession, site: str
) -> None:
    failed = await failure(
        request(session, f"{site}/echo", credential=KIM, headers={"Authorization": "Bearer x"})
    )
    assert "'authorization' and a credential" in str(failed)


async def test_an_answer_that_is_not_expected_fails_with_its_beginning(
    session: TestSession, site: str
) -> None:
    failed = await failure(request(session, f"{site}/answer/503?token=secret"))
    assert str(failed) == f"{site}/answer/503 answered 503, not 200 to 299: so it is"
    assert failed.context == {"status": 503, "body": "so\n  it is\n"}


async def test_what_is_expected_can_be_chosen(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/answer/404", expected_status=[404, 410])
    assert outputs["status"] == 404
    failed = await failure(request(session, f"{site}/answer/200", expected_status=[404, 410]))
    assert "answered 200, not 404 or 410" in str(failed)


# Where answers lead.


async def test_a_redirect_is_followed_with_all_that_was_sent(
    session: TestSession, site: str
) -> None:
    outputs = await request(
        session,
        f"{site}/answer/307?to=/echo",
        method="POST",
        body="kept",
        headers={"X-Key": "k"},
        credential=KIM,
    )
    told = outputs["json"]
    assert (told["method"], told["body"], told["headers"]["x-key"]) == ("POST", "kept", "k")
    assert "authorization" in told["headers"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_what_was_sent_may_be_looked_at_elsewhere(
    session: TestSession, site: str, status: int
) -> None:
    url = f"{site}/answer/{status}?to=/echo"
    told = (await request(session, url, method="POST", json={}))["json"]
    assert (told["method"], told["body"]) == ("GET", "")
    assert "content-type" not in told["headers"]


async def test_a_redirect_that_is_expected_is_not_followed(session: TestSession, site: str) -> None:
    outputs = await request(session, f"{site}/answer/302?to=/echo", expected_status=[302])
    assert (outputs["status"], outputs["headers"]["location"]) == (302, "/echo")


async def test_another_host_is_sent_nothing_that_may_be_secret(
    session: TestSession, site: str, elsewhere: str
) -> None:
    outputs = await request(
        session,
        f"{site}/answer/302?to={elsewhere}/echo",
        headers={"Accept": "text/plain", "X-Api-Key": "k", "Cookie": "c=1"},
        credential=KIM,
    )
    headers = outputs["json"]["headers"]
    assert headers["accept"] == "text/plain"
    assert not {"authorization", "x-api-key", "cookie"} & set(headers)


async def test_what_an_answer_says_of_who_to_be_is_not_believed(
    session: TestSession, site: str
) -> None:
    there = f"{site}/echo".replace("//", "//eve:guess@")
    outputs = await request(session, f"{site}/answer/302?to={there}")
    assert "authorization" not in outputs["json"]["headers"]


async def test_another_host_is_not_sent_the_body(
    session: TestSession, site: str, elsewhere: str
) -> None:
    url = f"{site}/answer/307?to={elsewhere}/echo"
    failed = await failure(request(session, url, method="POST", body="mine"))
    assert "another host, which would be sent the body" in str(failed)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://["])
async def test_redirects_lead_only_to_the_web(session: TestSession, site: str, to: str) -> None:
    failed = await failure(request(session, f"{site}/answer/302?to={to}"))
    assert "leads to what is no http:// or https:// address" in str(failed)


async def test_redirects_without_end_fail(session: TestSession, site: str) -> None:
    failed = await failure(request(session, f"{site}/loop/1"))
    assert str(failed).startswith("more than 5 redirects, the last one to ")


# What is closed.

CLOSED = [
    "169.254.169.254",
    "169.254.170.2",
    "0xa9fea9fe",
    "[::ffff:169.254.169.254]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1%25lo]",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
]


@pytest.mark.parametrize("host", CLOSED)
async def test_metadata_and_link_local_addresses_are_closed(
    session: TestSession, host: str
) -> None:
    failed = await failure(request(session, f"http://{host}/latest/meta-data", timeout=1))
    assert "is closed to steps: it is link-local, or a cloud's metadata" in str(failed)


async def test_no_redirect_leads_to_what_is_closed(session: TestSession, site: str) -> None:
    url = f"{site}/answer/302?to=http://169.254.169.254/"
    failed = await failure(request(session, url, timeout=1))
    assert "is closed to steps" in str(failed)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What names are told to stand for, one lookup after the other."""
    told: dict[str, list[list[str]]] = {}
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: Any, host: Any, port: Any, **named: Any) -> Any:
        if host not in told:
            return await real(self, host, port, **named)
        if not told[host]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in told[host].pop(0)
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return told


async def test_a_name_that_stands_for_a_closed_address_is_closed(
    session: TestSession, names: dict[str, list[list[str]]]
) -> None:
    names["metadata.test"] = [["169.254.169.254", "100.100.100.200"]]
    failed = await failure(request(session, "http://metadata.test/", timeout=1))
    assert "is closed to steps" in str(failed)


async def test_a_name_that_comes_to_stand_for_another_address_is_closed_then(
    session: TestSession, site: str, names: dict[str, list[list[str]]]
) -> None:
    """What is looked at is the address of each connection, and no lookup before it."""
    names["turning.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    url = f"http://turning.test:{site.rpartition(':')[2]}/answer/200"
    assert (await request(session, url))["status"] == 200
    failed = await failure(request(session, url, timeout=1))
    assert "169.254.169.254 is closed to steps" in str(failed)


async def test_an_unknown_host_is_told(
    session: TestSession, names: dict[str, list[list[str]]]
) -> None:
    names["nowhere.test"] = []
    failed = await failure(request(session, "http://nowhere.test/"))
    assert str(failed).startswith("there is no host 'nowhere.test'")


# What goes wrong.


async def test_a_port_on_which_nobody_listens_is_told(session: TestSession) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/?key=secret"
        failed = await failure(request(session, url))
    assert str(failed).endswith(
        "/ cannot be reached: the connection is refused; does anything listen there?"
    )
    assert "secret" not in str(failed)


async def test_an_answer_that_does_not_come_is_waited_for_so_long(
    session: TestSession, site: str
) -> None:
    failed = await failure(request(session, f"{site}/slow", timeout=0.05))
    assert str(failed) == f"{site}/slow did not answer within 0.05 s"


async def test_a_step_that_is_cancelled_closes_its_connection(
    session: TestSession, site: str, app: web.Application
) -> None:
    app[COME].clear()
    app[LEFT].clear()
    task = asyncio.ensure_future(request(session, f"{site}/slow"))
    await app[COME].wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        await app[LEFT].wait()


async def test_an_answer_of_a_megabyte_is_taken_and_a_larger_one_fails(
    session: TestSession, site: str
) -> None:
    outputs = await request(session, f"{site}/large/{http.MOST_BODY}")
    assert len(outputs["body"]) == http.MOST_BODY
    failed = await failure(request(session, f"{site}/large/{http.MOST_BODY + 1}"))
    assert "answered more than 1048576 bytes" in str(failed)


async def test_a_small_answer_that_becomes_a_huge_one_fails_as_well(
    session: TestSession, site: str
) -> None:
    failed = await failure(request(session, f"{site}/bomb"))
    assert "answered more than 1048576 bytes" in str(failed)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "gave an answer that is no HTTP"),
        (b"", "gave no whole answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "gave no whole answer"),
    ],
    ids=["another protocol", "nothing", "half"],
)
async def test_what_is_no_whole_answer_is_told(
    session: TestSession, said: bytes, told: str
) -> None:
    async with raw(said) as url:
        failed = await failure(request(session, url))
    assert told in str(failed)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/", "http://:80/", "http://[::1/", "http://2852039166/"]
)
async def test_a_url_that_cannot_be_read_is_told(session: TestSession, url: str) -> None:
    failed = await failure(request(session, url))
    assert str(failed).startswith("the URL cannot be read")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"X-A": "1\r\nX-B: 2"}, "holds a control character"),
        ({"X A": "1"}, "cannot have the header 'X A'"),
        ({"Content-Length": "5"}, "cannot have the header 'Content-Length'"),
        ({"Transfer-Encoding": "chunked"}, "cannot have the header 'Transfer-Encoding'"),
    ],
    ids=["a line break", "a space", "a length", "an encoding"],
)
async def test_headers_that_would_forge_a_request_are_refused(
    session: TestSession, site: str, headers: dict[str, str], told: str
) -> None:
    failed = await failure(request(session, f"{site}/echo", headers=headers))
    assert told in str(failed)


async def test_tls_that_is_not_what_it_should_be_is_told(session: TestSession, site: str) -> None:
    failed = await failure(request(session, site.replace("http:", "https:")))
    assert "does not speak TLS as it should" in str(failed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def encrypted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    """A site with a certificate, and whom to trust for that."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    pair = authority.sign("site")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    async with site_of(web.Application(), context) as url:
        yield url, authority.cert


async def test_a_certificate_that_nobody_trusts_is_told(
    session: TestSession, encrypted: tuple[str, Path]
) -> None:
    failed = await failure(request(session, f"{encrypted[0]}/echo"))
    assert str(failed).startswith(f"the certificate of {encrypted[0]}/echo is not good: ")
    assert "unable to get local issuer certificate" in str(failed)


async def test_what_was_encrypted_stays_so(
    session: TestSession,
    site: str,
    encrypted: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, authority = encrypted
    trusting = ssl.create_default_context(cafile=authority)
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
    assert (await request(session, f"{url}/echo"))["status"] == 200
    assert (await request(session, f"{site}/answer/302?to={url}/echo"))["status"] == 200
    failed = await failure(request(session, f"{url}/answer/302?to={site}/echo"))
    assert str(failed).endswith(f"leads to {site}/echo, which is not encrypted")
