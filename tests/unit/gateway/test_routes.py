"""Rules of contracts to routes, and the faults that are found before anything is served."""

from __future__ import annotations

import itertools
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

from steward.gateway.v1 import options_pb2
from steward_gateway.codec import Codecs, Style
from steward_gateway.contracts import ContractFault, Contracts, load_contracts
from steward_gateway.framing import build_framing
from steward_gateway.routes import build_routes

ROOT = Path(__file__).parents[3] / "proto"
BUNDLED = Path(grpc_tools.__file__).parent / "_proto"
NUMBERS = itertools.count()

FILE = """
syntax = "proto3";
package {package};
import "google/api/annotations.proto";
import "steward/gateway/v1/options.proto";
message Inner {{ string id = 1; repeated string ids = 2; Inner inner = 3; }}
message Ask {{
  string id = 1; Inner inner = 2; repeated string tags = 3; int32 count = 4;
  map<string, string> m = 5;
  oneof choice {{ Inner one = 6; Other two = 7; }}
  double real = 8;
}}
message Switched {{ bool flag = 1; }}
message Other {{ string type = 1; string id = 2; }}
message Twins {{ oneof choice {{ Inner one = 1; Inner two = 2; }} }}
message Named {{ string data = 1; oneof choice {{ Inner one = 2; Other two = 3; }} }}
message Scalars {{ oneof choice {{ string one = 1; int32 two = 2; }} }}
message Two {{ oneof a {{ Inner one = 1; }} oneof b {{ Other two = 2; }} }}
service Things {{ {methods} }}
"""  # fmt: skip


def contracts_of(folder: Path, methods: str) -> Contracts:
    name = f"case{next(NUMBERS)}"
    (folder / f"{name}.proto").write_text(FILE.format(package=name, methods=methods))
    out = folder / f"{name}.binpb"
    includes = (f"-I{folder}", f"-I{ROOT}", f"-I{ROOT / 'third_party'}", f"-I{BUNDLED}")
    arguments = ["", *includes, f"--descriptor_set_out={out}", "--include_imports"]
    assert protoc.main([*arguments, f"{name}.proto"]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return Contracts((pool.FindServiceByName(f"{name}.Things"),))


def rpc(rule: str, name: str = "Do", *, types: str = "(Ask) returns (Ask)") -> str:
    return f"rpc {name}{types} {{ option (google.api.http) = {{{rule}}}; }}\n"


def socket(rule: str, *, types: str = "(stream Ask) returns (stream Ask)") -> str:
    return f"rpc Do{types} {{ option (steward.gateway.v1.method) = {{websocket: {{{rule}}}}}; }}\n"


def stream(rule: str, *, shown: str = "") -> str:
    http = f'option (google.api.http) = {{get: "/a" response_body: "{shown}"}};'
    ours = f"option (steward.gateway.v1.method) = {{resume: {{{rule}}}}};"
    return f"rpc Do(Ask) returns (stream Ask) {{ {http} {ours} }}"


def option(rule: str) -> str:
    http = 'option (google.api.http) = {get: "/a"};'
    ours = f"option (steward.gateway.v1.method) = {{{rule}}};"
    return f"rpc Do(Ask) returns (Ask) {{ {http} {ours} }}"


def test_a_rule_and_its_additional_bindings_are_routes(tmp_path: Path) -> None:
    rule = (
        'post: "/a/{inner.id}" body: "inner" response_body: "inner" '
        'additional_bindings { get: "/b/{id=x/*}:go" } '
        'additional_bindings { custom { kind: "purge" path: "/c" } }'
    )
    first, second, third = build_routes(contracts_of(tmp_path, rpc(rule)))
    assert (first.verb, first.template.text, first.body) == ("POST", "/a/{inner.id}", "inner")
    assert [field.name for field in first.variables[0]] == ["inner", "id"]
    assert first.response_body == "inner"
    assert (second.verb, second.template.verb, second.body) == ("GET", "go", "")
    assert (third.verb, third.template.text) == ("PURGE", "/c")
    assert first.full_method.endswith(".Things/Do")


def test_options_of_the_method_reach_the_route(tmp_path: Path) -> None:
    rule = 'success_status: 202 request_id_field: "id" dialect: DIALECT_CYBORG'
    (route,) = build_routes(contracts_of(tmp_path, option(rule)))
    assert (route.success_status, route.request_id_field) == (202, "id")
    assert route.dialect == options_pb2.DIALECT_CYBORG


@pytest.mark.parametrize(
    ("methods", "complaint"),
    [
        (rpc('get: "/a/{nope}"'), "names 'nope', which case"),
        (rpc('get: "/a/{inner.nope}"'), "names 'inner.nope', which case"),
        (rpc('get: "/a/{id.x}"'), "names 'id.x', which case"),
        (rpc('get: "/a/{tags}"'), "but 'tags' is repeated"),
        (rpc('get: "/a/{inner.ids}"'), "but 'ids' is repeated"),
        (rpc('get: "/a/{m.key}"'), "but 'm' is repeated"),
        (rpc('get: "/a/{inner}"'), "names 'inner', which is a message"),
        (rpc('get: "a"'), "lacks '/' at position 0"),
        (rpc('get: "/a/**/b"'), "must be last"),
        (rpc('post: "/a" body: "nope"'), "body names 'nope', which case"),
        (rpc('post: "/a/{id}" body: "id"'), "'id' is both the body and in the path"),
        (rpc('get: "/a" body: "*"'), "GET carries no body"),
        (rpc('get: "/a" response_body: "nope"'), "response_body names 'nope', which case"),
        (rpc('body: "*"'), "rule without a path"),
        (rpc('custom { path: "/a" }'), "a custom pattern without a kind"),
        (
            rpc('get: "/a" additional_bindings { get: "/b" additional_bindings { get: "/c" } }'),
            "additional_bindings inside each other",
        ),
        (rpc('post: "/a" body: "*"', types="(stream Ask) returns (Ask)"), "no HTTP form"),
        (rpc('get: "/a/{id}"') + rpc('get: "/a/{count}"', "Also"), "both claim GET /a/{count}"),
        (option("success_status: 404"), "success_status 404 is no success"),
        (option('request_id_field: "count"'), "request_id_field 'count' is no string"),
        (option('request_id_field: "nope"'), "request_id_field names 'nope'"),
        (option('etag_field: "nope"'), "names 'nope', which case"),
        (option('etag_field: "inner"'), "names 'inner', which is a message"),
        (option('etag_field: "inner.ids"'), "but 'ids' is repeated"),
        (option('etag_field: "real"'), "etag_field 'real' is no text or whole number"),
        (option('if_match_field: "nope"'), "if_match_field names 'nope'"),
        (option('if_match_field: "tags"'), "if_match_field 'tags' is no text or whole number"),
        (option('if_match_field: "count"'), "if_match_field 'count' is not `optional`"),
        (option('resume: {id_field: "id"}'), "`resume` on a method without a stream"),
        (stream('id_field: "nope"'), "resume.id_field names 'nope'"),
        (stream('id_field: "inner"'), "resume.id_field 'inner' is no text or whole number"),
        (stream('after_field: "tags"'), "resume.after_field 'tags' is no text or whole number"),
        (stream('id_field: "id"', shown="tags"), "resume.id_field where no message is shown"),
        (socket('path: "/w"', types="(Ask) returns (Ask)"), "method without streams"),
        (socket('path: "/w/{id}"'), "variables in the path need an `opening`"),
        (socket('path: "/w" opening: "nope"'), "opening names 'nope'"),
        (socket('path: "/w" opening: "id"'), "opening 'id' is not a single message"),
        (
            socket('path: "/w" opening: "inner"', types="(Ask) returns (stream Ask)"),
            "`opening` on a method without a request stream",
        ),
        (socket('path: "/w" response_body: "id"'), "response_body 'id' is no message"),
        (socket('path: "/w" refusal: "nope"'), "refusal names 'nope'"),
        (socket('path: "/w" refusal: "inner"'), "refusal 'inner' is no google.rpc.Status"),
        (
            socket(
                'path: "/w" framing: FRAMING_TAGGED', types="(stream Inner) returns (stream Ask)"
            ),
            "to hold one oneof",
        ),
        (
            socket('path: "/w" framing: FRAMING_FLAT', types="(stream Ask) returns (stream Two)"),
            "to hold one oneof",
        ),
        (
            socket(
                'path: "/w" framing: FRAMING_FLAT', types="(stream Scalars) returns (stream Ask)"
            ),
            "Scalars.one is not a message",
        ),
    ],
)
def test_a_broken_rule_is_found_at_start(tmp_path: Path, methods: str, complaint: str) -> None:
    with pytest.raises(ContractFault) as fault:
        build_routes(contracts_of(tmp_path, methods))
    assert complaint in str(fault.value)
    assert "Things/Do" in str(fault.value)


@pytest.mark.parametrize(
    ("message", "framing", "complaint"),
    [
        ("Twins", options_pb2.FRAMING_TAGGED, "have one tag"),
        ("Named", options_pb2.FRAMING_TAGGED, "'data' is the frame's own name"),
        ("Ask", options_pb2.FRAMING_FLAT, "cannot be flat: ['id'"),
    ],
)
def test_a_message_that_cannot_be_framed_is_found_at_start(
    tmp_path: Path, message: str, framing: options_pb2.Framing.ValueType, complaint: str
) -> None:
    contracts = contracts_of(tmp_path, socket('path: "/w"'))
    descriptor = contracts.services[0].file.message_types_by_name[message]
    with pytest.raises(ContractFault) as fault:
        build_framing(
            Codecs(Style.HOUSE), framing, request=None, response=descriptor, response_body=""
        )
    assert complaint in str(fault.value)


def test_a_descriptor_set_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ContractFault, match="compile the protos first"):
        load_contracts(tmp_path / "nothing.binpb")


def test_a_descriptor_set_that_is_broken_is_refused() -> None:
    with pytest.raises(ContractFault, match="is not one"):
        load_contracts(b"\xff\xff\xff")


def test_a_contract_without_generated_code_is_refused(tmp_path: Path) -> None:
    contracts_of(tmp_path, rpc('get: "/a"'))
    (descriptors,) = tmp_path.glob("*.binpb")
    with pytest.raises(ContractFault, match="no importable generated module case"):
        load_contracts(descriptors)


# Two methods at one path, and events of their own names.

READ = 'get: "/a"'


def twin(*, field: str = "flag", events: str = "", request: str = "Switched") -> str:
    http = f'option (google.api.http) = {{{READ} response_body: "one"}};'
    ours = f'option (steward.gateway.v1.method) = {{taken_if: "{field}" {events}}};'
    return f"rpc Follow({request}) returns (stream Twins) {{ {http} {ours} }}\n"


def test_a_path_may_have_a_second_method_behind_a_parameter(tmp_path: Path) -> None:
    methods = rpc(READ, types="(Switched) returns (Ask)") + twin(
        events='events: {named_field: "two"}'
    )
    plain, second = build_routes(contracts_of(tmp_path, methods))
    assert (plain.taken_if, second.taken_if) == ("", "flag")
    assert second.named_event is not None
    assert second.named_event.name == "two"


@pytest.mark.parametrize(
    ("methods", "complaint"),
    [
        (twin(), "nothing is served at /a where 'flag' is not true"),
        (rpc(READ, types="(Ask) returns (Ask)") + twin(field="id", request="Ask"), "is no bool"),
        (rpc(READ) + twin(field="nothing"), "taken_if names 'nothing'"),
        (rpc(READ) + twin() + twin().replace("Follow", "Again"), "both claim GET /a"),
        (rpc(READ) + twin(events='events: {named_field: "nothing"}'), "names 'nothing'"),
    ],
)
def test_a_broken_second_method_is_found_at_start(
    tmp_path: Path, methods: str, complaint: str
) -> None:
    with pytest.raises(ContractFault, match=complaint.replace("(", r"\(")):
        build_routes(contracts_of(tmp_path, methods))


def test_where_a_stream_is_may_stand_beside_what_is_shown(tmp_path: Path) -> None:
    http = 'option (google.api.http) = {get: "/a" response_body: "inner"};'
    ours = 'option (steward.gateway.v1.method) = {resume: {id_field: "count"}};'
    rule = f"rpc Do(Ask) returns (stream Ask) {{ {http} {ours} }}"
    (route,) = build_routes(contracts_of(tmp_path, rule))
    assert route.position is not None
    assert route.position.containing_type is route.method.output_type
