"""Tables and properties as plain values, with the types that plain values do not tell."""

import json
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.wire import content
from amqpd.wire.methods import Basic, encode_header, encode_table
from amqpd.wire.plain import plain_properties, plain_table


def table(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return len(body).to_bytes(4, "big") + body


def header(**properties: Any) -> bytes:
    """The header piece of a message with these properties."""
    return encode_header(1, 0, Basic.Properties(**properties))[3:]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (b"t\x01", True),
        (b"t\x00", False),
        (b"I\xff\xff\xff\xff", -1),
        (b"l\x00\x00\x00\x01\x00\x00\x00\x00", 2**32),
        (b"d" + struct.pack(">d", 1.5), 1.5),
        (b"S\x00\x00\x00\x03f\xc3\xbc", "fü"),
        (b"V", None),
        (b"F" + table(b"\x01aI\x00\x00\x00\x01"), {"a": 1}),
        (b"A" + table(b"I\x00\x00\x00\x01", b"V"), [1, None]),
    ],
)
def test_a_value_that_json_has_is_told_as_it_is_and_its_type_is_not_listed(value, plain):
    assert plain_table(table(b"\x01n" + value)) == ({"n": plain}, {})


@pytest.mark.parametrize(
    ("value", "plain", "listed"),
    [
        (b"b\xff", -1, "byte"),
        (b"B\xff", 255, "unsignedbyte"),
        (b"s\xff\xfe", -2, "short"),
        (b"u\xff\xfe", 65534, "unsignedshort"),
        (b"i\xff\xff\xff\xff", 2**32 - 1, "unsignedint"),
        (b"l\x00\x00\x00\x00\x00\x00\x00\x05", 5, "long"),
        (b"T\xff\xff\xff\xff\xff\xff\xff\xff", 2**64 - 1, "timestamp"),
        (b"f" + struct.pack(">f", 0.5), 0.5, "float"),
        (b"d" + struct.pack(">d", float("inf")), "inf", "double"),
        (b"d" + struct.pack(">d", float("nan")), "nan", "double"),
        (b"D\x02\x00\x00\x00\x7b", "1.23", "decimal"),
        (b"x\x00\x00\x00\x02\x00\xff", "AP8=", "binary:base64"),
        (b"S\x00\x00\x00\x02\x00\xff", "AP8=", "longstr:base64"),
    ],
)
def test_a_type_that_the_value_does_not_tell_is_listed(value, plain, listed):
    assert plain_table(table(b"\x01n" + value)) == ({"n": plain}, {"/n": listed})


def test_types_are_listed_by_json_pointers_into_nested_tables_and_arrays():
    inner = table(b"\x03a/bb\x01", b"\x01~A" + table(b"I\x00\x00\x00\x01", b"b\x02"))
    values, types = plain_table(table(b"\x01nF" + inner))
    assert values == {"n": {"a/b": 1, "~": [1, 2]}}
    assert types == {"/n/a~1b": "byte", "/n/~0/1": "byte"}


def test_of_a_name_given_twice_the_first_counts():
    assert plain_table(table(b"\x01nb\x01", b"\x01nb\x02"))[0] == {"n": 1}


def test_properties_have_the_names_of_the_http_api():
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    given_ones: dict[str, Any] = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"tries": 3, "price": Decimal("1.5")},
        "delivery_mode": 2,
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "1000",
        "message_id": "m",
        "timestamp": moment,
        "message_type": "t",
        "user_id": "guest",
        "app_id": "a",
    }
    properties, types = plain_properties(header(**given_ones))
    assert properties == {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"tries": 3, "price": "1.5"},
        "delivery_mode": 2,
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "1000",
        "message_id": "m",
        "timestamp": int(moment.timestamp()),
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
    }
    assert types["/headers/price"] == "decimal"
    assert plain_properties(header()) == ({}, {})


def test_a_property_that_is_no_text_is_told_in_base64():
    piece = header(message_id="mm").replace(b"mm", b"\xff\xfe")
    assert plain_properties(piece) == (
        {"message_id": "//4="},
        {"/message_id": "shortstr:base64"},
    )


@given(st.data())
def test_whatever_the_bytes_are_a_table_is_json_or_a_value_error(data):
    good = encode_table({"a": 1, "b": "x", "c": [1.5, None, {"d": True}], "e": bytearray(b"\xff")})
    encoded = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(encoded[: data.draw(st.integers(0, len(good)))])
    try:
        values, types = plain_table(cut)
    except ValueError:
        return
    json.loads(msgspec.json.encode([values, types]))


@given(st.data())
def test_whatever_the_bytes_are_properties_are_json_or_a_value_error(data):
    good = header(headers={"a": [1, "x"]}, message_id="m", timestamp=datetime.now(UTC), priority=1)
    encoded = bytearray(good)
    for _ in range(data.draw(st.integers(0, 4))):
        encoded[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(encoded[: data.draw(st.integers(0, len(good)))])
    try:
        properties, types = plain_properties(cut)
    except ValueError:
        return
    assert set(properties) <= set(plain_properties(good)[0]) or content.flags(cut)
    json.loads(msgspec.json.encode([properties, types]))
