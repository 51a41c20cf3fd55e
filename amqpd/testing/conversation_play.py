"""Plays a conversation against a broker: the core of amqpd, or anything behind a socket."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from amqpd.testing.conversation import Conversation, Step
from amqpd.testing.conversation_frames import (
    BODY,
    CONTENT_METHODS,
    HEARTBEAT,
    PROPERTIES,
    Assembler,
    Received,
    encode_body,
    encode_header,
    encode_method,
    frame,
)
from amqpd.testing.conversation_values import Captures, matches

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


# A client that broke the framing is not heard any more, but left with its connection.close so long.
SILENT_CLOSE_S = 3.0


class Peer(Protocol):
    """One client connection to some broker."""

    @property
    def closed(self) -> bool:
        """The broker closed the connection, and all its bytes have been received."""

    def send(self, data: bytes) -> None: ...

    def receive(self, patience_s: float) -> bytes:
        """Bytes that the broker has sent and that were not received yet.

        Waits for the first byte for at most `patience_s` seconds; a broker in the same process
        has nothing to wait for. Empty when there is nothing, or when the broker has closed.
        """

    def close(self) -> None: ...


class Stage(Protocol):
    """Where conversations are played: gives connections to a broker, and lets time pass."""

    is_judge: bool  # RabbitMQ: the differences written in a conversation are allowed
    reply_s: float  # how long to wait for a reply
    quiet_s: float  # how long silence must last to count as silence

    def connect(self) -> Peer: ...

    def wait(self, seconds: float) -> None: ...

    def stop(self) -> None:
        """Stops the broker as SIGTERM does."""


class MismatchError(AssertionError):
    """The broker did not answer what the conversation says."""

    def __init__(self, conversation: Conversation, line: int, expected: str, received: str) -> None:
        super().__init__(
            f"{conversation.file}, line {line}, in {conversation.title!r}\n"
            f"  expected {expected}\n  received {received}"
        )


@dataclass
class Outcome:
    """What playing a conversation has shown besides success.

    `known` are the steps where a known difference was seen; `filled` is what stood for each `?`.
    """

    known: list[Step] = field(default_factory=list)
    filled: dict[int, list[str]] = field(default_factory=dict)
    queues: set[str] = field(default_factory=set)  # names from every queue.declare-ok


@dataclass
class _Line:
    """One connection of a conversation and what is known of it."""

    name: str
    peer: Peer
    assembler: Assembler = field(default_factory=Assembler)
    unread: list[Received] = field(default_factory=list)
    frame_max: int = 131072
    is_open: bool = False  # connection.open-ok has been received
    is_closing: bool = False  # the broker sent connection.close
    is_gone: bool = False  # nothing more can be said on it
    has_read: bool = False  # an expectation came since the last frame sent


def play(
    conversation: Conversation,
    stage: Stage,
    trace: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Plays all steps, then closes what is still open and looks for frames nobody expected.

    Raises:
        MismatchError: at the first thing that is not as the conversation says.
    """
    player = _Player(conversation, stage, trace)
    try:
        for step in conversation.steps:
            if not player.step(step):
                break
        else:
            player.finish()
    finally:
        player.abandon()
    return player.outcome


class _Player:
    def __init__(
        self, conversation: Conversation, stage: Stage, trace: Callable[[str], None]
    ) -> None:
        self.conversation = conversation
        self.stage = stage
        self.trace = trace
        self.outcome = Outcome()
        self.captures: Captures = {}
        self.lines: dict[str, _Line] = {}
        self.number = conversation.number  # of the line being played

    def step(self, step: Step) -> bool:
        """Plays one step; False when the conversation ends here for this broker."""
        self.number = step.number
        match step.verb:
            case "wait":
                self.stage.wait(float(step.words[0].value(self.captures)))
            case "connects":
                self._connects(step)
            case "stops":
                self.stage.stop()
            case "opens":
                self._opens(self._line(step.who), [int(word.source) for word in step.words])
            case "closes":
                self._close(self._line(step.who))
            case "drops":
                line = self._line(step.who)
                line.is_gone = True
                line.peer.close()
            case ">":
                self._send(self._line(step.who), step)
            case _:
                return self._expect(self._line(step.who), step)
        return True

    def finish(self) -> None:
        """Closes every connection that is still there; unexpected frames show up here."""
        for line in self.lines.values():
            if line.is_gone:
                continue
            self._collect(line, self.stage.quiet_s)
            self._skip_heartbeats(line)
            self._expect_quiet(line)
            if line.is_closing:
                self._write(line, encode_method(0, "connection.close-ok", {}))
                if not self.stage.is_judge:
                    self.stage.wait(SILENT_CLOSE_S)
                self._expect_closed(line)
            elif line.is_open:
                self._close(line)

    def abandon(self) -> None:
        for line in self.lines.values():
            if not line.is_gone:
                line.peer.close()

    # --- connections ---

    def _line(self, name: str) -> _Line:
        if name not in self.lines:
            self._handshake(self._dial(name), {})
        return self.lines[name]

    def _dial(self, name: str) -> _Line:
        line = self.lines[name] = _Line(name, self.stage.connect())
        return line

    def _connects(self, step: Step) -> None:
        before = self.lines.get(step.who)
        if before is not None and not before.is_gone:
            raise self._mismatch(f"a connection {step.who} to open", "it is open already")
        line = self._dial(step.who)
        if not step.words:
            options = {name: item.value(self.captures) for name, item in step.arguments.items()}
            self._handshake(line, options)

    def _handshake(self, line: _Line, options: dict[str, Any]) -> None:
        self._write(line, PROTOCOL_HEADER)
        self._reply(line, "connection.start")
        properties = dict(options.get("client_properties", {}))
        properties["capabilities"] = options.get("capabilities", CAPABILITIES)
        response = f"\0{options.get('user', 'guest')}\0{options.get('password', 'guest')}"
        self._write_method(
            line, 0, "connection.start-ok", client_properties=properties, response=response
        )
        tune = self._reply(line, "connection.tune").fields
        line.frame_max = options.get("frame_max", tune["frame_max"])
        agreed = {
            "channel_max": options.get("channel_max", tune["channel_max"]),
            "frame_max": line.frame_max,
            "heartbeat": options.get("heartbeat", 0),
        }
        self._write_method(line, 0, "connection.tune-ok", **agreed)
        line.assembler.payload_max = line.frame_max - 8 if line.frame_max else 0
        host = options.get("virtual_host", "/")
        self._write_method(line, 0, "connection.open", virtual_host=host)
        self._reply(line, "connection.open-ok")
        line.is_open = True

    def _opens(self, line: _Line, channels: list[int]) -> None:
        for channel in channels:
            self._write_method(line, channel, "channel.open")
            self._reply(line, "channel.open-ok", channel)

    def _close(self, line: _Line) -> None:
        self._write_method(line, 0, "connection.close", reply_text="Goodbye")
        self._reply(line, "connection.close-ok")
        line.is_gone = True
        line.peer.close()

    # --- sending ---

    def _write(self, line: _Line, data: bytes) -> None:
        line.has_read = False
        line.peer.send(data)

    def _write_method(self, line: _Line, channel: int, name: str, **values: Any) -> None:
        self._write(line, encode_method(channel, name, values))

    def _send(self, line: _Line, step: Step) -> None:
        if line.has_read:
            self._collect(line, 0.0)
            self._skip_heartbeats(line)
            if line.unread or line.peer.closed:
                raise self._mismatch("nothing more before the next line", self._next_text(line))
        self.trace(step.text)
        values = {name: item.value(self.captures) for name, item in step.arguments.items()}
        words = [word.value(self.captures) for word in step.words]
        data = self._bytes(line, step, values, words)
        self._write(line, data)
        if step.what == "connection.tune-ok":
            line.frame_max = values.get("frame_max", 0)
            line.assembler.payload_max = line.frame_max - 8 if line.frame_max else 0

    def _bytes(self, line: _Line, step: Step, values: dict[str, Any], words: list[Any]) -> bytes:
        channel = step.channel or 0
        match step.what:
            case "raw":
                return bytes(words[0])
            case "protocol":
                return PROTOCOL_HEADER
            case "heartbeat":
                return frame(HEARTBEAT, channel, b"")
            case "frame":
                kind, payload = words
                return frame(kind, channel, payload, **values)
            case "header":
                return encode_header(channel, values.pop("body_size", 0), values)
            case "body":
                return frame(BODY, channel, _octets(words[0]))
            case "basic.publish":
                body = _octets(values.pop("body", b""))
                size_max = values.pop("split", (line.frame_max or 131072) - 8)
                properties = {name: values.pop(name) for name in PROPERTIES if name in values}
                return (
                    encode_method(channel, step.what, values)
                    + encode_header(channel, len(body), properties)
                    + encode_body(channel, body, size_max)
                )
        return encode_method(channel, step.what.removeprefix("method "), values)

    # --- receiving ---

    def _collect(self, line: _Line, patience_s: float) -> None:
        """Moves what has arrived to `unread`; waits until something is there."""
        data = line.peer.receive(patience_s)
        while data:
            try:
                line.unread.extend(line.assembler.feed(data))
            except ValueError as error:
                raise self._mismatch("well formed frames", str(error)) from error
            data = line.peer.receive(0.0 if line.unread else patience_s)

    def _skip_heartbeats(self, line: _Line) -> None:
        line.unread = [frame for frame in line.unread if frame.kind != "heartbeat"]

    def _next(self, line: _Line, *, heartbeats: bool = False) -> Received | None:
        """The next frame; None when none came in time or the broker closed.

        Heartbeats come when they like, so they are left out unless asked for.
        """
        self._collect(line, 0.0)
        while True:
            if not heartbeats:
                self._skip_heartbeats(line)
            if line.unread or line.peer.closed:
                break
            self._collect(line, self.stage.reply_s)
            if not line.unread:
                break
        if not line.unread:
            return None
        received = line.unread.pop(0)
        self.trace(f"{line.name}< {received}")
        if received.kind == "connection.close":
            line.is_closing = True
        elif received.kind == "connection.open-ok":
            line.is_open = True
        elif received.kind == "queue.declare-ok":
            self.outcome.queues.add(received.fields["queue"])
        return received

    def _next_text(self, line: _Line) -> str:
        if line.unread:
            return f"{line.name}< {line.unread[0]}"
        return f"{line.name}< closed" if line.peer.closed else "nothing"

    def _reply(self, line: _Line, name: str, channel: int = 0) -> Received:
        received = self._next(line)
        if received is None or (received.kind, received.channel) != (name, channel):
            shown = self._next_text(line) if received is None else f"{line.name}< {received}"
            raise self._mismatch(f"{line.name}< {channel} {name}", shown)
        return received

    def _expect_quiet(self, line: _Line) -> None:
        self._collect(line, self.stage.quiet_s)
        if line.unread or line.peer.closed:
            raise self._mismatch(f"{line.name}< nothing", self._next_text(line))

    def _expect_closed(self, line: _Line) -> None:
        received = self._next(line)
        if received is not None or not line.peer.closed:
            shown = f"{line.name}< {received}" if received else "nothing"
            raise self._mismatch(f"{line.name}< closed", shown)
        line.is_gone = True

    def _expect(self, line: _Line, step: Step) -> bool:
        """Plays an expectation; False when a known difference ends the conversation."""
        line.has_read = True
        if step.what == "?":
            self._fill(line, step)
            return True
        if step.what == "confirms":
            self._expect_confirms(line, step)
            return True
        open_steps = [step, *step.also]
        while open_steps:
            self.number = open_steps[0].number
            found = self._take(line, open_steps)
            open_steps.remove(found[0])
            if found[1] is None:
                continue
            self.outcome.known.append(found[1])
            if found[1].what != found[0].what:
                return False
        return True

    def _take(self, line: _Line, open_steps: list[Step]) -> tuple[Step, Step | None]:
        """The step that the next thing on the line fulfils, and the difference if it was one."""
        alternatives: list[tuple[Step, Step | None]] = [(step, None) for step in open_steps]
        if self.stage.is_judge:
            alternatives += [(step, other) for step in open_steps for other in step.differences]
        wanted = {(other or step).what for step, other in alternatives}
        if wanted == {"nothing"}:
            self._expect_quiet(line)
            return alternatives[0]
        received = self._next(line, heartbeats="heartbeat" in wanted)
        fitting = (pair for pair in alternatives if self._fits(line, pair[1] or pair[0], received))
        if found := next(fitting, None):
            return found
        shown = self._next_text(line) if received is None else f"{line.name}< {received}"
        expected = "\n        or ".join((other or step).text for step, other in alternatives)
        raise self._mismatch(expected, shown)

    def _fits(self, line: _Line, step: Step, received: Received | None) -> bool:
        if received is None:
            if step.what == "closed" and line.peer.closed:
                line.is_gone = True
                return True
            return step.what == "nothing" and not line.peer.closed
        if step.what == "raw":
            return bool(received.raw == step.words[0].value(self.captures))
        if (step.what, step.channel or 0) != (received.kind, received.channel):
            return False
        captures = dict(self.captures)
        for name, expression in step.arguments.items():
            try:
                found = _part(received, name)
            except KeyError:
                return False
            if not matches(expression.value(captures), found, captures):
                return False
        self.captures.update(captures)
        return True

    def _expect_confirms(self, line: _Line, step: Step) -> None:
        """Acks for every publish from `first` to `last`, in any grouping, and nothing else."""
        first, last = (step.arguments[name].value(self.captures) for name in ("first", "last"))
        missing = set(range(first, last + 1))
        while missing:
            received = self._next(line)
            shown = f"{line.name}< {received}" if received else self._next_text(line)
            if received is None or (received.kind, received.channel) != ("basic.ack", step.channel):
                raise self._mismatch(f"confirms of {sorted(missing)}", shown)
            tag = received.fields["delivery_tag"]
            confirmed = {tag}
            if received.fields["multiple"]:
                confirmed |= {lower for lower in missing if lower < tag}
            if not confirmed <= missing:
                raise self._mismatch(f"confirms of {sorted(missing)}", shown)
            missing -= confirmed

    def _fill(self, line: _Line, step: Step) -> None:
        """Writes down everything that the broker says until it falls silent."""
        self._collect(line, self.stage.reply_s / 4)
        self._collect(line, self.stage.quiet_s)
        shown = []
        while line.unread:
            shown.append(f"{line.name}< {self._next(line)}")
        if line.peer.closed:
            line.is_gone = True
            shown.append(f"{line.name}< closed")
        self.outcome.filled[step.number] = shown or [f"{line.name}< nothing"]

    def _mismatch(self, expected: str, received: str) -> MismatchError:
        return MismatchError(self.conversation, self.number, expected, received)


def _octets(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


def _part(received: Received, name: str) -> Any:
    """The field or property of this name; KeyError where the frame has none."""
    if name in received.fields:
        return received.fields[name]
    if received.kind in CONTENT_METHODS and received.properties is not None:
        if name == "properties":
            return received.properties
        if name == "body_frames":
            return received.body_frames
        if name == "body":
            try:
                return received.body.decode()
            except UnicodeDecodeError:
                return received.body
        return received.properties[name]
    raise KeyError(name)


__all__ = ["MismatchError", "Outcome", "Peer", "Stage", "play"]
