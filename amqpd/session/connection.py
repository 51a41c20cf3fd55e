"""A session: one client's conversation, from the protocol header to the last close-ok.

Bytes come in through `received`, and leave through `take_output`; in between are a state and a
table of channels. What a frame means is `dispatch.py`'s business.

Source: AMQP 0-9-1 section 2.2.4 (connection life cycle); RabbitMQ where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from amqpd import errors
from amqpd.broker.deadlines import Deadline
from amqpd.broker.permissions import Actor
from amqpd.log import EventLog
from amqpd.session import dispatch, events, handshake
from amqpd.session.channel import Channel, Deliver
from amqpd.session.flow import Flow
from amqpd.session.heartbeat import Heartbeat
from amqpd.session.input import Input
from amqpd.session.output import Output, Piece
from amqpd.session.route import Routes
from amqpd.wire import frames
from amqpd.wire import methods as wire

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.routing import Target
    from amqpd.broker.users import User
    from amqpd.broker.vhost import Vhost

log = EventLog("session")

# RabbitMQ's: how long a client that made a hard error is left with its connection.close, and how
# long a client may take to answer a connection.close.
SILENT_CLOSE_DELAY_S = 3.0
CLOSE_OK_TIMEOUT_S = 30.0

# How much to read at once: from most clients, from one in the middle of a large content, and from a
# publisher whose queue has more ready than its consumers have taken, in small messages or in large
# ones. The last two leave consumers the time to catch up, as RabbitMQ's flow control does.
READ_BYTES = 524_288
READ_BYTES_CONTENT = 1_048_576
READ_BYTES_CROWDED = 16_384
READ_BYTES_HEAVY = 131_072
FEEDS_MAX = 16

# From a client whose frames go the slow way, only as much as may hold so many of them, some 10 ms:
# the others wait meanwhile. But no less than READ_BYTES_MIN.
SLOW_FRAMES_MAX = 1_000
READ_BYTES_MIN = 16_384

FLOOD_FACTOR = 16  # of limits.output_bytes_high

Absorb = Callable[["Session", bytes, int], tuple[int, bool]]


class Peer(NamedTuple):
    """Who is at the other end.

    Attributes:
        name: "client ip:port -> broker ip:port", as logs and management name the connection.
        is_loopback: the client is on this machine.
    """

    name: str
    is_loopback: bool


class HotPath(NamedTuple):
    """The two ways through which messages go; `session/hotpath.py` or the plain ones."""

    absorb: Absorb | None
    deliver: Deliver


class Session:
    """One client connection.

    Attributes:
        state: where the conversation is; RabbitMQ's names, which its reply texts print.
        connected_ms: when it connected, in milliseconds since 1970.
        closing: close the socket once the output is written.
        frame_bytes_max: as negotiated; 0 for no limit.
        plain_headers: headers that the hot path has found to need no thought, with what it has to
            know of them.
        feeds: queues of the last publish, FEEDS_MAX at most.
        builds: the client has changed the topology, or tried to.
        in_content: the last frame belonged to a content that is not complete.
        flow: whether the client is read.
        confirming: channels in confirm mode with publishes in this batch.
        unconfirmed: channels with publishes that wait for a commit.
        speakers: the core's list of sessions with output.
        promisers: the core's list of sessions that wait for a commit.
        clogged: a consumer was denied messages because the client does not read fast enough.
    """

    def __init__(
        self,
        broker: Broker,
        peer: Peer,
        hot_path: HotPath,
        speakers: dict[Session, None],
        promisers: dict[Session, None],
    ) -> None:
        self.broker = broker
        self.peer = peer
        self.hot_path = hot_path
        self.speakers = speakers
        self.promisers = promisers
        self.connected_ms = broker.wall_ms()
        self.state = "header"
        self.closing = False
        self.clogged = False
        self.output = Output()
        self.bytes_read = 0
        self.bytes_written = 0
        self.frame_bytes_max = handshake.FRAME_BYTES_BEFORE_TUNE
        self.channels_max = 1
        self.mechanism = ""
        self.client_properties: dict[str, Any] = {}
        self.channels: dict[int, Channel] = {}
        self.exclusive_queues: dict[Queue, None] = {}
        self.routes = Routes(broker.config.limits.envelopes_max)
        self.message_bytes_max = broker.config.message.size_bytes_max
        self.plain_headers: dict[bytes, int] = {}
        self.feeds: tuple[Target, ...] = ()
        self.builds = False
        self.in_content = False
        self.confirming: dict[Channel, None] = {}
        self.unconfirmed: dict[Channel, None] = {}
        self.user: User
        self.vhost: Vhost
        self.actor: Actor
        self.heartbeat_s = 0
        self._heartbeat: Heartbeat | None = None
        self.flow = Flow(self)
        self._input = Input()
        self._deaf = False
        self._last_read_bytes = 0
        self._slow_frames = 0  # of the last read
        self._deadline: Deadline | None = broker.deadlines.at(
            broker.now + broker.config.connection.handshake_timeout_s,
            lambda: self.give_up("the handshake took too long"),
        )

    @property
    def name(self) -> str:
        """What it is called where people look, as in RabbitMQ."""
        return self.peer.name

    # --- input ----------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Works off what the client has sent."""
        self.bytes_read += len(data)
        self._last_read_bytes, self._slow_frames = len(data), 0
        if self.closing or self._deaf:
            return
        if self.flow.suspended:
            self._input.append(data)
        elif self._input.size:
            self._work(self._input.gather(data, self.state != "header"))
        else:
            self._work(((data, 0),))

    def work_on(self) -> None:
        """Goes on with what was left when the session was suspended."""
        if not self.closing and not self._deaf:
            self._work(self._input.again())

    def _work(self, buffers: Iterable[tuple[bytes, int]]) -> None:
        try:
            for buffer, start in buffers:
                offset = self._work_off(buffer, start)
                if offset < len(buffer):
                    self._input.append(buffer[offset:])
            self.end_batch()
        except errors.ConnectionException as error:
            self._deaf = True  # where the next frame would start is not known any more
            self._input.clear()
            self.refuse(error, 0)
        except Exception as bug:
            self.broken(bug, 0, "")

    def _work_off(self, data: bytes, offset: int) -> int:
        """Takes whole frames; the offset of the first byte that was not taken."""
        if self.state == "header":
            offset = handshake.protocol_header(self, data)
            if self.state == "header":
                return offset
        absorb = self.hot_path.absorb
        while not self.closing and not self._deaf and not self.flow.suspended:
            if absorb is not None and self.state == "running":
                offset, incomplete = absorb(self, data, offset)
                if incomplete or offset == len(data):
                    break
            frame = frames.cut(data, offset, self.frame_bytes_max)
            if frame is None:
                break
            dispatch.take(self, frame)
            if self.flow.suspended:
                break  # the frame comes again
            offset = frame.end
            self._slow_frames += 1
        return offset

    def end_batch(self) -> None:
        """Works off what publishes and acks have left for the end: queues first, then confirms."""
        self.broker.settle_touched()
        if not self.confirming:
            return
        ticket = self.broker.journal.kept_ticket
        channels, self.confirming = self.confirming, {}
        for channel in channels:
            if channel.confirms is not None:
                channel.confirms.close_batch(ticket)
                self.unconfirmed[channel] = None
        self.promisers[self] = None
        self.committed(self.broker.journal.committed)

    def committed(self, ticket: int) -> None:
        """Everything up to the ticket is durable: keeps the promises that waited for it."""
        self.output.committed(ticket)
        for channel in list(self.unconfirmed):
            confirms = channel.confirms
            if confirms is not None:
                before = confirms.acked
                if frame := confirms.committed(channel.number, ticket):
                    self.say(frame)
                self.broker.counters.confirmed += confirms.acked - before
            if confirms is None or not confirms.outstanding:
                del self.unconfirmed[channel]
        if self.output.size:
            self.speakers[self] = None
        if not self.unconfirmed and not self.output.promises:
            self.promisers.pop(self, None)

    # --- output ---------------------------------------------------------------------------------

    def appetite(self) -> int:
        """How many bytes to read from the client next, at most."""
        if any(queue.crowded for queue in self.feeds):
            return READ_BYTES_CROWDED
        if any(queue.heavy for queue in self.feeds):
            return READ_BYTES_HEAVY
        wanted = READ_BYTES_CONTENT if self.in_content else READ_BYTES
        if self._slow_frames:
            slow = SLOW_FRAMES_MAX * self._last_read_bytes // self._slow_frames
            return min(wanted, max(slow, READ_BYTES_MIN))
        return wanted

    def posted(self, queues: tuple[Target, ...]) -> None:
        """The client has published to these queues."""
        self.feeds = queues if len(queues) <= FEEDS_MAX else queues[:FEEDS_MAX]
        if self.broker.alarms:
            self.flow.posted()

    def say(self, data: Piece) -> None:
        """Sends whole frames."""
        self.output.say(data)
        self.speakers[self] = None

    def say_at_once(self, frame: bytes) -> None:
        """Sends a frame of channel 0 that does not wait for what is held back."""
        self.output.say_at_once(frame)
        self.speakers[self] = None

    def promise(self, channel: int, method: wire.Method) -> None:
        """Sends a method once everything that was done so far is durable."""
        journal = self.broker.journal
        ticket = journal.last_ticket()
        if ticket <= journal.committed and not self.output.promises:
            self.say(wire.encode_method(channel, method))
        else:
            journal.wait_for(ticket)
            self.output.promise(ticket, channel, method)
            self.promisers[self] = None

    def hold(self, ticket: int) -> None:
        """Says nothing more until the ticket is committed."""
        self.broker.journal.wait_for(ticket)
        self.output.hold(ticket)
        self.promisers[self] = None

    def take_output(self) -> bytes:
        """All bytes that may be sent now; each is handed out once."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """`take_output` in pieces for a vectored write: one, or many that are large."""
        pieces = self.output.take()
        self.bytes_written += sum(map(len, pieces))
        return pieces

    @property
    def bytes_said(self) -> int:
        """All bytes so far, written or not, without what is held back."""
        return self.bytes_written + self.output.sayable

    def is_clogged(self) -> bool:
        """Whether the client has to read before it is given more messages."""
        if self.output.size < self.broker.config.limits.output_bytes_high:
            return False
        self.clogged = True
        return True

    def is_flooded(self) -> bool:
        """Whether the client lets what it is told pile up beyond what it can be left with.

        Deliveries stop long before. Then nothing more is read from it, which bounds the replies to
        it, and replies of others to its requests are dropped.
        """
        return self.output.size > self.broker.config.limits.output_bytes_high * FLOOD_FACTOR

    def drained(self) -> None:
        """The client has read: consumers that were denied messages may have room again."""
        self.clogged = False
        for channel in self.channels.values():
            channel.rejoin_denied()
        self.broker.settle_touched()

    # --- life -----------------------------------------------------------------------------------

    def start_running(self) -> None:
        """The handshake is over."""
        self.cancel_deadline()
        self.state = "running"
        self.actor = Actor(self.user, self.vhost, self)
        if self.heartbeat_s:
            self._heartbeat = Heartbeat(self, self.heartbeat_s)

    def client_can(self, capability: str) -> bool:
        """Whether the client said that it understands an extension."""
        capabilities = self.client_properties.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get(capability) is True

    def refuse_channel(
        self, channel: Channel, error: errors.ChannelException, method: tuple[int, int]
    ) -> None:
        """Closes the channel with an error."""
        log.error(
            "channel error",
            connection=self.peer.name,
            channel=channel.number,
            method=f"{method[0]}/{method[1]}",
            reply=str(error),
        )
        self.end_batch()
        channel.shut()
        channel.closing = True
        channel.say(
            wire.Channel.Close(
                reply_code=error.code,
                reply_text=error.text,
                class_id=method[0],
                method_id=method[1],
            )
        )
        self.broker.settle_touched()

    def forget_channel(self, channel: Channel) -> None:
        """The number is free again."""
        del self.channels[channel.number]
        self.broker.counters.channels_closed += 1
        events.channel_closed(channel)
        self.user.channels -= 1

    def refuse(self, error: errors.AmqpError, channel: int) -> None:
        """Closes the connection with an error, or in silence while the client is not trusted."""
        log.error(
            "connection error",
            connection=self.peer.name,
            channel=channel,
            state=self.state,
            reply=str(error),
        )
        if self.state in handshake.UNTRUSTED:
            self.silence()
        else:
            self.close(error)

    def broken(self, bug: Exception, channel: int, method: str) -> None:
        """The broker has a bug: this connection pays for it, the others go on."""
        log.exception(
            "internal error", bug, connection=self.peer.name, channel=channel, method=method
        )
        self._input.clear()
        self.confirming.clear()  # what was published may not have come to its queues
        self.refuse(errors.internal_error("see the broker's log"), channel)

    def close(self, error: errors.AmqpError) -> None:
        """Says connection.close; the socket is closed at the close-ok or after a while."""
        if self.state in ("closing", "closed"):
            return
        was_running = self.state == "running"
        self.end_batch()
        self.shut()
        class_id, method_id = error.method or dispatch.NO_METHOD
        self.say(
            wire.encode_method(
                0,
                wire.Connection.Close(
                    reply_code=error.code,
                    reply_text=error.text,
                    class_id=class_id,
                    method_id=method_id,
                ),
            )
        )
        self.state = "closing"
        patience = CLOSE_OK_TIMEOUT_S if was_running and not self._deaf else SILENT_CLOSE_DELAY_S
        self._deadline = self.broker.deadlines.at(self.broker.now + patience, self.end)

    def linger(self) -> None:
        """The client has closed: its socket is its own to close, for a while."""
        self.state = "closed"
        self._deadline = self.broker.deadlines.at(self.broker.now + CLOSE_OK_TIMEOUT_S, self.end)

    def give_up(self, why: str) -> None:
        """Ends the connection without a word: the client does not answer."""
        log.warning("closing connection", connection=self.peer.name, reason=why)
        self.end()

    def end(self) -> None:
        """The conversation is over; the socket is closed once the output is written."""
        self.shut()
        self.closing = True
        self.state = "closed"
        self.speakers[self] = None

    def shut(self) -> None:
        """Takes the session out of the broker: channels first, then its exclusive queues."""
        self.cancel_deadline()
        self.flow.end()
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        for channel in list(self.channels.values()):
            if not channel.closing:
                channel.shut()
            self.forget_channel(channel)
        self.confirming.clear()
        self.unconfirmed.clear()
        self.promisers.pop(self, None)
        self.output.drop_promises()
        if self.state == "running":
            handshake.leave(self)
        self.broker.settle_touched()

    def forget(self) -> None:
        """The socket is closed: lets go of all buffers, and of what leads back to the session.

        Without that they would wait for the garbage collector, which looks rarely.
        """
        self.output = Output()
        self._input.clear()
        self.routes.forget()
        self.plain_headers.clear()
        self.feeds = ()
        if self.state == "closed" and hasattr(self, "actor"):
            del self.actor

    def cancel_deadline(self) -> None:
        if self._deadline is not None:
            self.broker.deadlines.cancel(self._deadline)
            self._deadline = None

    def silence(self) -> None:
        """Hears no more and hangs up after a while (a client that failed to log in)."""
        self._deaf = True
        self.cancel_deadline()
        self._deadline = self.broker.deadlines.at(self.broker.now + SILENT_CLOSE_DELAY_S, self.end)

    def forget_routes(self) -> None:
        """What is remembered of publishes may not hold any more."""
        self.routes.forget()
