"""Methods and properties between bytes and pamqp's classes; the only importer of pamqp.

The classes named here are pamqp's, without its checks of names against the letters of AMQP 0-9-1:
RabbitMQ allows any UTF-8 in names, and so must we. Decoding is strict where pamqp is not: strings
and tables that run over the end of the frame are refused.
"""

from struct import error as StructError
from struct import unpack_from
from typing import Any, ClassVar, TypeVar

from pamqp import base, commands, decode, encode, header

from amqpd import errors
from amqpd.wire import tables
from amqpd.wire.constants import CLASS_BASIC, FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from amqpd.wire.erlang import binary
from amqpd.wire.frames import frame

Method = base.Frame
M = TypeVar("M", bound=type[base.Frame])


def _unchecked(method: M) -> M:
    """The same method class without pamqp's validation of its fields."""
    fields = {"__slots__": method.__slots__, "validate": lambda self: None}
    return type(method.__name__, (method,), fields)  # type: ignore[return-value]


class Connection:
    """Class 10."""

    Start = _unchecked(commands.Connection.Start)
    StartOk = _unchecked(commands.Connection.StartOk)
    Secure = _unchecked(commands.Connection.Secure)
    SecureOk = _unchecked(commands.Connection.SecureOk)
    Tune = _unchecked(commands.Connection.Tune)
    TuneOk = _unchecked(commands.Connection.TuneOk)
    Open = _unchecked(commands.Connection.Open)
    OpenOk = _unchecked(commands.Connection.OpenOk)
    Close = _unchecked(commands.Connection.Close)
    CloseOk = _unchecked(commands.Connection.CloseOk)
    Blocked = _unchecked(commands.Connection.Blocked)
    Unblocked = _unchecked(commands.Connection.Unblocked)
    UpdateSecret = _unchecked(commands.Connection.UpdateSecret)
    UpdateSecretOk = _unchecked(commands.Connection.UpdateSecretOk)


class Channel:
    """Class 20."""

    Open = _unchecked(commands.Channel.Open)
    OpenOk = _unchecked(commands.Channel.OpenOk)
    Flow = _unchecked(commands.Channel.Flow)
    FlowOk = _unchecked(commands.Channel.FlowOk)
    Close = _unchecked(commands.Channel.Close)
    CloseOk = _unchecked(commands.Channel.CloseOk)


class Access:
    """Class 30, which AMQP 0-9-1 dropped and RabbitMQ still answers."""

    class Request(base.Frame):
        __slots__ = ["realm", "exclusive", "passive", "active", "write", "read"]  # noqa: RUF012
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
        __slots__ = ["ticket"]  # noqa: RUF012
        frame_id = 11
        index = 0x001E000B
        name = "Access.RequestOk"
        _ticket = "short"

        def __init__(self, ticket: int = 1) -> None:
            self.ticket = ticket


class Exchange:
    """Class 40."""

    Declare = _unchecked(commands.Exchange.Declare)
    DeclareOk = _unchecked(commands.Exchange.DeclareOk)
    Delete = _unchecked(commands.Exchange.Delete)
    DeleteOk = _unchecked(commands.Exchange.DeleteOk)
    Bind = _unchecked(commands.Exchange.Bind)
    BindOk = _unchecked(commands.Exchange.BindOk)
    Unbind = _unchecked(commands.Exchange.Unbind)
    UnbindOk = _unchecked(commands.Exchange.UnbindOk)


class Queue:
    """Class 50."""

    Declare = _unchecked(commands.Queue.Declare)
    DeclareOk = _unchecked(commands.Queue.DeclareOk)
    Bind = _unchecked(commands.Queue.Bind)
    BindOk = _unchecked(commands.Queue.BindOk)
    Unbind = _unchecked(commands.Queue.Unbind)
    UnbindOk = _unchecked(commands.Queue.UnbindOk)
    Purge = _unchecked(commands.Queue.Purge)
    PurgeOk = _unchecked(commands.Queue.PurgeOk)
    Delete = _unchecked(commands.Queue.Delete)
    DeleteOk = _unchecked(commands.Queue.DeleteOk)


class Basic:
    """Class 60."""

    Properties = commands.Basic.Properties
    Qos = _unchecked(commands.Basic.Qos)
    QosOk = _unchecked(commands.Basic.QosOk)
    Consume = _unchecked(commands.Basic.Consume)
    ConsumeOk = _unchecked(commands.Basic.ConsumeOk)
    Cancel = _unchecked(commands.Basic.Cancel)
    CancelOk = _unchecked(commands.Basic.CancelOk)
    Publish = _unchecked(commands.Basic.Publish)
    Return = _unchecked(commands.Basic.Return)
    Deliver = _unchecked(commands.Basic.Deliver)
    Get = _unchecked(commands.Basic.Get)
    GetOk = _unchecked(commands.Basic.GetOk)
    GetEmpty = _unchecked(commands.Basic.GetEmpty)
    Ack = _unchecked(commands.Basic.Ack)
    Reject = _unchecked(commands.Basic.Reject)
    RecoverAsync = _unchecked(commands.Basic.RecoverAsync)
    Recover = _unchecked(commands.Basic.Recover)
    RecoverOk = _unchecked(commands.Basic.RecoverOk)
    Nack = _unchecked(commands.Basic.Nack)


class Confirm:
    """Class 85, RabbitMQ's publisher confirms."""

    Select = _unchecked(commands.Confirm.Select)
    SelectOk = _unchecked(commands.Confirm.SelectOk)


class Tx:
    """Class 90."""

    Select = _unchecked(commands.Tx.Select)
    SelectOk = _unchecked(commands.Tx.SelectOk)
    Commit = _unchecked(commands.Tx.Commit)
    CommitOk = _unchecked(commands.Tx.CommitOk)
    Rollback = _unchecked(commands.Tx.Rollback)
    RollbackOk = _unchecked(commands.Tx.RollbackOk)


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
            arguments that cannot be decoded (RabbitMQ answers so, where the specification says 502).
    """
    method_class = BY_INDEX.get(int.from_bytes(payload[:4], "big"))
    if method_class is None or len(payload) < 4:
        raise errors.command_invalid("unimplemented method")
    arguments = payload[4:]
    try:
        _check_bounds(method_class, arguments)
        method = method_class.__new__(method_class)
        method.unmarshal(arguments)
    except (ValueError, StructError, IndexError, OverflowError) as error:
        refusal = errors.frame_error(f"cannot decode {binary(arguments)}")
        refusal.method = (method_class.index >> 16, method_class.index & 0xFFFF)
        raise refusal from error
    return method


def _check_bounds(method_class: type[Method], arguments: bytes) -> None:
    """Raises ValueError unless the fields of the method fill its arguments exactly."""
    offset, bits = 0, 0
    for field in method_class.__slots__:
        kind = method_class.amqp_type(field)
        if kind == "bit":
            offset += bits % 8 == 0
            bits += 1
            continue
        bits = 0
        if kind == "shortstr":
            offset += 1 + arguments[offset]
        elif kind == "longstr":
            offset += 4 + int.from_bytes(arguments[offset : offset + 4], "big")
        elif kind == "table":
            _, offset = tables.entries(arguments, offset)
        else:
            offset += {"octet": 1, "short": 2, "long": 4, "longlong": 8}[kind]
    if offset != len(arguments):
        raise ValueError("the arguments do not fill their frame")


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
    return dict(decode.field_table(data[offset:end])[1])


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


def is_content_method(method: Method) -> bool:
    """Whether a content header and body follow the method."""
    return isinstance(method, commands.Basic.Publish)
