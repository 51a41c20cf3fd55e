"""What a publisher in confirm mode is still waiting for, and how long it has waited."""

from collections import deque
from struct import Struct

from amqpd.cli.bench.frames import ACK_BYTES, AckRun

ACK = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"
NACK = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x78"
SETTLEMENT = Struct(">11sQBB")


class Confirms:
    """Sequence numbers published and confirmed on one channel; the first is 1.

    Attributes:
        published: the last sequence number given out.
        confirmed: how many the broker has acked.
        nacked: how many the broker has refused.
        latencies_ns: of the sampled messages confirmed since the caller last cleared the list.
    """

    def __init__(self) -> None:
        self.published = 0
        self.confirmed = 0
        self.nacked = 0
        self.latencies_ns: list[int] = []
        self._low = 0  # everything up to here is settled
        self._ahead: set[int] = set()  # settled beyond it, out of order
        self._sent_ns: dict[int, int] = {}  # of the sampled numbers that are not settled
        self._samples: deque[int] = deque()  # the sampled numbers beyond _low, in order
        self._expected = AckRun()

    @property
    def outstanding(self) -> int:
        """How many messages the broker has not settled yet."""
        return self.published - self.confirmed - self.nacked

    def sent(self, count: int, now_ns: int) -> None:
        """`count` messages go out now; the last of them is sampled."""
        self.published += count
        self._sent_ns[self.published] = now_ns
        self._samples.append(self.published)

    def received(self, data: bytes, position: int, now_ns: int) -> int:
        """Takes the acks and nacks at `position` of the input; returns where they end."""
        whole = (len(data) - position) // ACK_BYTES
        if not whole or not data.startswith((ACK, NACK), position):
            return position
        # The usual run of single acks is known before it comes: one comparison for all of it.
        last = min(self._low + whole, self.published)
        stop = position + (last - self._low) * ACK_BYTES
        if stop > position and data[position:stop] == self._expected.frames(self._low + 1, last):
            self.confirmed += self._settle(last, 1, now_ns)
            return stop
        stop = position + whole * ACK_BYTES
        for prefix, tag, multiple, _ in SETTLEMENT.iter_unpack(data[position:stop]):
            if prefix == ACK:
                self.confirmed += self._settle(tag, multiple, now_ns)
            elif prefix == NACK:
                self.nacked += self._settle(tag, multiple & 1, now_ns)
            else:
                break
            position += ACK_BYTES
        return position

    def _settle(self, tag: int, multiple: int, now_ns: int) -> int:
        """Returns how many messages this settles that were not settled before."""
        if multiple:
            count = self._settle_up_to(tag or self.published, now_ns)
        else:
            count = 1
            self._sample(tag, now_ns)
            if tag == self._low + 1:
                self._low = tag
            else:
                self._ahead.add(tag)
        while self._ahead and self._low + 1 in self._ahead:
            self._low += 1
            self._ahead.remove(self._low)
        return count

    def _settle_up_to(self, tag: int, now_ns: int) -> int:
        if tag <= self._low:
            return 0
        count = tag - self._low
        self._low = tag
        if self._ahead:
            early = {number for number in self._ahead if number <= tag}
            self._ahead -= early
            count -= len(early)
        while self._samples and self._samples[0] <= tag:
            self._sample(self._samples.popleft(), now_ns)
        return count

    def _sample(self, number: int, now_ns: int) -> None:
        sent_ns = self._sent_ns.pop(number, None)
        if sent_ns is not None:
            self.latencies_ns.append(now_ns - sent_ns)
