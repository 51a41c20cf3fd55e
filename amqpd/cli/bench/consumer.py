"""A consuming connection: counts what comes, acks it, and takes the time of what is stamped."""

from collections.abc import Callable
from select import POLLIN, POLLOUT
from time import monotonic_ns

from amqpd.cli.bench.board import Field, Phase
from amqpd.cli.bench.deliveries import READ_BYTES, DeliveryReader
from amqpd.cli.bench.frames import CHANNEL, AckRun, multiple_ack
from amqpd.cli.bench.link import Link, refusal
from amqpd.cli.bench.measure import Histogram
from amqpd.cli.bench.plan import ConsumerPart, Options
from amqpd.wire import methods
from amqpd.wire.methods import Basic

READS_PER_TURN = 16


class Consumer:
    """One consumer connection, driven by a loop that says when its socket is ready.

    Attributes:
        mask: what the loop must wait for.
        latency: from the write of a stamped message to the read that completed it.
    """

    begins_at = Phase.CONSUME

    def __init__(
        self,
        link: Link,
        options: Options,
        part: ConsumerPart,
        row: memoryview,
        phase: Callable[[], int],
    ) -> None:
        self.link = link
        self.mask = POLLIN
        self.latency = Histogram()
        self._row = row
        self._phase = phase
        self._queues = part.queues
        self._auto_ack = options.auto_ack
        self._arguments = options.consumer_arguments
        self._every = options.multi_ack_every
        self._timed = options.producers > 0
        self._reader = DeliveryReader(self._method)
        self._acks = AckRun()
        self._acked = 0
        self._unsent = b""
        self._accepted = 0
        if options.prefetch:
            link.call(CHANNEL, Basic.Qos(prefetch_count=options.prefetch), Basic.QosOk)
        self._early = link.start()

    def begin(self, now_ns: int) -> None:
        """The start signal: asks for deliveries."""
        width = len(str(len(self._queues)))
        for number, queue in enumerate(self._queues, 1):
            tag = f"bench-{number:0{width}}"
            method = Basic.Consume(
                queue=queue, consumer_tag=tag, no_ack=self._auto_ack, arguments=self._arguments
            )
            self._send(methods.encode_method(CHANNEL, method))
        if self._early:
            self._reader.room()[: len(self._early)] = self._early
            self._took(len(self._early), now_ns)

    def tick(self, now_ns: int) -> int | None:
        """Time alone makes nothing due."""
        return None

    def readable(self) -> None:
        """Reads while reads come back full."""
        for _ in range(READS_PER_TURN):
            try:
                count = self.link.sock.recv_into(self._reader.room())
            except BlockingIOError:
                return
            except OSError as error:
                raise self.link.lost(error) from error
            if not count:
                raise self.link.lost(None)
            self._took(count, monotonic_ns())
            if count < READ_BYTES:
                return

    def writable(self) -> None:
        self._send(b"")

    def finish(self) -> None:
        """Acks what `--multi-ack-every` has left, and ends the connection."""
        last = self._reader.last_tag
        if not self._auto_ack and self._acked < last:
            self._unsent += multiple_ack(last)
        self.link.close(self._unsent)

    def _took(self, count: int, now_ns: int) -> None:
        reader = self._reader
        if not reader.received(count):
            return
        self._row[Field.DELIVERED] = reader.last_tag
        self._row[Field.LAST_NS] = now_ns
        if not self._auto_ack:
            self._ack(reader.last_tag)
        if reader.stamps:
            if self._timed and self._phase() == Phase.MEASURE:
                for stamp_ns in reader.stamps:
                    self.latency.record(now_ns - stamp_ns)
            reader.stamps.clear()

    def _ack(self, last: int) -> None:
        if self._every == 1:
            self._send(self._acks.frames(self._acked + 1, last))
            self._acked = last
            return
        tags = range(self._acked + self._every, last + 1, self._every)
        if tags:
            self._send(b"".join(map(multiple_ack, tags)))
            self._acked = tags[-1]

    def _send(self, data: bytes) -> None:
        """Sends what the socket takes; the rest waits, so that reading never waits for writing."""
        if self._unsent:
            data = self._unsent + data
        try:
            sent = self.link.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self.link.lost(error) from error
        self._unsent = data[sent:]
        self.mask = POLLIN | POLLOUT if self._unsent else POLLIN

    def _method(self, payload: bytes) -> None:
        method = methods.decode_method(payload)
        error = refusal(method)
        if error:
            raise error
        if isinstance(method, Basic.ConsumeOk):
            self._accepted += 1
            self._row[Field.CONSUMING] = self._accepted == len(self._queues)
