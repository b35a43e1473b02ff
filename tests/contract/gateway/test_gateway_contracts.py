"""The gateway over the contracts that ship: every route compiles and every message has a codec."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import MethodOptions

from steward_gateway import app
from steward_gateway.app import build_app
from steward_gateway.codec import Codecs, Style
from steward_gateway.contracts import load_contracts, message_class
from steward_gateway.routes import build_routes
from steward_gateway.transport import Metadata, Reply


class Nowhere:
    """A transport that is never called."""

    async def unary(
        self, method: str, request: object, *, metadata: Metadata, timeout_s: float | None
    ) -> Reply:
        raise AssertionError(method)

    def stream(
        self, method: str, requests: object, *, metadata: Metadata, timeout_s: float | None
    ) -> object:
        raise AssertionError(method)


def test_every_rule_of_the_contracts_is_served() -> None:
    gateway = build_app(Nowhere())  # type: ignore[arg-type]
    served = {(route.kind, route.verb, route.template.text) for route in gateway.routes}
    assert ("http", "POST", "/api/budget/handshake") in served
    assert ("http", "GET", "/api/agents/{agent_id}/status") in served
    assert ("websocket", "GET", "/ws") in served


def test_what_is_read_by_get_is_marked_free_of_side_effects() -> None:
    """Clients of Connect ask such methods by GET, which can be kept and asked again."""
    unmarked = [
        route.full_method
        for route in build_routes(load_contracts())
        if route.verb == "GET" and not (route.streams_requests or route.streams_responses)
        if route.method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
    ]
    assert unmarked == []


def test_an_empty_message_of_every_type_survives_json() -> None:
    codecs = Codecs(Style.HOUSE)
    for method in load_contracts().methods():
        for descriptor in (method.input_type, method.output_type):
            codec = codecs.of(descriptor)
            empty = message_class(descriptor)()
            assert codec.from_json(codec.to_json(empty)) == empty, descriptor.full_name


def test_the_gateway_knows_neither_the_server_nor_a_capability() -> None:
    folder = Path(app.__file__).parent
    capabilities = {
        method.containing_service.file.package.removeprefix("steward.").partition(".")[0]
        for method in load_contracts().methods()
    }
    for source in folder.rglob("*.py"):
        imports = [line for line in source.read_text().splitlines() if "import " in line]
        for line in imports:
            assert "steward_server" not in line, source
            assert not any(f"steward.{name}." in line for name in capabilities), source
