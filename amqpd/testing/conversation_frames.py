"""Frames of a conversation: methods and content by AMQP's names, to bytes and back.

Field names and types of the methods come from `amqpd.wire.methods`; the bytes are made and read
here, with the types of table fields kept.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from amqpd.testing.conversation_values import Typed, decode_table, encode_table, text_or_bytes
from amqpd.wire import methods

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
CONTENT_METHODS = ("basic.publish", "basic.deliver", "basic.get-ok", "basic.return")
CLOSES = ("channel.close", "connection.close")
_BODY_BYTES_SHOWN_MAX = 200

_FORMATS = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q", "timestamp": ">Q"}
_ZEROS: dict[str, Any] = {"bit": False, "shortstr": "", "longstr": "", "table": {}}
_AMQP_NAMES = {"exchange_type": "type", "message_type": "type", "global_": "global"}
_DEFAULTS: dict[tuple[str, str], Any] = {
    ("exchange.declare", "type"): "direct",
    ("connection.start-ok", "mechanism"): "PLAIN",
    ("connection.start-ok", "locale"): "en_US",
    ("connection.open", "virtual_host"): "/",
    ("connection.close", "reply_code"): 200,
    ("channel.close", "reply_code"): 200,
}


@dataclass(frozen=True)
class MethodForm:
    """A method's name, its class and method id in one number, and its fields with their types."""

    name: str
    index: int
    fields: Mapping[str, str]


def _dashed(name: str) -> str:
    """Queue.DeclareOk -> queue.declare-ok."""
    group, _, method = name.partition(".")
    dashes = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in method)
    return f"{group.lower()}.{dashes.removeprefix('-')}"


def _fields(of: Any) -> dict[str, str]:
    return {_AMQP_NAMES.get(slot, slot): of.amqp_type(slot) for slot in of.__slots__}


METHODS: dict[str, MethodForm] = {
    _dashed(of.name): MethodForm(_dashed(of.name), of.index, _fields(of))
    for of in methods.BY_INDEX.values()
}
METHODS_BY_INDEX = {form.index: form for form in METHODS.values()}
PROPERTIES = _fields(methods.Basic.Properties)  # in the order of their flags, highest bit first


@dataclass
class Received:
    """What a peer sent: a whole frame, or a method with all of its content.

    `kind` is a method's name, or "heartbeat", "protocol" (a protocol header), "frame" (anything
    else); of the last two `raw` holds the bytes.
    """

    kind: str
    channel: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] | None = None
    body: bytes = b""
    body_frames: list[int] = field(default_factory=list)
    raw: bytes = b""

    def __str__(self) -> str:
        """The frame as a conversation writes it."""
        if self.kind == "heartbeat":
            return f"{self.channel} heartbeat" if self.channel else "heartbeat"
        if self.kind in ("protocol", "frame"):
            return f"raw {self.raw!r}"
        shown = dict(self.fields)
        cause = ""
        if self.kind in CLOSES:
            cause = f" cause={cause_name(shown.pop('class_id'), shown.pop('method_id'))}"
        if self.properties is not None:
            if len(self.body) < _BODY_BYTES_SHOWN_MAX:
                shown["body"] = text_or_bytes(self.body)
            else:
                shown["body_frames"] = self.body_frames
            shown |= self.properties
        words = " ".join(f"{name}={_show(value)}" for name, value in shown.items())
        return f"{self.channel} {self.kind} {words}".rstrip() + cause


def _show(value: Any) -> str:
    if isinstance(value, Typed):
        return repr(value)
    return _double_quoted(value) if isinstance(value, str) else repr(value)


def _double_quoted(text: str) -> str:
    """The string as a Python literal in double quotes, as the conversations write them."""
    inside = repr('"' + text)[2:-1]  # the added quote makes repr choose single quotes
    return '"' + inside.replace("\\'", "'").replace('"', '\\"') + '"'


def cause_name(class_id: int, method_id: int) -> str:
    """The name of the method with these ids, as `cause=` of a close gives it."""
    if (class_id, method_id) == (0, 0):
        return "none"
    form = METHODS_BY_INDEX.get(class_id << 16 | method_id)
    return form.name if form else f"{class_id}.{method_id}"


def cause_ids(name: str) -> tuple[int, int]:
    """Class and method id for `cause=`: a method's name, `none`, or two numbers `60.40`.

    Raises:
        ValueError: there is no such method.
    """
    if name == "none":
        return 0, 0
    if name in METHODS:
        return METHODS[name].index >> 16, METHODS[name].index & 0xFFFF
    class_id, _, method_id = name.partition(".")
    if not (class_id.isdigit() and method_id.isdigit()):
        raise ValueError(f"there is no method {name!r}")
    return int(class_id), int(method_id)


# --- to bytes ---


def frame(kind: int, channel: int, payload: bytes, end: int = FRAME_END) -> bytes:
    """One frame, well formed or not."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def encode_method(channel: int, name: str, values: Mapping[str, Any]) -> bytes:
    """The method frame; fields without a value take AMQP's defaults."""
    form = METHODS[name]
    payload = bytearray(form.index.to_bytes(4, "big"))
    bits: list[bool] = []
    for field_name, kind in form.fields.items():
        default = _DEFAULTS.get((name, field_name), _ZEROS.get(kind, 0))
        value = values.get(field_name, default)
        if kind == "bit":
            bits.append(bool(value))
            continue
        payload += _encode_bits(bits)
        bits.clear()
        payload += _encode_field(kind, value)
    payload += _encode_bits(bits)
    return frame(METHOD, channel, bytes(payload))


def _encode_bits(bits: list[bool]) -> bytes:
    octets = [bits[start : start + 8] for start in range(0, len(bits), 8)]
    return bytes(sum(bit << place for place, bit in enumerate(octet)) for octet in octets)


def _encode_field(kind: str, value: Any) -> bytes:
    if kind == "table":
        return value if isinstance(value, bytes) else encode_table(value)
    if kind in _FORMATS:
        number = value.value if isinstance(value, Typed) else value
        return struct.pack(_FORMATS[kind], number)
    raw = value if isinstance(value, bytes) else value.encode()
    return (bytes([len(raw)]) if kind == "shortstr" else struct.pack(">I", len(raw))) + raw


def encode_header(channel: int, body_size: int, properties: Mapping[str, Any]) -> bytes:
    """The content header frame; properties in the order of their flags."""
    flags, content = 0, bytearray()
    for place, (name, kind) in enumerate(PROPERTIES.items()):
        if name in properties:
            flags |= 1 << (15 - place)
            content += _encode_field(kind, properties[name])
    start = struct.pack(">HHQH", 60, 0, body_size, flags)
    return frame(HEADER, channel, start + bytes(content))


def encode_body(channel: int, body: bytes, size_max: int) -> bytes:
    """The body frames, none for an empty body, with payloads of at most `size_max` bytes."""
    parts = range(0, len(body), size_max)
    return b"".join(frame(BODY, channel, body[start : start + size_max]) for start in parts)


# --- from bytes ---


def decode_method(channel: int, payload: bytes) -> Received:
    """The method in a method frame's payload.

    Raises:
        ValueError: unknown method, or bytes missing or left over.
    """
    form = METHODS_BY_INDEX.get(int.from_bytes(payload[:4], "big"))
    if form is None:
        raise ValueError(f"a method that AMQP does not have: {payload!r}")
    received = Received(form.name, channel)
    offset, bits = 4, 0
    for name, kind in form.fields.items():
        if kind == "bit":
            offset += bits % 8 == 0
            received.fields[name] = bool(payload[offset - 1] >> bits % 8 & 1)
            bits += 1
            continue
        bits = 0
        received.fields[name], offset = _decode_field(kind, payload, offset)
    if offset != len(payload):
        raise ValueError(f"{form.name} with {len(payload) - offset} bytes too many: {payload!r}")
    return received


def _decode_field(kind: str, data: bytes, offset: int) -> tuple[Any, int]:
    if kind == "table":
        return decode_table(data, offset)
    if kind in _FORMATS:
        (number,) = struct.unpack_from(_FORMATS[kind], data, offset)
        return number, offset + struct.calcsize(_FORMATS[kind])
    width = 1 if kind == "shortstr" else 4
    start = offset + width
    end = start + int.from_bytes(data[offset:start], "big")
    if end > len(data):
        raise ValueError(f"a string that runs over the end of its frame: {data!r}")
    return text_or_bytes(data[start:end]), end


def decode_header(payload: bytes) -> tuple[int, dict[str, Any]]:
    """Body size and properties of a content header frame's payload."""
    class_id, weight, body_size, flags = struct.unpack_from(">HHQH", payload)
    if (class_id, weight) != (60, 0):
        raise ValueError(f"a content header of class {class_id}, weight {weight}")
    offset, properties = 14, {}
    for place, (name, kind) in enumerate(PROPERTIES.items()):
        if flags >> (15 - place) & 1:
            properties[name], offset = _decode_field(kind, payload, offset)
    if offset != len(payload):
        raise ValueError(f"a content header with bytes left over: {payload!r}")
    return body_size, properties


class Assembler:
    """Puts the bytes from a broker together into whole methods with their content."""

    def __init__(self) -> None:
        self.payload_max = 0  # longest payload that the client allows; 0: no limit agreed yet
        self._buffer = b""
        self._open: dict[int, tuple[Received, int]] = {}  # channel -> content still to come

    def feed(self, data: bytes) -> Iterator[Received]:
        """What has become complete with these bytes, in the order in which it became so.

        Raises:
            ValueError: the bytes are not AMQP, or break frame-max or the order of content.
        """
        self._buffer += data
        if self._buffer.startswith(b"AMQP"):
            if len(self._buffer) < 8:
                return
            header, self._buffer = self._buffer[:8], self._buffer[8:]
            yield Received("protocol", raw=header)
        while len(self._buffer) >= 8:
            kind, channel, size = struct.unpack_from(">BHI", self._buffer)
            end = 7 + size
            if len(self._buffer) <= end:
                return
            raw, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
            if raw[-1] != FRAME_END:
                raise ValueError(f"a frame that does not end in CE: {raw!r}")
            if self.payload_max and size > self.payload_max:
                raise ValueError(f"a frame of {size} bytes; {self.payload_max} were agreed")
            received = self._take(kind, channel, raw[7:-1], raw)
            if received is not None:
                yield received

    def _take(self, kind: int, channel: int, payload: bytes, raw: bytes) -> Received | None:
        if kind == HEARTBEAT and not payload:
            return Received("heartbeat", channel)
        if kind == METHOD:
            if channel in self._open:
                raise ValueError(f"a method inside the content of {self._open[channel][0]}")
            received = decode_method(channel, payload)
            if received.kind not in CONTENT_METHODS:
                return received
            self._open[channel] = received, -1
            return None
        if kind in (HEADER, BODY) and channel in self._open:
            return self._content(kind, channel, payload)
        return Received("frame", channel, raw=raw)

    def _content(self, kind: int, channel: int, payload: bytes) -> Received | None:
        received, missing = self._open[channel]
        if kind == HEADER:
            missing, received.properties = decode_header(payload)
        else:
            received.body += payload
            received.body_frames.append(len(payload))
            missing -= len(payload)
        if missing < 0:
            raise ValueError(f"more body than the content header announced: {received}")
        self._open[channel] = received, missing
        if missing:
            return None
        del self._open[channel]
        return received
