"""Field tables and properties as plain values: texts, numbers, truth values, lists and dicts.

That is how RabbitMQ's HTTP API and its definitions tell them, and all that JSON has. What it cannot
tell is listed beside the values, so that nothing is lost: where a value is, as a JSON pointer
(`/headers/since`), and what it is. Not listed is what is what it looks like: a text is a longstr
(shortstr as a property), a number without a fraction a signedint where it fits and else a long, one
with a fraction a double, null is void. Bytes that are no text are base64, which the type says too
(`longstr:base64`).

Source: AMQP 0-9-1 section 4.2.5.5; RabbitMQ's HTTP API.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from decimal import Decimal
from math import isfinite
from typing import Any, Final

from amqpd.wire import content, tables

Types = dict[str, str]

BASE64: Final = ":base64"

_NAMES: Final = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
_PROPERTIES: Final = tuple(zip(_NAMES, content.LAYOUT, strict=True))
_NUMBERS: Final = {
    kind: struct.Struct(form)
    for kind, form in (
        (b"b", ">b"), (b"B", ">B"), (b"s", ">h"), (b"u", ">H"), (b"I", ">i"), (b"i", ">I"),
        (b"l", ">q"), (b"L", ">q"), (b"f", ">f"), (b"d", ">d"), (b"T", ">Q"),
    )
}  # fmt: skip
_DECIMAL: Final = struct.Struct(">BI")


def plain_table(data: bytes, offset: int = 0) -> tuple[dict[str, Any], Types]:
    """The table at `offset` as plain values, and the types that they do not tell.

    Raises:
        ValueError: the table is not well formed.
    """
    types: Types = {}
    try:
        return _table(data, offset, "", types), types
    except IndexError as error:
        raise ValueError("a table runs over the end") from error


def plain_properties(header: bytes) -> tuple[dict[str, Any], Types]:
    """The properties in a header piece by name, and the types that they do not tell.

    Raises:
        ValueError: the header is not well formed.
    """
    found: dict[str, Any] = {}
    types: Types = {}
    try:
        content.check(header)
        present, offset = content.flags(header), content.PROPERTIES_OFFSET
        for name, (bit, kind) in _PROPERTIES:
            if present & bit:
                found[name], offset = _property(header, kind, offset, f"/{name}", types)
    except IndexError as error:
        raise ValueError("the properties run over the end of their frame") from error
    return found, types


def _property(
    header: bytes, kind: str | int, start: int, pointer: str, types: Types
) -> tuple[Any, int]:
    """The property that begins at `start`, and where it ends."""
    if kind == "t":
        end = start + 4 + int.from_bytes(header[start : start + 4], "big")
        return _table(header, start, pointer, types), end
    if kind == "s":
        end = start + 1 + header[start]
        return _text(header[start + 1 : end], "shortstr", pointer, types), end
    end = start + int(kind)
    return int.from_bytes(header[start:end], "big"), end


def _table(data: bytes, offset: int, pointer: str, types: Types) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in tables.entries(data, offset)[0]:
        if entry.name not in found:  # the first of those with one name is the one that counts
            step = entry.name.replace("~", "~0").replace("/", "~1")
            found[entry.name] = _value(
                data, entry.type, entry.value, entry.end, f"{pointer}/{step}", types
            )
    return found


def _value(data: bytes, kind: bytes, start: int, end: int, pointer: str, types: Types) -> Any:
    """One value; what it is goes to the types if one cannot see it."""
    if kind == b"F":
        return _table(data, start, pointer, types)
    if kind == b"A":
        return [
            _value(data, item, begin, behind, f"{pointer}/{place}", types)
            for place, (item, begin, behind) in enumerate(tables.items(data, start))
        ]
    if kind == b"S":
        return _text(data[start + 4 : end], "longstr", pointer, types)
    if kind == b"x":
        types[pointer] = tables.TYPE_NAMES[kind] + BASE64
        return b64encode(data[start + 4 : end]).decode()
    value = _scalar(data, kind, start)
    name = tables.TYPE_NAMES[kind]
    if name != _looks_like(value):
        types[pointer] = name
    return value


def _scalar(data: bytes, kind: bytes, start: int) -> Any:
    if kind == b"V":
        return None
    if kind == b"t":
        return data[start] != 0
    if kind == b"D":
        scale, digits = _DECIMAL.unpack_from(data, start)
        return str(Decimal(digits).scaleb(-scale))
    (value,) = _NUMBERS[kind].unpack_from(data, start)
    # JSON has no infinity, and nothing that is not a number.
    return value if isfinite(value) else str(value)


def _looks_like(value: Any) -> str:
    """The type that a value has if nothing else is said."""
    if value is None:
        return "void"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return "double" if isinstance(value, float) else "longstr"


def _text(data: bytes, name: str, pointer: str, types: Types) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        types[pointer] = name + BASE64
        return b64encode(data).decode()
