"""Deliveries that a client leaves unsettled for too long.

Nothing is noted for a delivery. While a channel has unsettled ones it is looked at from time to
time, and remembered which delivery tag was the last one then: so it is known within LOOKS_PER_TIME
of the time allowed (or LOOK_S_MIN) how old the others are, and a delivery is timed out that much
too late at most.

What happens then: the channel is closed, or the consumer cancelled, as in RabbitMQ; or, where
`x-ack-timeout` says so, which is amqpd's own (docs/LIMITS.md), the delivery just goes back. There a
client can say that it still works on deliveries (`extend`): their time begins anew.

Source: RabbitMQ, "Delivery Acknowledgement Timeout". RabbitMQ looks once a minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amqpd import errors
from amqpd.broker.deadlines import Deadline
from amqpd.wire.methods import Basic

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer
    from amqpd.broker.queues.queue import Queue
    from amqpd.session.channel import Channel

# A publish to the default exchange with this routing key, on the channel of the deliveries, has
# their time begin anew: of those in the header EXTENDED, or of all. Every client can say it.
EXTEND: Final = "amq.ack-timeout.extend"
EXTENDED: Final = "x-delivery-tags"

LOOKS_PER_TIME: Final = 10
LOOK_S_MIN: Final = 0.01
LOOK_S_MAX: Final = 60.0
ROUNDING_S: Final = 1e-6  # a look that is early by so much would leave it to the next one
LOOKS_MAX: Final = 1024  # remembered; of more, every second one is forgotten


class AckTimeout:
    """Looks after the deliveries of one channel.

    Attributes:
        shortest_s: the shortest time that one of its consumers with deliveries has; those with a
            shorter one have to be watched. Infinite while none is.
    """

    __slots__ = ("_alarm", "_channel", "_extended", "_looks", "shortest_s")

    def __init__(self, channel: Channel) -> None:
        self.shortest_s = inf
        self._channel = channel
        self._looks: deque[tuple[float, int]] = deque()  # when, and the last tag then
        self._extended: dict[int, float] = {}  # tags whose time has begun anew, and when
        self._alarm: Deadline | None = None

    def extend(self, tags: Iterable[int] | None) -> None:
        """The time of these deliveries begins anew; of all if it is None."""
        now, by_tag = self._channel.session.broker.now, self._channel.unacked.by_tag
        for tag in by_tag if tags is None else tags:
            if tag in by_tag:
                self._extended[tag] = now

    def watch(self, consumer: Consumer) -> None:
        """The consumer has been given messages, and a time for them."""
        if consumer.ack_timeout_s < self.shortest_s:
            self.stop()
            self.shortest_s = consumer.ack_timeout_s
            self._wait()

    def _wait(self) -> None:
        broker = self._channel.session.broker
        wait_s = min(max(self.shortest_s / LOOKS_PER_TIME, LOOK_S_MIN), LOOK_S_MAX)
        self._alarm = broker.deadlines.at(broker.now + wait_s, self._look)

    def stop(self) -> None:
        """Looks no more, until the next delivery."""
        self.shortest_s = inf
        if self._alarm is not None:
            self._channel.session.broker.deadlines.cancel(self._alarm)
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        channel = self._channel
        now, by_tag = channel.session.broker.now, channel.unacked.by_tag
        self._extended = {tag: when for tag, when in self._extended.items() if tag in by_tag}
        if not by_tag:
            self._looks.clear()
            self.shortest_s = inf
            return
        oldest = next(iter(by_tag))
        while self._looks and self._looks[0][1] < oldest:
            self._looks.popleft()
        late = self._late(now)
        self._looks.append((now, channel.last_tag))
        if len(self._looks) > LOOKS_MAX:
            self._looks = deque(list(self._looks)[::2])
        self._wait()
        for consumer, tags in late.items():
            self._time_out(consumer, tags)

    def _late(self, now: float) -> dict[Consumer, list[int]]:
        """Consumers that have left deliveries unsettled for too long, and the tags of these."""
        late: dict[Consumer, list[int]] = {}
        looks = iter(self._looks)
        when, last = next(looks, (now, 0))
        for tag, (consumer, _, _) in self._channel.unacked.by_tag.items():
            while tag > last:
                # It was given out by the time of the first look that knew of it.
                look = next(looks, None)
                if look is None:
                    return late
                when, last = look
            if now - when < self.shortest_s - ROUNDING_S:
                return late
            if now - self._extended.get(tag, when) >= consumer.ack_timeout_s - ROUNDING_S:
                late.setdefault(consumer, []).append(tag)
        return late

    def _time_out(self, consumer: Consumer, tags: list[int]) -> None:
        channel = self._channel
        if channel.closing or channel.session.closing:
            return
        if consumer.gives_back:
            self._give_back(consumer, tags)
            return
        profile = channel.session.broker.config.consumer
        if profile.ack_timeout_cancels:
            if channel.session.client_can("consumer_cancel_notify"):
                self._cancel(consumer)
                return
            shown = -1
        else:
            shown = round(consumer.ack_timeout_s * 1000)
        channel.session.refuse_channel(
            channel,
            errors.precondition_failed(
                f"delivery acknowledgement on channel {channel.number} timed out. Timeout value "
                f"used: {shown} ms. This timeout value can be configured, see consumers doc guide "
                "to learn more"
            ),
            (0, 0),
        )

    def _give_back(self, consumer: Consumer, tags: list[int]) -> None:
        """Deliveries go back, or wait for a retry; their consumer stays."""
        channel = self._channel
        deliveries = channel.unacked.time_out(tags)
        if consumer.queue.terms.retry is not None:
            channel.reject(deliveries)
        else:
            channel.requeue(deliveries, failed=True)

    def _cancel(self, consumer: Consumer) -> None:
        """The consumer goes, and what it has comes back; its channel goes on."""
        channel = self._channel
        if channel.consumers.get(consumer.tag) is consumer:
            channel.say(Basic.Cancel(consumer_tag=consumer.tag, nowait=True))
            channel.drop_consumer(consumer)
        by_tag = channel.unacked.by_tag
        tags = [tag for tag, delivery in by_tag.items() if delivery[0] is consumer]
        channel.requeue([by_tag.pop(tag) for tag in tags])


class Patience(NamedTuple):
    """How long deliveries of a consumer may be unsettled, and whether they just go back then."""

    seconds: float = inf
    gives_back: bool = False


def patience(channel: Channel, queue: Queue, arguments: Mapping[str, Any]) -> Patience:
    """How long deliveries of a consumer may be unsettled.

    Args:
        arguments: of the consumer, which were checked.
    """
    own_ms, gives_back_ms = arguments.get("x-consumer-timeout"), arguments.get("x-ack-timeout")
    if gives_back_ms is None and queue.terms.ack_timeout_s is not None:
        return Patience(queue.terms.ack_timeout_s, gives_back=True)
    if gives_back_ms is not None:
        return Patience(gives_back_ms / 1000, gives_back=True)
    profile = channel.session.broker.config.consumer
    if profile.ack_timeout_cancels and queue.type != "quorum":
        return Patience()
    if own_ms is not None:
        return Patience(own_ms / 1000 or inf)
    if queue.terms.consumer_timeout_s is not None:
        return Patience(queue.terms.consumer_timeout_s or inf)
    return Patience(profile.ack_timeout_s or inf)
