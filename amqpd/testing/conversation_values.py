"""The values of the conversation language: Python literals, typed table fields, matchers.

A conversation writes `arguments={"x-expires": long(60000)}` where the field type matters and plain
literals where it does not. Tables are encoded and decoded here, and not by the codec of the broker,
so that a mistake in that codec cannot hide itself.
"""

import ast
import operator
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Captures = dict[str, Any]


@dataclass(frozen=True)
class Typed:
    """A table field with its type letter, as it stands on the wire."""

    letter: str
    value: Any

    def __repr__(self) -> str:
        name = _NAMES_BY_LETTER[self.letter]
        if self.letter == "V":
            return "void()"
        if self.letter in "tSFA":
            return repr(self.value)
        return f"{name}{tuple(self.value)}" if self.letter == "D" else f"{name}({self.value!r})"


# Name in a conversation -> type letter, RabbitMQ's dialect of field types.
LETTERS = {
    "bool": "t", "byte": "b", "ubyte": "B", "short": "s", "ushort": "u", "int": "I", "uint": "i",
    "long": "l", "long_L": "L", "float": "f", "double": "d", "decimal": "D", "longstr": "S",
    "array": "A", "timestamp": "T", "table": "F", "void": "V", "bytes": "x",
}  # fmt: skip
_NAMES_BY_LETTER = {letter: name for name, letter in LETTERS.items()}
_FIXED = {
    "b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">q",
    "f": ">f", "d": ">d", "T": ">Q",
}  # fmt: skip
_INTEGERS = "bBsuIilL"


class Matcher:
    """Something that an expectation compares with instead of a value."""

    def matches(self, received: Any, captures: Captures) -> bool:
        raise NotImplementedError


class Anything(Matcher):
    """`*`: any value."""

    def matches(self, received: Any, captures: Captures) -> bool:
        return True


@dataclass(frozen=True)
class Capture(Matcher):
    """Matches anything and remembers it under a name."""

    name: str

    def matches(self, received: Any, captures: Captures) -> bool:
        captures[self.name] = plain(received)
        return True


@dataclass(frozen=True)
class Including(Matcher):
    """A table with at least these entries."""

    entries: Mapping[str, Any]

    def matches(self, received: Any, captures: Captures) -> bool:
        found = received.value if isinstance(received, Typed) else received
        return isinstance(found, dict) and all(
            name in found and matches(value, found[name], captures)
            for name, value in self.entries.items()
        )


@dataclass(frozen=True)
class Pattern(Matcher):
    """A string which this regular expression matches from its start to its end."""

    expression: str

    def matches(self, received: Any, captures: Captures) -> bool:
        found = plain(received)
        return isinstance(found, str) and re.fullmatch(self.expression, found) is not None


def plain(value: Any) -> Any:
    """The value without the type letters."""
    if isinstance(value, Typed):
        value = value.value
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def matches(expected: Any, received: Any, captures: Captures) -> bool:
    """Whether a received value (typed, inside tables) is the expected one.

    Numbers without a type match every width of integer; strings match only strings, and so on.
    Captures that the expectation makes are written into `captures`.
    """
    if isinstance(expected, Matcher):
        return expected.matches(received, captures)
    if isinstance(expected, Typed):
        return (
            isinstance(received, Typed)
            and expected.letter == received.letter
            and matches(expected.value, _untyped(received), captures)
        )
    letter = received.letter if isinstance(received, Typed) else ""
    found = _untyped(received)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and expected.keys() == found.keys()
            and all(matches(value, found[name], captures) for name, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(expected) == len(found)
            and all(matches(e, f, captures) for e, f in zip(expected, found, strict=True))
        )
    if isinstance(expected, bytes) and isinstance(found, str):
        return expected == found.encode()
    if letter == "T":
        return False
    return type(expected) is type(found) and bool(expected == found)


def _untyped(received: Any) -> Any:
    return received.value if isinstance(received, Typed) else received


# --- field tables on the wire ---


def encode_table(table: Mapping[str, Any]) -> bytes:
    """The field table in the order of the mapping, its length first."""
    body = b"".join(_encode_name(name) + encode_value(value) for name, value in table.items())
    return struct.pack(">I", len(body)) + body


def encode_value(value: Any) -> bytes:
    """Type letter and value. Plain integers go out as signed 32 bits if they fit, as pika sends."""
    if not isinstance(value, Typed):
        value = Typed(_letter_for(value), value)
    letter, content = value.letter, value.value
    head: bytes = letter.encode()
    if letter in _FIXED:
        return head + struct.pack(_FIXED[letter], content)
    if letter == "t":
        return head + bytes([content])
    if letter == "D":
        scale, number = content
        return head + struct.pack(">Bi", scale, number)
    if letter == "F":
        return head + encode_table(content)
    if letter == "V":
        return head
    if letter == "A":
        raw = b"".join(map(encode_value, content))
    else:
        raw = content if isinstance(content, bytes) else content.encode()
    return head + struct.pack(">I", len(raw)) + raw


def _encode_name(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw


def _letter_for(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "I" if -(2**31) <= value < 2**31 else "l"
    letters = {bool: "t", float: "d", str: "S", bytes: "S", dict: "F", list: "A", type(None): "V"}
    return letters[type(value)]


def decode_table(data: bytes, offset: int) -> tuple[dict[str, Typed], int]:
    """The table at `offset`, and the offset behind it."""
    (size,) = struct.unpack_from(">I", data, offset)
    offset += 4
    end = offset + size
    table = {}
    while offset < end:
        name_end = offset + 1 + data[offset]
        name = data[offset + 1 : name_end].decode()
        table[name], offset = _decode_value(data, name_end)
    if offset != end:
        raise ValueError("a table whose entries run over its end")
    return table, end


def _decode_value(data: bytes, offset: int) -> tuple[Typed, int]:
    letter, offset = chr(data[offset]), offset + 1
    if letter in _FIXED:
        (number,) = struct.unpack_from(_FIXED[letter], data, offset)
        return Typed(letter, number), offset + struct.calcsize(_FIXED[letter])
    if letter == "t":
        return Typed(letter, data[offset] != 0), offset + 1
    if letter == "D":
        return Typed(letter, list(struct.unpack_from(">Bi", data, offset))), offset + 5
    if letter == "V":
        return Typed(letter, None), offset
    if letter == "F":
        table, offset = decode_table(data, offset)
        return Typed(letter, table), offset
    (size,) = struct.unpack_from(">I", data, offset)
    offset, end = offset + 4, offset + 4 + size
    if letter == "A":
        items = []
        while offset < end:
            item, offset = _decode_value(data, offset)
            items.append(item)
        return Typed(letter, items), end
    if letter not in "Sx":
        raise ValueError(f"unknown field type {letter!r}")
    return Typed(letter, text_or_bytes(data[offset:end])), end


def text_or_bytes(raw: bytes) -> str | bytes:
    """The string, or the bytes themselves where they are not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


# --- expressions ---

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Sub: operator.sub,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Expression:
    """A value as written in a conversation; `value` computes it when its line is played."""

    source: str
    tree: ast.expr

    def value(self, captures: Captures) -> Any:
        """The value, with captures filled in; an unknown `$name` becomes a Capture.

        Raises:
            ValueError: the expression uses something that conversations do not have.
        """
        return _evaluate(self.tree, captures)


def parse_expression(source: str) -> Expression:
    """An expression from its text: a literal, a call such as long(1), `*`, `$name`, "x" * 300.

    Raises:
        ValueError: it is none of these.
    """
    text = "any" if source == "*" else _names_to_calls(source)
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read the value {source!r}") from error
    _evaluate(tree, {})
    return Expression(source, tree)


def _names_to_calls(source: str) -> str:
    """`$name` outside strings becomes capture("name")."""
    parts = re.split(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", source)
    return "".join(
        part if index % 2 else re.sub(r"\$(\w+)", r'capture("\1")', part)
        for index, part in enumerate(parts)
    )


def _evaluate(node: ast.expr, captures: Captures) -> Any:
    match node:
        case ast.Constant(str() as text):
            return re.sub(r"\$\{(\w+)\}", lambda name: str(captures.get(name[1], name[0])), text)
        case ast.Constant(value):
            return value
        case ast.Name("any"):
            return Anything()
        case ast.UnaryOp(ast.USub(), operand):
            return -_evaluate(operand, captures)
        case ast.BinOp(left, kind, right) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](_evaluate(left, captures), _evaluate(right, captures))
        case ast.List(items) | ast.Tuple(items):
            return [_evaluate(item, captures) for item in items]
        case ast.Dict(keys, values):
            return {
                _evaluate(key, captures): _evaluate(value, captures)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.Call(ast.Name(name), arguments, []):
            return _call(name, [_evaluate(argument, captures) for argument in arguments], captures)
    raise ValueError(f"conversations have no {ast.unparse(node)}")


def _call(name: str, arguments: list[Any], captures: Captures) -> Any:
    if name == "capture":
        return captures.get(arguments[0], Capture(arguments[0]))
    if name == "including":
        return Including(*arguments)
    if name == "pattern":
        return Pattern(*arguments)
    if name not in LETTERS:
        raise ValueError(f"there is no field type {name!r}; there are {', '.join(LETTERS)}")
    letter = LETTERS[name]
    if letter == "V":
        return Typed(letter, None)
    return Typed(letter, arguments if letter == "D" else arguments[0])
