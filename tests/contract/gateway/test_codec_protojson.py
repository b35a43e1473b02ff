"""The compiled codecs against `google.protobuf.json_format`, in both directions."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from google.protobuf import any_pb2, json_format, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steward.budget.v1.budget_pb2 import ReportRequest
from steward_gateway.codec import BadJson, Codecs, FieldErrors, Style, Unencodable
from steward_gateway.filling import FAULTS

CODECS = Codecs(Style.PROTOJSON)
THOROUGH = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

F = FieldDescriptor
text = st.text(st.characters(codec="utf-8"), max_size=8)
INTEGERS = {
    F.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    F.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    F.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.cpp_type in INTEGERS:
        return INTEGERS[field.cpp_type] | st.sampled_from([0, 1])
    if field.cpp_type == F.CPPTYPE_DOUBLE:
        return st.floats() | st.just(-0.0)
    if field.cpp_type == F.CPPTYPE_FLOAT:
        # json_format cannot read back the largest floats that it prints.
        # The least of them have several texts of one length.
        small = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)
        return small | st.sampled_from([-0.0, math.nan, math.inf, -math.inf])
    if field.cpp_type == F.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == F.CPPTYPE_ENUM:
        assert field.enum_type is not None
        known = list(field.enum_type.values_by_number)
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return st.just(0)
        return st.sampled_from(known) | st.integers(-5, 5)
    return st.binary(max_size=8) if field.type == F.TYPE_BYTES else text


@st.composite
def well_known(draw: st.DrawFn, descriptor: Descriptor) -> Any:
    message: Any = GetMessageClass(descriptor)()
    drawn: Any
    match descriptor.name:
        case "Timestamp":
            message.seconds = draw(st.integers(-62_135_596_800, 253_402_300_799))
            message.nanos = draw(nanos)
        case "Duration":
            sign = draw(st.sampled_from([1, -1]))
            message.seconds = sign * draw(st.integers(0, 315_576_000_000))
            message.nanos = sign * draw(nanos)
        case "FieldMask":
            path = st.from_regex(r"[a-z]+(_[a-z]+){0,2}(\.[a-z]+)?", fullmatch=True)
            message.paths.extend(draw(st.lists(path, max_size=3)))
        case "Struct":
            drawn = draw(st.dictionaries(text, json_values, max_size=3))
            json_format.ParseDict(drawn, message)
        case "ListValue":
            drawn = draw(st.lists(json_values, max_size=3))
            json_format.ParseDict(drawn, message)
        case "Value":
            drawn = draw(json_values)
            json_format.ParseDict(drawn, message)
        case _:
            return None
    return message


nanos = st.sampled_from([0, 1, 500_000_000, 1_000, 999_999_999]) | st.integers(0, 999_999_999)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 2) -> Any:
    special = draw(well_known(descriptor))
    if special is not None:
        return special
    message: Any = GetMessageClass(descriptor)()
    if descriptor.full_name == "google.protobuf.Any":
        pool = message.DESCRIPTOR.file.pool
        packed = draw(st.sampled_from(["everykind.v1.Leaf", "google.protobuf.Duration"]))
        message.Pack(draw(messages(pool.FindMessageTypeByName(packed))))
        return message
    fields = list(descriptor.fields)
    chosen = draw(st.lists(st.sampled_from(fields), max_size=8)) if fields else []
    for field in chosen:
        if depth == 0 and field.message_type is descriptor:
            continue
        fill(draw, message, field, depth)
    return message


def fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    def one(of: FieldDescriptor) -> Any:
        if of.message_type is not None:
            return draw(messages(of.message_type, depth - 1))
        return draw(scalars(of))

    holder = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key = draw(scalars(field.message_type.fields_by_name["key"]))
        value_field = field.message_type.fields_by_name["value"]
        if value_field.message_type is not None:
            holder[key].CopyFrom(one(value_field))
        else:
            holder[key] = one(value_field)
    elif field.is_repeated:
        holder.extend([one(field) for _ in range(draw(st.integers(0, 3)))])
    elif field.message_type is not None:
        holder.CopyFrom(one(field))
        holder.SetInParent()
    else:
        setattr(message, field.name, one(field))


def wire(message: Message) -> bytes:
    """Equal for equal messages, NaN included."""
    return message.SerializeToString(deterministic=True)


@THOROUGH
@given(data=st.data())
def test_a_message_is_printed_as_json_format_prints_it(
    every_kind: Any, data: st.DataObject
) -> None:
    message: Any = data.draw(messages(every_kind.EveryKind.DESCRIPTOR))
    expected = json.loads(json_format.MessageToJson(message))
    printed = CODECS.of(message.DESCRIPTOR).to_json(message)
    assert orjson.loads(printed) == expected


@THOROUGH
@given(data=st.data())
def test_canonical_json_is_read_as_json_format_reads_it(
    every_kind: Any, data: st.DataObject
) -> None:
    own_names = data.draw(st.booleans())
    message: Any = data.draw(messages(every_kind.EveryKind.DESCRIPTOR))
    canonical = json_format.MessageToJson(message, preserving_proto_field_name=own_names)
    expected = json_format.Parse(canonical, every_kind.EveryKind())
    assert wire(CODECS.of(message.DESCRIPTOR).from_json(canonical)) == wire(expected)


@pytest.mark.parametrize("style", Style)
@THOROUGH
@given(data=st.data())
def test_what_is_read_quickly_is_read_as_slowly(
    every_kind: Any, data: st.DataObject, style: Style
) -> None:
    codec = Codecs(style).of(every_kind.EveryKind.DESCRIPTOR)
    message = data.draw(messages(every_kind.EveryKind.DESCRIPTOR))
    value = orjson.loads(orjson.dumps(codec.encode(message)))
    value = {name: each for name, each in value.items() if each is not None}
    quick = codec.message()
    try:
        codec._fill(quick, value)
    except FAULTS:
        return
    assert wire(quick) == wire(codec._decode_any(value))


def test_a_plain_object_takes_the_quick_way() -> None:
    report = {
        "lease_id": "lease_1",
        "request_id": "call-17",
        "model": "gpt-4o",
        "input_tokens": 900,
        "cost_usd": 0.25,
        "certainty": "measured",
        "timestamp": "2026-11-21T09:30:00Z",
    }
    codec = Codecs(Style.HOUSE).of(ReportRequest.DESCRIPTOR)
    quick = ReportRequest()
    codec._fill(quick, report)
    assert quick == codec.decode(report)
    assert (quick.cost_nanousd, quick.timestamp.seconds) == (250_000_000, 1_795_253_400)


@pytest.mark.parametrize("number", [3.4028234663852886e38, 1.401298464324817e-45, 0.1])
def test_the_extremes_of_a_float_survive_the_way_there_and_back(
    every_kind: Any, number: float
) -> None:
    message = every_kind.EveryKind(a_float=number)
    codec = CODECS.of(message.DESCRIPTOR)
    assert codec.from_json(codec.to_json(message)) == message


ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, 1.5, -0.0, 1e300, 1e-300, 2**31, -(2**31) - 1, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64 - 1, "", "x", "1", "-1", "1.0", "1.5", "1e2", " 1", "true", "null",
    "NaN", "nan", "Infinity", "-Infinity", "inf", "COLOUR_RED", "colour_red", "red", "AQI=", "AQ",
    "-_8=", "2026-11-21T09:30:00Z", "2026-11-21T09:30:00.123456789+05:30", "2026-02-30T00:00:00Z",
    "2026-11-21T09:30:00", "2026-11-21 09:30:00Z", "2026-11-21T24:00:00Z", "0001-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-01:00",
    "1s", "-1.5s", "1.0000000001s", "315576000001s", "s", "fooBar,baz", "foo_bar",
    [], [None], [1], ["1", 2], ["x"], [[1]], [{}], [True], {}, {"name": "x"}, {"name": 1},
    {"weight": "5"}, {"unknown": 1}, {"1": "2"}, {"1": None}, {"x": "y"}, {"true": "AQ=="},
    {"@type": "x/everykind.v1.Leaf", "name": "n"}, {"@type": "x/unknown.Type"}, {"name": None},
    {"@type": "x/google.protobuf.Duration", "value": "1s"},
    {"@type": "x/google.protobuf.Duration"}, {"value": 1},
]  # fmt: skip


def outcome(read: Any) -> bytes | None:
    try:
        return wire(read())
    except (json_format.ParseError, BadJson, FieldErrors):
        return None


# What json_format takes or gives that the mapping does not, or that we will not.
TEXT_FOR_FLOATS = ("nan", "inf", " 1")  # whatever Python's float() reads


def deviates(field: FieldDescriptor, value: Any) -> bool:
    """Whether json_format is known to differ from the codec here, with the reason."""
    items = value if isinstance(value, list) else [value]
    real = {F.CPPTYPE_DOUBLE, F.CPPTYPE_FLOAT}
    inner = field.message_type
    scalar = inner.fields_by_name.get("value", field) if inner is not None else field
    for item in items:
        if scalar.cpp_type in real and (isinstance(item, bool) or item in TEXT_FOR_FLOATS):
            return True  # it calls float(), which reads true as 1.0 and " 1" as 1.0
        if scalar.cpp_type in INTEGERS and item in ("1.0", "1e2"):
            return True  # the mapping allows these texts for integers; nobody writes them
        if scalar.cpp_type in INTEGERS and isinstance(item, float) and abs(item) > 2**53:
            return True
        if scalar.type == F.TYPE_BYTES and isinstance(item, str):
            return True  # it skips characters that are not base64; shown below
        if scalar.cpp_type == F.CPPTYPE_ENUM and (isinstance(item, (bool, float)) or item == " 1"):
            return True  # it calls int(), which reads true, 1.5 and " 1" as 1
        if scalar.cpp_type == F.CPPTYPE_ENUM and isinstance(item, int) and item >= 2**31:
            return True  # it cuts the number to 32 bits
        if inner is not None and inner.name == "FieldMask":
            return True
        if inner is not None and inner.name == "Duration" and item == "1.0000000001s":
            return True  # it rounds
    if inner is not None and value in ("", []) and inner.name not in WITH_OWN_JSON:
        return True  # whatever is empty it takes for an empty message
    # It reads null into one Value even where there is a list of them.
    return field.is_repeated and value is None and inner is not None and inner.name == "Value"


WITH_OWN_JSON = {"Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "Any"}


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_odd_values_are_taken_or_refused_as_by_json_format(every_kind: Any, value: Any) -> None:
    codec = CODECS.of(every_kind.EveryKind.DESCRIPTOR)
    for field in every_kind.EveryKind.DESCRIPTOR.fields:
        if deviates(field, value):
            continue
        written = json.dumps({field.json_name: value})
        expected = outcome(lambda: json_format.Parse(written, every_kind.EveryKind()))  # noqa: B023
        assert outcome(lambda: codec.from_json(written)) == expected, field.name  # noqa: B023


@pytest.mark.parametrize(
    "written",
    ['{"aString":"a","a_string":"b"}', '{"chosenString":"a","chosenInt64":"1"}', "[]", '""', "1"],
)
def test_what_is_no_such_object_is_refused(every_kind: Any, written: str) -> None:
    with pytest.raises(FieldErrors):
        CODECS.of(every_kind.EveryKind.DESCRIPTOR).from_json(written)


@pytest.mark.parametrize("written", ["", "{", "{]", "NaN", '{"aDouble":NaN}', '"\\ud800"', "1e999"])
def test_what_is_no_json_is_refused_with_its_position(every_kind: Any, written: str) -> None:
    with pytest.raises(BadJson, match="line 1, column"):
        CODECS.of(every_kind.EveryKind.DESCRIPTOR).from_json(written)


@pytest.mark.parametrize("written", ["%%%%", "A", "AQ=", "A=Q=", "AQ===", "A Q="])
def test_bytes_that_are_not_base64_are_refused(every_kind: Any, written: str) -> None:
    with pytest.raises(FieldErrors, match="base64"):
        CODECS.of(every_kind.EveryKind.DESCRIPTOR).decode({"aBytes": written})


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_value_without_a_form_in_json_is_an_error(every_kind: Any, number: float) -> None:
    message = every_kind.EveryKind(a_value=struct_pb2.Value(number_value=number))
    with pytest.raises(Unencodable, match="EveryKind"):
        CODECS.of(message.DESCRIPTOR).to_json(message)


def test_an_any_of_an_unknown_type_is_an_error(every_kind: Any) -> None:
    message = every_kind.EveryKind(an_any=any_pb2.Any(type_url="x/no.such.Type", value=b"1"))
    with pytest.raises(Unencodable, match=r"no\.such\.Type"):
        CODECS.of(message.DESCRIPTOR).to_json(message)


def test_json_nested_without_end_is_refused(every_kind: Any) -> None:
    deep = '{"inner":' * 31 + "{}" + "}" * 31
    with pytest.raises(FieldErrors, match="deeper than 30"):
        CODECS.of(every_kind.EveryKind.DESCRIPTOR).from_json(deep)
