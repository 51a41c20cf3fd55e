"""A publishing connection: prepared bytes, as fast as socket, window and rate allow."""

from collections.abc import Callable
from select import POLLIN, POLLOUT
from struct import pack_into
from time import monotonic_ns

from amqpd.cli.bench.board import Field, Phase
from amqpd.cli.bench.confirms import Confirms
from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import CHANNEL, STAMPED, PublishRun
from amqpd.cli.bench.link import READ_BYTES, Link, refusal
from amqpd.cli.bench.measure import Histogram
from amqpd.cli.bench.plan import Options, PublisherPart
from amqpd.errors import AmqpError
from amqpd.wire import frames, methods
from amqpd.wire.constants import FRAME_METHOD
from amqpd.wire.methods import Basic, Confirm, Connection

SECOND_NS = 1_000_000_000
NOTHING = memoryview(b"")


class Publisher:
    """One publisher, driven by a loop that says when its socket is ready and what time it is.

    Attributes:
        mask: what the loop must wait for.
        latency: from a write to the confirm of its last message.
    """

    begins_at = Phase.WARM_UP

    def __init__(
        self,
        link: Link,
        exchange: str,
        options: Options,
        part: PublisherPart,
        row: memoryview,
        phase: Callable[[], int],
    ) -> None:
        self.link = link
        self.mask = POLLIN
        self.latency = Histogram()
        self._row = row
        self._phase = phase
        self._window = options.confirm
        self._count = part.count if options.count else 0
        self._rate = part.rate
        # Several paced publishers take turns within the interval.
        self._offset = part.row / options.producers
        self._run = PublishRun(
            exchange,
            part.routing_keys,
            options.size,
            link.frame_bytes_max,
            persistent=options.persistent,
            mandatory=options.mandatory,
        )
        self._view = memoryview(self._run.buffer)
        self._next = 0  # the message in the run that goes out next
        self._pending: memoryview = NOTHING
        self._pending_count = 0
        self._stamp = -1
        self._begun_ns: int | None = None
        self._confirms = Confirms()
        if options.confirm:
            link.call(CHANNEL, Confirm.Select(), Confirm.SelectOk)
        self._input = link.start()

    def begin(self, now_ns: int) -> None:
        """The start signal."""
        self._begun_ns = now_ns
        if self._rate:
            self._begun_ns += int(self._offset * SECOND_NS / self._rate)
        else:
            self._fill()

    def tick(self, now_ns: int) -> int | None:
        """Sends what is due at the asked rate, one write each.

        Returns:
            When the next message is due, in nanoseconds; None if time alone makes none due.
        """
        if not self._rate or self._begun_ns is None:
            return None
        begun_ns, rate = self._begun_ns, self._rate
        due = (now_ns - begun_ns) * rate // SECOND_NS + 1
        while self._confirms.published < due:
            if self._pending or not self._credit():
                return None
            self._load(1)
            self._write()
        return begun_ns + int(self._confirms.published * SECOND_NS / rate)

    def writable(self) -> None:
        if self._rate:
            self._write()
        else:
            self._fill()

    def readable(self) -> None:
        """Takes confirms, and whatever else the broker says."""
        try:
            data = self.link.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise self.link.lost(error) from error
        if not data:
            raise self.link.lost(None)
        self._take(self._input + data, monotonic_ns())
        if self._begun_ns is not None and not self._rate:
            self._fill()
        self._settled()

    def finish(self) -> None:
        """Ends the connection after the frame that is under way."""
        self.link.close(self._pending)

    def _credit(self) -> int:
        """How many messages may go out at present."""
        credit = self._run.messages
        if self._window:
            credit = min(credit, self._window - self._confirms.outstanding)
        if self._count:
            credit = min(credit, self._count - self._confirms.published)
        return credit

    def _fill(self) -> None:
        """Writes until the socket or the window is full; without a window, once."""
        while True:
            if not self._pending:
                count = min(self._credit(), self._run.messages - self._next)
                if count <= 0:
                    return
                self._load(count)
            self._write()
            if self._pending:
                return
            if not self._window:
                self.mask = POLLIN | POLLOUT if self._credit() else POLLIN
                return

    def _load(self, count: int) -> None:
        """Makes the next `count` messages of the run what is to be written."""
        run, first = self._run, self._next
        now_ns = monotonic_ns()
        self._stamp = run.stamps[first]
        if self._stamp >= 0:
            pack_into(">Q", run.buffer, self._stamp, now_ns | STAMPED)
        if self._window:
            self._confirms.sent(count, now_ns)
        else:
            self._confirms.published += count
        self._pending = self._view[run.offsets[first] : run.offsets[first + count]]
        self._pending_count = count
        self._next = (first + count) % run.messages

    def _write(self) -> None:
        """One write; waits for the socket to drain if it does not take everything."""
        try:
            sent = self.link.sock.send(self._pending)
        except BlockingIOError:
            self.mask = POLLIN | POLLOUT
            return
        except OSError as error:
            raise self._farewell() or self.link.lost(error) from error
        self._pending = self._pending[sent:]
        if self._pending:
            self.mask = POLLIN | POLLOUT
            return
        self.mask = POLLIN
        if self._stamp >= 0:
            pack_into(">Q", self._run.buffer, self._stamp, 0)
        self._row[Field.PUBLISHED] += self._pending_count
        self._row[Field.LAST_NS] = monotonic_ns()
        self._settled()

    def _farewell(self) -> BenchError | None:
        """What the broker said before it closed the socket under a write."""
        try:
            data = self.link.sock.recv(READ_BYTES)
            self._take(self._input + data, monotonic_ns())
        except OSError:
            return None
        except BenchError as error:
            return error
        return None

    def _settled(self) -> None:
        """Notes that the last of the asked messages has been sent and, if asked, confirmed."""
        if self._count and self._row[Field.PUBLISHED] == self._count:
            self._row[Field.DONE] = not self._window or not self._confirms.outstanding

    def _take(self, data: bytes, now_ns: int) -> None:
        confirms = self._confirms
        position = 0
        while True:
            start = position
            position = confirms.received(data, position, now_ns)
            if position > start:
                continue
            try:
                frame = frames.cut(data, position, 0)
            except AmqpError as error:
                raise BenchError(f"the broker sent bytes that are not AMQP: {error}") from error
            if frame is None:
                break
            position = frame.end
            if frame.type == FRAME_METHOD:
                self._method(methods.decode_method(frame.payload))
        self._input = data[position:]
        if not self._window:
            return
        self._row[Field.CONFIRMED] = confirms.confirmed
        self._row[Field.NACKED] = confirms.nacked
        self._row[Field.LAST_NS] = now_ns
        if confirms.latencies_ns:
            if self._phase() == Phase.MEASURE:
                for latency_ns in confirms.latencies_ns:
                    self.latency.record(latency_ns)
            confirms.latencies_ns.clear()

    def _method(self, method: methods.Method) -> None:
        error = refusal(method)
        if error:
            raise error
        if isinstance(method, Basic.Return):
            self._row[Field.RETURNED] += 1
        elif isinstance(method, Connection.Blocked):
            self._row[Field.BLOCKED] = 1
        elif isinstance(method, Connection.Unblocked):
            self._row[Field.BLOCKED] = 0
