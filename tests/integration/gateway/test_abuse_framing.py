"""Requests that two readers of HTTP could understand differently, and what is no HTTP: refused."""

from __future__ import annotations

import asyncio

import pytest

from steward_gateway.app import RunningGateway
from tests.raw_http import RawHttp, exchange, get

pytestmark = pytest.mark.parametrize("transport", ["in_process"], indirect=True)

POST = "POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = "2\r\n{}\r\n0\r\n\r\n"
RULES = "the request breaks the rules of HTTP/1.1"

BROKEN = {
    "length and chunks": POST + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and length": POST + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKS,
    "two lengths": POST + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "one length twice": POST + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + "Content-Length: 2, 2\r\n\r\n{}",
    "a negative length": POST + "Content-Length: -2\r\n\r\n{}",
    "a length with a plus": POST + "Content-Length: +2\r\n\r\n{}",
    "a length in hex": POST + "Content-Length: 0x2\r\n\r\n{}",
    "a length beyond 64 bits": POST + "Content-Length: 99999999999999999999999\r\n\r\n{}",
    "an empty length": POST + "Content-Length: \r\n\r\n{}",
    "a folded header": POST + "X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a folded first header": "POST /v1/tools HTTP/1.1\r\n Host: x\r\n\r\n",
    "lines that end in LF": (POST + "Content-Length: 2\r\n\r\n").replace("\r\n", "\n") + "{}",
    "a header that ends in LF": POST + "X-A: b\nContent-Length: 2\r\n\r\n{}",
    "a CR in a header": POST + "X-A: b\rX-B: c\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": POST + "Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": POST + "Content-Length\t: 2\r\n\r\n{}",
    "a space in a name": POST + "Content Length: 2\r\n\r\n{}",
    "a header without a colon": POST + "ContentLength\r\n\r\n{}",
    "a header without a name": POST + ": 2\r\n\r\n{}",
    "a NUL in a name": POST + "X-\0A: 2\r\n\r\n{}",
    "a NUL in a header": POST + "X-A: 2\0\r\n\r\n{}",
    "a name beyond ASCII": POST + "X-\xe9: 2\r\n\r\n{}",
    "a coding that is not chunked": POST + "Transfer-Encoding: gzip\r\n\r\n" + CHUNKS,
    "identity": POST + "Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "a coding after chunked": POST + "Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS,
    "chunked twice": POST + "Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "two headers of coding": POST + "Transfer-Encoding: chunked\r\n" * 2 + "\r\n" + CHUNKS,
    "nearly chunked": POST + "Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked after a VT": POST + "Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "a chunk beyond 64 bits": CHUNKED + "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + "-2\r\n{}\r\n0\r\n\r\n",
    "a chunk with 0x": CHUNKED + "0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk size and a space": CHUNKED + "2 \r\n{}\r\n0\r\n\r\n",
    "an LF in a chunk's extension": CHUNKED + "2;a\nb\r\n{}\r\n0\r\n\r\n",
    "chunks that end in LF": CHUNKED + "2\n{}\n0\n\n",
    "a chunk that is longer than it says": CHUNKED + "2\r\n{}}\r\n0\r\n\r\n",
    "a length after the chunks": CHUNKED + "2\r\n{}\r\n0\r\nContent-Length: 50\r\n\r\n",
    "no host": "GET /v1/inspect HTTP/1.1\r\n\r\n",
    "two hosts": "GET /v1/inspect HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/1.2": "GET /v1/inspect HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/3.0": "GET /v1/inspect HTTP/3.0\r\nHost: x\r\n\r\n",
    "a preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method in lower case": "get /v1/inspect HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method nobody knows": "BREW /v1/inspect HTTP/1.1\r\nHost: x\r\n\r\n",
    "a very long method": "A" * 100_000,
    "a tab after the method": "GET\t/v1/inspect HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": get("/v1/ins pect"),
    "UTF-8 in the path": get("/v1/tools/\xc3\xa9"),
    "no UTF-8 in the path": get("/v1/tools/\xff"),
    "UTF-8 in the query": get("/v1/tools?tags=\xc3\xa9"),
    "a NUL in the path": get("/v1/tools/\0"),
    "a control character in the path": get("/v1/tools/\x01"),
    "a DEL in the path": get("/v1/tools/\x7f"),
    "a star that is no OPTIONS": get("*"),
    "a target without a host": get("http:///"),
}


async def test_what_breaks_the_rules_is_400_and_the_connection_ends(
    gateway: RunningGateway, seen_requests: list[tuple[str, int]]
) -> None:
    wrong = {}
    for shape, sent in BROKEN.items():
        async with RawHttp(gateway.port) as http:
            await http.send(sent)
            answer = await http.answer()
            told = {"error": {"code": "VALIDATION_ERROR", "message": RULES}}
            if (answer.status, answer.json) != (400, told) or "x-request-id" not in answer.headers:
                wrong[shape] = answer
            assert await http.ended()
    assert wrong == {}
    assert seen_requests == []  # none of it was a request
    assert (await exchange(gateway.port, get("/v1/tools/t1"))).status == 200


REFUSED = {
    "a coding before chunked": (
        POST + "Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
        (501, "NOT_IMPLEMENTED"),
    ),
    "chunks in HTTP/1.0": (
        POST.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        (400, "VALIDATION_ERROR"),
    ),
    "HTTP/0.9": ("GET /v1/inspect\r\n\r\n", (505, "HTTP_VERSION_NOT_SUPPORTED")),
    "HTTP/2.0": (
        "GET /v1/inspect HTTP/2.0\r\nHost: x\r\n\r\n",
        (505, "HTTP_VERSION_NOT_SUPPORTED"),
    ),
    "a tunnel": ("CONNECT a.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", (501, "NOT_IMPLEMENTED")),
    "a tunnel to a path": (
        "CONNECT /v1/inspect HTTP/1.1\r\nHost: x\r\n\r\n",
        (501, "NOT_IMPLEMENTED"),
    ),
    "a very long path": (get("/v1/tools/" + "a" * 8_200), (414, "URI_TOO_LONG")),
    "a very long query": (get("/v1/tools?tags=" + "a" * 8_200), (414, "URI_TOO_LONG")),
    "a very long header": (
        get("/v1/inspect", "X-A: " + "a" * 16_400),
        (431, "HEADERS_TOO_LARGE"),
    ),
    "a very long name": (get("/v1/inspect", "a" * 16_400 + ": b"), (431, "HEADERS_TOO_LARGE")),
    "10,000 headers": (
        get("/v1/inspect", *["X-A: b"] * 10_000),
        (431, "HEADERS_TOO_LARGE"),
    ),
    "10,000 trailers": (
        CHUNKED + "2\r\n{}\r\n0\r\n" + "X-A: b\r\n" * 10_000 + "\r\n",
        (431, "HEADERS_TOO_LARGE"),
    ),
}


async def test_what_we_do_not_take_is_told_so_and_the_connection_ends(
    gateway: RunningGateway,
) -> None:
    wrong = {}
    for shape, (sent, expected) in REFUSED.items():
        async with RawHttp(gateway.port) as http:
            await http.send(sent)
            answer = await http.answer()
            if (answer.status, answer.code) != expected:
                wrong[shape] = answer
            assert await http.ended()
    assert wrong == {}
    assert (await exchange(gateway.port, get("/v1/tools/t1"))).status == 200


TAKEN = {
    "chunked in any case": POST + "Transfer-Encoding: cHuNkEd\r\n\r\n" + CHUNKS,
    "a chunk's extension": CHUNKED + "2;a=b\r\n{}\r\n0\r\n\r\n",
    "a trailer": CHUNKED + "2\r\n{}\r\n0\r\nX-A: b\r\n\r\n",
    "an expectation nobody knows": POST + "Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}",
    "empty lines before": "\r\n\r\n" + POST + "Content-Length: 2\r\n\r\n{}",
    "an upgrade nobody offers": POST
    + "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.0": POST.replace("1.1", "1.0") + "Content-Length: 2\r\n\r\n{}",
}


async def test_what_has_one_meaning_is_taken(gateway: RunningGateway) -> None:
    statuses = {shape: (await exchange(gateway.port, TAKEN[shape])).status for shape in TAKEN}
    assert statuses == dict.fromkeys(TAKEN, 201)


async def test_a_body_that_breaks_off_its_framing_later_is_400(gateway: RunningGateway) -> None:
    async with RawHttp(gateway.port) as http:
        await http.send(CHUNKED + "1\r\n{\r\n")
        await asyncio.sleep(0.05)
        await http.send("-1\r\n}\r\n0\r\n\r\n")
        answer = await http.answer()
        assert answer.status == 400
        assert "not framed" in answer.json["error"]["message"]
        assert await http.ended()


async def test_a_body_nobody_reads_is_no_request(
    gateway: RunningGateway, seen_requests: list[tuple[str, int]]
) -> None:
    hidden = get("/v1/tools/hidden")
    async with RawHttp(gateway.port) as http:
        await http.send(get("/v1/tools/t1", f"Content-Length: {len(hidden)}") + hidden)
        assert (await http.answer()).json["id"] == "t1"
        await http.send(get("/v1/tools/t2"))
        assert (await http.answer()).json["id"] == "t2"
    assert len(seen_requests) == 2


async def test_requests_one_behind_the_other_are_answered_in_their_order(
    gateway: RunningGateway,
) -> None:
    async with RawHttp(gateway.port) as http:
        await http.send("".join(get(f"/v1/tools/{number}") for number in range(200)))
        ids = [(await http.answer()).json["id"] for _ in range(200)]
    assert ids == [str(number) for number in range(200)]


async def test_options_of_the_whole_server_and_trace(gateway: RunningGateway) -> None:
    everything = await exchange(gateway.port, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert everything.status == 204
    assert everything.headers["allow"] == "DELETE, GET, HEAD, LOCK, OPTIONS, PATCH, POST, PUT"
    trace = "TRACE /v1/inspect HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n"
    answer = await exchange(gateway.port, trace)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert b"secret" not in answer.body


async def test_no_answer_names_the_versions_of_what_serves_it(gateway: RunningGateway) -> None:
    sent = [
        get("/v1/tools/t1"),
        get("/v1/nothing"),
        get("/v1/download"),
        get("/v1/count?count=1"),
        BROKEN["two hosts"],
    ]
    for request in sent:
        head = str((await exchange(gateway.port, request)).headers).lower()
        assert "aiohttp" not in head
        assert "python" not in head
