"""The language of the conversations and its player, against a broker that says what it is told."""

import pytest

from amqpd.testing.conversation import ConversationError, parse
from amqpd.testing.conversation_frames import (
    Assembler,
    encode_body,
    encode_header,
    encode_method,
)
from amqpd.testing.conversation_play import MismatchError, Outcome, play
from amqpd.testing.conversation_values import (
    Captures,
    decode_table,
    encode_table,
    matches,
    parse_expression,
)

HEAD = "=== a title\na connects raw\n"
GET_OK = encode_method(1, "basic.get-ok", {"delivery_tag": 1, "routing_key": "q"})
OPEN_OK = encode_method(1, "channel.open-ok", {})
QOS_OK = encode_method(1, "basic.qos-ok", {})


class Parrot:
    """A stage and its only peer: everything it will ever say is there from the start."""

    reply_s = quiet_s = 0.0

    def __init__(self, *says: bytes, is_judge: bool = False, closes: bool = False) -> None:
        self.is_judge = is_judge
        self.heard = b""
        self._says = list(says)
        self._closes = closes

    @property
    def closed(self) -> bool:
        return self._closes and not self._says

    def connect(self) -> "Parrot":
        return self

    def wait(self, seconds: float) -> None:
        self._says.append(b"")

    def stop(self) -> None:
        self._closes = True

    def send(self, data: bytes) -> None:
        self.heard += data

    def receive(self, patience_s: float) -> bytes:
        return self._says.pop(0) if self._says else b""

    def close(self) -> None:
        self._closes = True


def played(lines: str, *says: bytes, is_judge: bool = False, closes: bool = False) -> Outcome:
    [conversation] = parse(HEAD + lines, "test")
    return play(conversation, Parrot(*says, is_judge=is_judge, closes=closes))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("a< 1 basic.qos-ok", b""),
        ("a< 1 basic.qos-ok", OPEN_OK),
        ("a< 2 basic.qos-ok", QOS_OK),
        ("a< nothing", QOS_OK),
        ("a< closed", QOS_OK),
        ("a< closed", b""),
        ("a< heartbeat", QOS_OK),
        ("a< 1 channel.open-ok", OPEN_OK + QOS_OK),
        ("a< 1 channel.open-ok\na& 1 basic.qos-ok", OPEN_OK + OPEN_OK),
        ("a< 1 channel.open-ok\na> heartbeat\na< 1 basic.qos-ok", OPEN_OK + QOS_OK),
        ('a< 1 basic.get-ok body="more"', GET_OK + encode_header(1, 2, {})),
        ("a< 1 basic.qos-ok", b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x0b\x00"),
    ],
)
def test_what_is_not_as_written_is_a_mismatch(lines: str, says: bytes) -> None:
    with pytest.raises(MismatchError, match="a title"):
        played(lines, says)


def test_a_broker_that_closes_at_the_end_is_a_mismatch() -> None:
    with pytest.raises(MismatchError, match="closed"):
        played("a< 1 basic.qos-ok", QOS_OK, closes=True)


def test_a_mismatch_names_file_line_and_both_sides() -> None:
    with pytest.raises(MismatchError) as raised:
        played("a< 1 queue.declare-ok message_count=1", encode_method(1, "queue.declare-ok", {}))
    assert "test, line 3, in 'a title'" in str(raised.value)
    assert "expected a< 1 queue.declare-ok message_count=1" in str(raised.value)
    assert 'received a< 1 queue.declare-ok queue="" message_count=0' in str(raised.value)


def test_either_order_is_either_order() -> None:
    played("a< 1 channel.open-ok\na& 1 basic.qos-ok", OPEN_OK + QOS_OK)
    played("a< 1 channel.open-ok\na& 1 basic.qos-ok", QOS_OK, OPEN_OK)


def test_content_is_put_together_from_pieces() -> None:
    content = encode_header(1, 4, {"type": "t", "headers": {"n": 1}}) + encode_body(1, b"body", 3)
    frames = GET_OK + content
    pieces = [frames[start : start + 5] for start in range(0, len(frames), 5)]
    played('a< 1 basic.get-ok body="body" body_frames=[3, 1] type="t"', *pieces)
    played('a< 1 basic.get-ok properties={"type": "t", "headers": {"n": 1}}', frames)
    with pytest.raises(MismatchError):
        played('a< 1 basic.get-ok properties={"type": "t"}', frames)


def test_heartbeats_are_left_out_unless_a_line_expects_them() -> None:
    heartbeat = b"\x08\x00\x00\x00\x00\x00\x00\xce"
    played("a< 1 basic.qos-ok", heartbeat, QOS_OK, heartbeat)
    played("a< heartbeat\na< 1 basic.qos-ok", heartbeat, QOS_OK)
    with pytest.raises(MismatchError):
        played("a< nothing", heartbeat)


def test_confirms_may_be_grouped_but_not_repeated_or_missing() -> None:
    def acks(*tags: tuple[int, bool]) -> bytes:
        fields = [{"delivery_tag": tag, "multiple": multiple} for tag, multiple in tags]
        return b"".join(encode_method(1, "basic.ack", field) for field in fields)

    line = "a< 1 confirms first=1 last=3"
    played(line, acks((3, True)))
    played(line, acks((2, False), (3, True)))
    for wrong in (acks((2, True)), acks((1, False), (1, False)), acks((4, True))):
        with pytest.raises(MismatchError):
            played(line, wrong)


def test_captures_hold_for_the_rest_of_the_conversation() -> None:
    first = encode_method(1, "queue.declare-ok", {"queue": "one"})
    other = encode_method(1, "queue.declare-ok", {"queue": "two"})
    lines = "a< 1 queue.declare-ok queue=$name\na< 1 queue.declare-ok queue=$name"
    played(lines, first, first)
    with pytest.raises(MismatchError):
        played(lines, first, other)


def test_known_differences_count_for_the_judge_only() -> None:
    lines = "a< 1 basic.qos-ok\na~ 1 channel.open-ok ; because\na< 1 basic.qos-ok"
    with pytest.raises(MismatchError):
        played(lines, OPEN_OK)
    outcome = played(lines, OPEN_OK, is_judge=True)
    assert [step.reason for step in outcome.known] == ["because"]
    assert not played(lines, QOS_OK, QOS_OK, is_judge=True).known


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("a> 1 queue.declair", "no method 'queue.declair'"),
        ("a> 1 queue.declare nam='q'", "no 'nam'"),
        ("a> queue.declare", "number of the channel"),
        ("a> 1 queue.declare queue='q' queue='r'", "twice"),
        ("a> 1 queue.declare queue='q", "not closed"),
        ("a> 1 queue.declare queue=open('x')", "no field type 'open'"),
        ("a> 1 queue.declare queue=q.name", "conversations have no"),
        ("a< 1 channel.close reply_code=404", "names reply_code, reply_text and cause"),
        ("a< 1 channel.close reply_code=404 reply_text='' cause=basic.what", "no method"),
        ("b& 1 basic.qos-ok", "must follow an expectation"),
        ("a< 1 basic.qos-ok\na~ 1 channel.open-ok", "needs its reason"),
        ("a connects user='x' colour=1", "no 'colour'"),
        ("a sings", "cannot read"),
        ("=== another", "without lines"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(lines: str, problem: str) -> None:
    with pytest.raises(ConversationError, match=problem) as raised:
        parse(HEAD + "a> heartbeat\n" + lines, "test")
    assert "test, line 4" in str(raised.value) or "test, line 5" in str(raised.value)


def test_titles_are_unique_in_a_file() -> None:
    with pytest.raises(ConversationError, match="two conversations"):
        parse(HEAD + HEAD, "test")


def test_lines_behind_the_title_say_for_whom_it_is() -> None:
    text = "=== t\nonly core: no clock\nguest may write='^q'\n\n# comment\na opens 1\n  2\n"
    [conversation] = parse(text, "test")
    assert (conversation.only, conversation.permissions) == ("core", {"write": "^q"})
    assert [word.source for word in conversation.steps[0].words] == ["1", "2"]


@pytest.mark.parametrize(
    "source",
    [
        '{"t": True, "b": byte(-1), "B": ubyte(200), "s": short(-2), "u": ushort(60000)}',
        '{"I": int(-3), "i": uint(4000000000), "l": long(5), "L": long_L(6)}',
        '{"f": float(1.5), "d": double(2.5), "D": decimal(2, 314), "T": timestamp(9)}',
        '{"S": "text", "raw": longstr(b"\\xff"), "x": bytes(b"\\x00"), "V": void()}',
        '{"A": [int(1), "x", [void()]], "F": {"G": {"h": byte(1)}}}',
    ],
)
def test_tables_keep_their_types(source: str) -> None:
    expected = parse_expression(source).value({})
    data = encode_table(expected)
    received, end = decode_table(data, 0)
    assert end == len(data)
    assert matches(expected, received, {})
    assert encode_table(received) == data


@pytest.mark.parametrize(
    ("expected", "received", "fits"),
    [
        ("5", "byte(5)", True),
        ("5", "long(5)", True),
        ("byte(5)", "long(5)", False),
        ("5", '"5"', False),
        ("1", "True", False),
        ("True", "True", True),
        ("1", "1.0", False),
        ("5", "timestamp(5)", False),
        ('["a", any]', '["a", 7]', True),
        ('["a"]', '["a", 7]', False),
        ('{"a": 1}', '{"a": 1, "b": 2}', False),
        ('including({"a": 1})', '{"a": 1, "b": 2}', True),
        ('including({"a": 2})', '{"a": 1, "b": 2}', False),
        ('pattern("a.c")', '"abc"', True),
        ('pattern("a.c")', '"abcd"', False),
        ("*", "[]", True),
    ],
)
def test_values_match_by_kind_and_value(expected: str, received: str, fits: bool) -> None:
    table = encode_table({"x": parse_expression(received).value({})})
    found = decode_table(table, 0)[0]["x"]
    assert matches(parse_expression(expected).value({}), found, {}) == fits


def test_captured_values_can_be_sent_and_put_into_texts() -> None:
    captures: Captures = {"name": "q-1"}
    assert parse_expression("$name").value(captures) == "q-1"
    assert parse_expression("\"no queue '${name}'\"").value(captures) == "no queue 'q-1'"
    assert parse_expression('"x"*3+"y"').value(captures) == "xxxy"


def test_what_is_received_reads_as_it_would_be_written() -> None:
    close = encode_method(
        1,
        "channel.close",
        {"reply_code": 404, "reply_text": "it's", "class_id": 50, "method_id": 10},
    )
    content = GET_OK + encode_header(1, 1, {"headers": {"n": None, "d": 1.5}}) + b"\x03\x00\x01"
    content += b"\x00\x00\x00\x01x\xce"
    shown = [str(received) for received in Assembler().feed(close + content)]
    assert shown[0] == '1 channel.close reply_code=404 reply_text="it\'s" cause=queue.declare'
    assert shown[1].endswith("body=\"x\" headers={'n': void(), 'd': double(1.5)}")
    for line in shown:
        parse(f"{HEAD}a< {line}", "test")
