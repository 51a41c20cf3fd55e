"""Methods and properties between bytes and pamqp's classes; the only importer of pamqp.

The classes named here are pamqp's, without its checks of names against the letters of AMQP 0-9-1:
RabbitMQ allows any UTF-8 in names, and so must we. Decoding is strict where pamqp is not: strings
and tables that run over the end of the frame are refused.
"""

from struct import error as StructError
from struct import unpack_from
from typing import TYPE_CHECKING, Any, ClassVar

from pamqp import base, commands, decode, encode, header

from amqpd import errors
from amqpd.wire import tables
from amqpd.wire.constants import CLASS_BASIC, FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from amqpd.wire.erlang import binary
from amqpd.wire.frames import frame

Method = base.Frame


def _unchecked(group: type) -> type:
    """A class of methods (`commands.Queue`) with each method's checks of its fields taken out."""
    members = {
        method.__name__: type(
            method.__name__,
            (method,),
            {"__slots__": method.__slots__, "validate": lambda self: None},
        )
        for method in vars(group).values()
        if isinstance(method, type) and issubclass(method, base.Frame)
    }
    return type(group.__name__, (group,), members)


if TYPE_CHECKING:
    from pamqp.commands import Basic as Basic
    from pamqp.commands import Channel as Channel
    from pamqp.commands import Confirm as Confirm
    from pamqp.commands import Connection as Connection
    from pamqp.commands import Exchange as Exchange
    from pamqp.commands import Queue as Queue
    from pamqp.commands import Tx as Tx
else:
    Connection = _unchecked(commands.Connection)
    Channel = _unchecked(commands.Channel)
    Exchange = _unchecked(commands.Exchange)
    Queue = _unchecked(commands.Queue)
    Basic = _unchecked(commands.Basic)
    Confirm = _unchecked(commands.Confirm)
    Tx = _unchecked(commands.Tx)


class Access:
    """Class 30, which AMQP 0-9-1 dropped and RabbitMQ still answers."""

    class Request(base.Frame):
        """access.request."""

        __slots__ = ["realm", "exclusive", "passive", "active", "write", "read"]
        frame_id = 10
        index = 0x001E000A
        name = "Access.Request"
        synchronous = True
        valid_responses: ClassVar[list[str]] = ["Access.RequestOk"]
        _realm = "shortstr"
        _exclusive = "bit"
        _passive = "bit"
        _active = "bit"
        _write = "bit"
        _read = "bit"

    class RequestOk(base.Frame):
        """access.request-ok."""

        __slots__ = ["ticket"]
        frame_id = 11
        index = 0x001E000B
        name = "Access.RequestOk"
        _ticket = "short"

        def __init__(self, ticket: int = 1) -> None:
            self.ticket = ticket


CLASSES = (Connection, Channel, Access, Exchange, Queue, Basic, Confirm, Tx)
BY_INDEX: dict[int, type[Method]] = {
    method.index: method
    for group in CLASSES
    for method in vars(group).values()
    if isinstance(method, type) and issubclass(method, base.Frame)
}


def decode_method(payload: bytes) -> Method:
    """The method in the payload of a method frame.

    Raises:
        ConnectionException: 503 for a method that AMQP 0-9-1 and RabbitMQ do not have, 501 for
            arguments that cannot be decoded (RabbitMQ's answer; the specification's is 502).
    """
    method_class = BY_INDEX.get(int.from_bytes(payload[:4], "big"))
    if method_class is None or len(payload) < 4:
        raise errors.command_invalid("unimplemented method")
    arguments = payload[4:]
    try:
        table = _check_bounds(method_class, arguments)
        method = method_class.__new__(method_class)
        try:
            method.unmarshal(arguments)
        except (ValueError, OverflowError, OSError):
            method.unmarshal(_with_plain_timestamps(arguments, table))
    except (ValueError, StructError, IndexError, OverflowError) as error:
        refusal = errors.frame_error(f"cannot decode {binary(arguments)}")
        refusal.method = (method_class.index >> 16, method_class.index & 0xFFFF)
        raise refusal from error
    return method


def _check_bounds(method_class: type[Method], arguments: bytes) -> int | None:
    """Where the table in the arguments begins, if there is one (no method has two).

    Raises:
        ValueError: the fields of the method do not fill its arguments exactly.
    """
    offset, bits = 0, 0
    table = None
    for field in method_class.__slots__:
        kind = method_class.amqp_type(field)
        if kind == "bit":
            offset += bits % 8 == 0
            bits += 1
            continue
        bits = 0
        if kind == "shortstr":
            start, offset = offset + 1, offset + 1 + arguments[offset]
            _check_utf8(arguments[start:offset])
        elif kind == "longstr":
            offset += 4 + int.from_bytes(arguments[offset : offset + 4], "big")
        elif kind == "table":
            table = offset
            _, offset = tables.entries(arguments, offset)
        else:
            offset += {"octet": 1, "short": 2, "long": 4, "longlong": 8}[kind]
    if offset != len(arguments):
        raise ValueError("the arguments do not fill their frame")
    return table


def _with_plain_timestamps(data: bytes, table: int | None) -> bytes:
    """The data with the timestamps of the table at `table` as 64-bit integers.

    RabbitMQ takes any 64 bits for a timestamp (some clients send microseconds); pamqp
    only what a calendar has.
    """
    changed = bytearray(data)
    for letter in tables.timestamps(data, table) if table is not None else ():
        changed[letter] = ord("l")
    return bytes(changed)


def _check_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        refusal = errors.frame_error("Malformed UTF-8 in shortstr")
        refusal.method = (0, 0)
        raise refusal from error


def encode_method(channel: int, method: Method) -> bytes:
    """The whole method frame."""
    payload = method.index.to_bytes(4, "big") + method.marshal()
    return frame(FRAME_METHOD, channel, payload)


def encode_header(channel: int, body_size: int, properties: commands.Basic.Properties) -> bytes:
    """The whole content header frame."""
    payload = header.ContentHeader(0, body_size, properties).marshal()
    return frame(FRAME_HEADER, channel, payload)


def encode_body(channel: int, payload: bytes) -> bytes:
    """One whole body frame; the caller keeps to frame-max."""
    return frame(FRAME_BODY, channel, payload)


def encode_table(table: dict[str, Any]) -> bytes:
    """A field table with its four-byte length."""
    return encode.field_table(table)


def decode_table(data: bytes, offset: int = 0) -> dict[str, Any]:
    """The field table at `offset` as Python values.

    Raises:
        ValueError: the table is not well formed.
    """
    _, end = tables.entries(data, offset)
    table = data[offset:end]
    try:
        return dict(decode.field_table(table)[1])
    except (ValueError, OverflowError, OSError):
        return dict(decode.field_table(_with_plain_timestamps(table, 0))[1])


def decode_properties(payload: bytes) -> commands.Basic.Properties:
    """The properties in the payload of a content header frame.

    Raises:
        ValueError: the header is not well formed.
    """
    class_id, _, _ = unpack_from(">HHQ", payload)
    if class_id != CLASS_BASIC:
        raise ValueError(f"content of class {class_id}")
    content = header.ContentHeader()
    content.unmarshal(payload)
    return content.properties
