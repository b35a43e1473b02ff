"""What a request binds to, by the rules of `google.api.http`: target, body, and what the core gets.

A row is a target, a body (None: none is sent) and the outcome: the fields of the message that are
not empty, `Bad` with what is told of which field, or an HTTP status. The service answers with the
message it was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Bad:
    """400, with these fields; none are named where the request as a whole is broken."""

    fields: dict[str, str] = field(default_factory=dict)


Row = tuple[str, str | None, Any]

UNKNOWN = "unknown parameter"
INTEGER = "must be an integer"
INT32 = "must be an integer from -2147483648 to 2147483647"
OBJECT = "must be an object"
TWICE = "is given twice"
BY_PATH = "is given by the path"
KINDS = "must be one of: hammer, hand_saw"
BASE64 = "must be bytes in base64"
DURATION = 'must be a duration in seconds such as "1.5s"'
FITS = "must be a number that fits the field"
NUL = "holds the control character U+0000"


def deep(levels: int) -> str:
    return '{"inner":' * levels + "{}" + "}" * levels


SINGLE_SEGMENTS: list[Row] = [
    ("GET /v1/echo/t/plain", None, {"text": "plain"}),
    ("GET /v1/echo/t/a%20b", None, {"text": "a b"}),
    ("GET /v1/echo/t/a+b", None, {"text": "a+b"}),
    ("GET /v1/echo/t/a%2Bb", None, {"text": "a+b"}),
    ("GET /v1/echo/t/a%2Fb", None, {"text": "a/b"}),
    ("GET /v1/echo/t/a%2fb", None, {"text": "a/b"}),
    ("GET /v1/echo/t/a%252Fb", None, {"text": "a%2Fb"}),
    ("GET /v1/echo/t/a%25", None, {"text": "a%"}),
    ("GET /v1/echo/t/%E2%82%AC", None, {"text": "€"}),
    ("GET /v1/echo/t/%f0%9f%94%a7", None, {"text": "🔧"}),
    ("GET /v1/echo/t/~a-b_c.d!$&'()*,;=:@", None, {"text": "~a-b_c.d!$&'()*,;=:@"}),
    ("GET /v1/echo/t/a:b", None, {"text": "a:b"}),
    ("GET /v1/echo/t/a%3Fb", None, {"text": "a?b"}),
    ("GET /v1/echo/t/a%23b", None, {"text": "a#b"}),
    ("GET /v1/echo/t/%0D%0A", None, {"text": "\r\n"}),
    ("GET /v1/echo/t/.", None, {"text": "."}),
    ("GET /v1/echo/t/..", None, {"text": ".."}),
    ("GET /v1/echo/t/%2e%2E", None, {"text": ".."}),
    ("GET /v1/%65cho/%74/x", None, {"text": "x"}),
    ("GET /v1/echo/a%20b/x", None, {"text": "x"}),
    ("GET /v1/echo/t/a/b", None, 404),
    ("GET /v1/echo/t/", None, 404),
    ("GET /v1/echo/t", None, 405),
    ("GET /v1/echo/t//", None, 404),
    ("GET //v1/echo/t/x", None, 404),
    ("GET /v1//echo/t/x", None, 404),
    ("GET /v1/echo/t/x/", None, 404),
    ("GET /V1/echo/t/x", None, 404),
    ("GET /v1/other/../echo/t/x", None, 404),
    ("GET /v1/echo/t/%", None, Bad()),
    ("GET /v1/echo/t/%4", None, Bad()),
    ("GET /v1/echo/t/%g0", None, Bad()),
    ("GET /v1/echo/t/%ff", None, Bad()),
    ("GET /v1/echo/t/%c3", None, Bad()),
    ("GET /v1/echo/t/%c0%af", None, Bad()),
    ("GET /v1/echo/t/%e0%80%af", None, Bad()),
    ("GET /v1/echo/t/%ed%a0%80", None, Bad()),
    ("GET /v1/echo/t/%f5%80%80%80", None, Bad()),
    ("GET /v1/echo/t/%00", None, Bad({"text": NUL})),
    ("GET /v1/echo/deep/%00", None, Bad({"inner.inner.text": NUL})),
    ("GET /v1/echo/t/a%00b", None, Bad({"text": NUL})),
    ("GET /v1/echo/t/a#b", None, Bad()),
]

TYPED_SEGMENTS: list[Row] = [
    ("GET /v1/echo/n/0", None, {}),
    ("GET /v1/echo/n/-5", None, {"number": -5}),
    ("GET /v1/echo/n/2147483647", None, {"number": 2147483647}),
    ("GET /v1/echo/n/%35", None, {"number": 5}),
    ("GET /v1/echo/n/2147483648", None, Bad({"number": INT32})),
    ("GET /v1/echo/n/five", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/5.0", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/1e3", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/0x10", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/1_000", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/%D9%A3", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/%2B5", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/n/%205", None, Bad({"number": INTEGER})),
    ("GET /v1/echo/b/true", None, {"truth": True}),
    ("GET /v1/echo/b/False", None, {}),
    ("GET /v1/echo/b/yes", None, Bad({"truth": "must be true or false"})),
    ("GET /v1/echo/k/hand_saw", None, {"kind": "hand_saw"}),
    ("GET /v1/echo/k/HAND_SAW", None, Bad({"kind": KINDS})),
    ("GET /v1/echo/k/2", None, Bad({"kind": KINDS})),
    ("GET /v1/echo/at/2026-11-21T09:30:00Z", None, {"at": "2026-11-21T09:30:00Z"}),
    ("GET /v1/echo/at/2026-11-21T10:30:00.5+01:00", None, {"at": "2026-11-21T09:30:00.500Z"}),
    ("GET /v1/echo/w/x", None, {"wrapped_text": "x"}),
    ("GET /v1/echo/deep/x", None, {"inner": {"inner": {"text": "x"}}}),
    ("GET /v1/echo/two/a/and/4", None, {"text": "a", "inner": {"number": 4}}),
    ("GET /v1/echo/two/a/and/b", None, Bad({"inner.number": INTEGER})),
]

MANY_SEGMENTS: list[Row] = [
    ("GET /v1/echo/shelves/shelves/1", None, {"text": "shelves/1"}),
    ("GET /v1/echo/shelves/shelves/a%20b", None, {"text": "shelves/a b"}),
    ("GET /v1/echo/shelves/shelves/a%2Fb", None, {"text": "shelves/a%2Fb"}),
    ("GET /v1/echo/shelves/shelves/a%2fb", None, {"text": "shelves/a%2fb"}),
    ("GET /v1/echo/shelves/other/1", None, 404),
    ("GET /v1/echo/shelves/shelves/1/2", None, 404),
    ("GET /v1/echo/shelves/1/books/2", None, {"text": "shelves/1/books/2"}),
    ("GET /v1/echo/shelves/1/books/", None, 404),
    ("GET /v1/echo/rest", None, {}),
    ("GET /v1/echo/rest/", None, {}),
    ("GET /v1/echo/rest/a", None, {"text": "a"}),
    ("GET /v1/echo/rest/a/b/c", None, {"text": "a/b/c"}),
    ("GET /v1/echo/rest/a%2Fb/%63", None, {"text": "a%2Fb/c"}),
    ("GET /v1/echo/rest/a//b", None, {"text": "a//b"}),
    ("GET /v1/echo/rest/a/", None, {"text": "a/"}),
    ("GET /v1/echo/rest/../../t/x", None, {"text": "../../t/x"}),
    ("GET /v1/echo/rest/%2e%2e/x", None, {"text": "../x"}),
    ("GET /v1/echo/rest/%c0%ae", None, Bad()),
    ("GET /v1/echo/tree/top", None, {"text": "top"}),
    ("GET /v1/echo/tree/top/a/b", None, {"text": "top/a/b"}),
    ("GET /v1/echo/tree/bottom/a", None, 404),
    ("GET /v1/echo/star/anything/x", None, {"text": "x"}),
    ("GET /v1/echo/star//x", None, 404),
]

VERBS: list[Row] = [
    ("GET /v1/echo/v/x:look", None, {"text": "x"}),
    ("GET /v1/echo/v/a:b:look", None, {"text": "a:b"}),
    ("GET /v1/echo/v/x:l%6Fok", None, {"text": "x"}),
    ("GET /v1/echo/v/x%3Alook", None, 404),
    ("GET /v1/echo/v/x:jump", None, 404),
    ("GET /v1/echo/v/x", None, 404),
    ("GET /v1/echo/v/:look", None, 404),
    ("GET /v1/echo/vr/a/b:look", None, {"text": "a/b"}),
    ("GET /v1/echo/t/x:look", None, {"text": "x:look"}),
    ("POST /v1/echo/plain/x:act", None, {"text": "x"}),
    ("GET /v1/echo/plain/x:act", None, 405),
    ("PUT /v1/echo/t/x", "{}", 405),
    ("DELETE /v1/echo/x", None, {"text": "x"}),
]

QUERIES: list[Row] = [
    ("GET /v1/echo", None, {}),
    ("GET /v1/echo?", None, {}),
    ("GET /v1/echo?text=", None, {}),
    ("GET /v1/echo?text", None, {}),
    ("GET /v1/echo?text=a+b%20c", None, {"text": "a b c"}),
    ("GET /v1/echo?text=a%2Bb", None, {"text": "a+b"}),
    ("GET /v1/echo?text=a%26b%3Dc", None, {"text": "a&b=c"}),
    ("GET /v1/echo?text=a=b=c", None, {"text": "a=b=c"}),
    ("GET /v1/echo?text=a?b", None, {"text": "a?b"}),
    ("GET /v1/echo?t%65xt=x", None, {"text": "x"}),
    ("GET /v1/echo?text=%E2%82%AC", None, {"text": "€"}),
    ("GET /v1/echo?text=a&number=5", None, {"text": "a", "number": 5}),
    ("GET /v1/echo?&&text=a&", None, {"text": "a"}),
    ("GET /v1/echo?big=9223372036854775807", None, {"big": 9223372036854775807}),
    ("GET /v1/echo?huge=18446744073709551615", None, {"huge": 18446744073709551615}),
    ("GET /v1/echo?truth=1", None, {"truth": True}),
    ("GET /v1/echo?real=-2.5e-3", None, {"real": -0.0025}),
    ("GET /v1/echo?short_real=0.1", None, {"short_real": 0.1}),
    ("GET /v1/echo?data=AAH_-w", None, {"data": "AAH/+w=="}),
    ("GET /v1/echo?data=AAH%2F%2Bw%3D%3D", None, {"data": "AAH/+w=="}),
    ("GET /v1/echo?kind=hammer", None, {"kind": "hammer"}),
    ("GET /v1/echo?at=2026-11-21T09:30:00Z", None, {"at": "2026-11-21T09:30:00Z"}),
    ("GET /v1/echo?lasts=1.5s", None, {"lasts": "1.500s"}),
    ("GET /v1/echo?mask=text,inner.number", None, {"mask": "text,inner.number"}),
    ("GET /v1/echo?wrapped_text=x", None, {"wrapped_text": "x"}),
    ("GET /v1/echo?wrapped_number=7", None, {"wrapped_number": 7}),
    ("GET /v1/echo?wrapped_truth=true", None, {"wrapped_truth": True}),
    ("GET /v1/echo?texts=a&texts=b&texts=", None, {"texts": ["a", "b", ""]}),
    ("GET /v1/echo?texts=a,b", None, {"texts": ["a,b"]}),
    ("GET /v1/echo?numbers=3&number=4&numbers=1", None, {"numbers": [3, 1], "number": 4}),
    ("GET /v1/echo?kinds=hammer&kinds=hand_saw", None, {"kinds": ["hammer", "hand_saw"]}),
    ("GET /v1/echo?inner.text=x", None, {"inner": {"text": "x"}}),
    ("GET /v1/echo?inner.inner.number=2", None, {"inner": {"inner": {"number": 2}}}),
    (
        "GET /v1/echo?inner.text=x&inner.texts=a&inner.texts=b",
        None,
        {"inner": {"text": "x", "texts": ["a", "b"]}},
    ),
    ("GET /v1/echo?inner.at=2026-01-01T00:00:00Z", None, {"inner": {"at": "2026-01-01T00:00:00Z"}}),
    ("GET /v1/echo?maybe=0", None, {"maybe": 0}),
    ("GET /v1/echo?one=x", None, {"one": "x"}),
    ("GET /v1/echo?price_usd=1.000000001", None, {"price_usd": 1.000000001}),
    ("GET /v1/echo?called=x", None, {"called": "x"}),
    ("GET /v1/echo/t/x?number=3", None, {"text": "x", "number": 3}),
    ("DELETE /v1/echo/x?number=3", None, {"text": "x", "number": 3}),
    ("POST /v1/echo/plain/x:act?number=3", None, {"text": "x", "number": 3}),
]

BAD_QUERIES: list[Row] = [
    ("GET /v1/echo?nothing=1", None, Bad({"nothing": UNKNOWN})),
    ("GET /v1/echo?Text=1", None, Bad({"Text": UNKNOWN})),
    ("GET /v1/echo?inner.nothing=1", None, Bad({"inner.nothing": UNKNOWN})),
    ("GET /v1/echo?text.x=1", None, Bad({"text.x": UNKNOWN})),
    ("GET /v1/echo?inner=x", None, Bad({"inner": UNKNOWN})),
    ("GET /v1/echo?inner.=x", None, Bad({"inner.": UNKNOWN})),
    ("GET /v1/echo?.text=x", None, Bad({".text": UNKNOWN})),
    ("GET /v1/echo?inners.text=x", None, Bad({"inners.text": UNKNOWN})),
    ("GET /v1/echo?by_name.a=x", None, Bad({"by_name.a": UNKNOWN})),
    ("GET /v1/echo?by_name[a]=x", None, Bad({"by_name[a]": UNKNOWN})),
    ("GET /v1/echo?struct.a=x", None, Bad({"struct.a": UNKNOWN})),
    ("GET /v1/echo?renamed=x", None, Bad({"renamed": UNKNOWN})),
    ("GET /v1/echo?price_nanousd=1", None, Bad({"price_nanousd": UNKNOWN})),
    ("GET /v1/echo?text=a&text=b", None, Bad({"text": TWICE})),
    ("GET /v1/echo?inner.text=a&inner.text=b", None, Bad({"inner.text": TWICE})),
    ("GET /v1/echo?number=", None, Bad({"number": INTEGER})),
    ("GET /v1/echo?number=5.5", None, Bad({"number": INTEGER})),
    ("GET /v1/echo?numbers=1&numbers=x", None, Bad({"numbers": INTEGER})),
    ("GET /v1/echo?number=99999999999999999999999", None, Bad({"number": INTEGER})),
    (
        "GET /v1/echo?small=-1",
        None,
        Bad({"small": "must be an integer from 0 to 4294967295"}),
    ),
    ("GET /v1/echo?real=nan", None, Bad({"real": "must be a number"})),
    ("GET /v1/echo?real=1e400", None, Bad({"real": FITS})),
    ("GET /v1/echo?short_real=1e39", None, Bad({"short_real": FITS})),
    ("GET /v1/echo?data=%21", None, Bad({"data": BASE64})),
    ("GET /v1/echo?kind=", None, Bad({"kind": KINDS})),
    ("GET /v1/echo?lasts=1h", None, Bad({"lasts": DURATION})),
    ("GET /v1/echo?text=%ff", None, Bad()),
    ("GET /v1/echo?text=%c0%af", None, Bad()),
    ("GET /v1/echo?text=a%00b", None, Bad({"text": NUL})),
    (
        "GET /v1/echo?one=x&two=2",
        None,
        Bad({"two": "cannot be given beside one"}),
    ),
    ("GET /v1/echo/t/x?text=y", None, Bad({"text": BY_PATH})),
    ("GET /v1/echo/deep/x?inner.inner.text=y", None, Bad({"inner.inner.text": BY_PATH})),
    ("GET /v1/echo?number=a&real=b", None, Bad({"number": INTEGER, "real": "must be a number"})),
    ("POST /v1/echo?text=x", "{}", Bad({"text": UNKNOWN})),
    ("GET /v1/echo?text=a#b", None, Bad()),
    ("GET /v1/echo?" + "&".join(["texts=a"] * 1001), None, Bad()),
]

BODIES: list[Row] = [
    ("POST /v1/echo", None, {}),
    ("POST /v1/echo", "{}", {}),
    ("POST /v1/echo", ' \r\n\t{ "text" : "x" } ', {"text": "x"}),
    ("POST /v1/echo", '{"text":"\\u20ac\\ud83d\\udd27"}', {"text": "€🔧"}),
    ("POST /v1/echo", '{"text":"a\\u0000b"}', {"text": "a\0b"}),
    ("POST /v1/echo", '{"text":null,"inner":null,"texts":null}', {}),
    ("POST /v1/echo", '{"big":"9223372036854775807"}', {"big": 9223372036854775807}),
    ("POST /v1/echo", '{"number":5.0}', {"number": 5}),
    ("POST /v1/echo", '{"number":5e0}', {"number": 5}),
    ("POST /v1/echo", '{"real":3}', {"real": 3}),
    ("POST /v1/echo", '{"by_name":{"a":"1","":"2"}}', {"by_name": {"a": "1", "": "2"}}),
    ("POST /v1/echo", '{"inners":[{},{"text":"x"}]}', {"inners": [{}, {"text": "x"}]}),
    ("POST /v1/echo", '{"struct":{"a":[1,"b",{}]}}', {"struct": {"a": [1, "b", {}]}}),
    ("POST /v1/echo", '{"value":"x"}', {"value": "x"}),
    ("POST /v1/echo", '{"maybe":0}', {"maybe": 0}),
    ("POST /v1/echo", '{"price_usd":0.000000001}', {"price_usd": 1e-9}),
    ("POST /v1/echo", '{"text":"a:b","texts":["c:d"]}', {"text": "a:b", "texts": ["c:d"]}),
    ("POST /v1/echo/star/x", '{"number":2}', {"text": "x", "number": 2}),
    ("POST /v1/echo/star/x", '{"text":"x"}', {"text": "x"}),
    ("POST /v1/echo/inner/x", '{"text":"y"}', {"text": "x", "inner": {"text": "y"}}),
    ("POST /v1/echo/inner/x?number=3", "{}", {"text": "x", "number": 3}),
    ("POST /v1/echo/into/x", '{"number":2}', {"inner": {"text": "x", "number": 2}}),
    ("POST /v1/echo/into/x", '{"text":"x"}', {"inner": {"text": "x"}}),
    ("POST /v1/echo/into/x", None, {"inner": {"text": "x"}}),
    ("POST /v1/echo/texts", '["a","b"]', {"texts": ["a", "b"]}),
    ("POST /v1/echo/texts?number=1", "[]", {"number": 1}),
    ("POST /v1/echo/number", "7", {"number": 7}),
    ("POST /v1/echo/by_name", '{"a":"b"}', {"by_name": {"a": "b"}}),
    ("POST /v1/echo", deep(29), {}),
]

AS_THE_PATH = "must be as the path says, or left out"

BAD_BODIES: list[Row] = [
    ("POST /v1/echo/star/x", '{"text":"y"}', Bad({"text": AS_THE_PATH})),
    ("POST /v1/echo/into/x", '{"text":"y"}', Bad({"text": AS_THE_PATH})),
    ("POST /v1/echo", "[]", Bad()),
    ("POST /v1/echo", '"x"', Bad()),
    ("POST /v1/echo", "null", Bad()),
    ("POST /v1/echo", "{", Bad()),
    ("POST /v1/echo", "{} {}", Bad()),
    ("POST /v1/echo", "{'text':'x'}", Bad()),
    ("POST /v1/echo", '{"text":"x",}', Bad()),
    ("POST /v1/echo", '{"number":NaN}', Bad()),
    ("POST /v1/echo", '{"number":01}', Bad()),
    ("POST /v1/echo", '{"text":"a\nb"}', Bad()),
    ("POST /v1/echo", '{"text":"\\ud800"}', Bad()),
    ("POST /v1/echo", '{"text":"x","text":"y"}', Bad()),
    ("POST /v1/echo", '{"text":"x","te\\u0078t":"y"}', Bad()),
    ("POST /v1/echo", '{"inner":{"number":1,"number":2}}', Bad()),
    ("POST /v1/echo", '{"text":"\\u003a","inner":{"a":1,"a":2}}', Bad()),
    ("POST /v1/echo", '{"nothing":1}', Bad({"nothing": "unknown field"})),
    ("POST /v1/echo", '{"inner":{"nothing":1}}', Bad({"inner.nothing": "unknown field"})),
    ("POST /v1/echo", '{"text":1}', Bad({"text": "must be text"})),
    ("POST /v1/echo", '{"number":"x"}', Bad({"number": INT32})),
    ("POST /v1/echo", '{"number":1.5}', Bad({"number": INT32})),
    ("POST /v1/echo", '{"number":true}', Bad({"number": INT32})),
    ("POST /v1/echo", '{"truth":1}', Bad({"truth": "must be true or false"})),
    ("POST /v1/echo", '{"inner":[]}', Bad({"inner": OBJECT})),
    ("POST /v1/echo", '{"inner":"x"}', Bad({"inner": OBJECT})),
    ("POST /v1/echo", '{"texts":"x"}', Bad({"texts": "must be a list"})),
    ("POST /v1/echo", '{"texts":["a",null]}', Bad({"texts[1]": "must not be null"})),
    ("POST /v1/echo", '{"kind":1}', Bad({"kind": KINDS})),
    ("POST /v1/echo", '{"one":"x","two":1}', Bad({"two": "cannot be given beside one"})),
    ("POST /v1/echo", '{"real":1e400}', Bad()),
    ("POST /v1/echo", '{"short_real":1e39}', Bad({"short_real": FITS})),
    ("POST /v1/echo", '{"big":9223372036854775808}', Bad()),
    ("POST /v1/echo", '{"huge":18446744073709551616}', Bad()),
    ("POST /v1/echo", '{"data":"!"}', Bad({"data": BASE64})),
    ("POST /v1/echo", deep(40), Bad()),
    ("POST /v1/echo/texts", "{}", Bad()),
    ("POST /v1/echo/number", '"x"', Bad()),
    ("POST /v1/echo/inner/x", '{"nothing":1}', Bad({"nothing": "unknown field"})),
    ("POST /v1/echo/inner/x?inner.text=y", "{}", Bad({"inner.text": UNKNOWN})),
    ("POST /v1/echo/into/x?inner.number=3", "{}", Bad({"inner.number": UNKNOWN})),
]

RESPONSE_BODIES: list[Row] = [
    ("PUT /v1/echo/only/x", "{}", "x"),
    ("PUT /v1/echo/many/x", '{"texts":["a","b"]}', ["a", "b"]),
    ("PUT /v1/echo/many/x", "{}", []),
]

SECTIONS = {
    "single segments": SINGLE_SEGMENTS,
    "typed segments": TYPED_SEGMENTS,
    "many segments": MANY_SEGMENTS,
    "verbs": VERBS,
    "queries": QUERIES,
    "bad queries": BAD_QUERIES,
    "bodies": BODIES,
    "bad bodies": BAD_BODIES,
    "response bodies": RESPONSE_BODIES,
}
