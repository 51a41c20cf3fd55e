"""A queue: its consumers, its unacknowledged messages, and the backlog that keeps the ready ones.

Publishes put messages into the inbox and acknowledgements go through `release`; once a read of a
client's socket is worked off, `absorb` and `dispatch` do the rest for the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, Protocol

from amqpd.broker.arguments import queue_type
from amqpd.broker.consumer import Consumer
from amqpd.broker.dead_letter import MAXLEN, dead_letter
from amqpd.broker.deadlines import Alarm
from amqpd.broker.duplicates import Duplicates, headers_of
from amqpd.broker.fetch import Details, Fetch, Fetched
from amqpd.broker.message import PERSISTENT, Message, bodies_size, body_bytes
from amqpd.broker.policies import Policy, queue_terms
from amqpd.broker.queues.expiry import Expiry
from amqpd.broker.queues.fifo import Placed
from amqpd.broker.queues.groups import Groups
from amqpd.broker.queues.losses import Losses
from amqpd.broker.queues.pace import Pace
from amqpd.broker.queues.retry import as_released, wanted_delay_ms
from amqpd.broker.queues.returns import Returns
from amqpd.broker.queues.selection import Selection
from amqpd.broker.queues.stream import Stream
from amqpd.broker.queues.terms import NO_TERMS, REJECT_PUBLISH_DLX, Terms, terms
from amqpd.broker.queues.waiting import put_off_delayed
from amqpd.broker.queues.window import Run
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.exchanges.binding import Binding
    from amqpd.broker.permissions import Owner
    from amqpd.broker.queues.backlog import Backlog
    from amqpd.broker.queues.deferred import Deferred
    from amqpd.broker.vhost import Vhost

CROWD = 4096  # ready messages
CROWD_BYTES = 8_388_608
FILTERED_READS = 4  # of a stream in one turn, for consumers that want only some of its messages


class Waiter(Protocol):
    """Who waits for messages of a queue to be in memory."""

    def resume(self) -> None:
        """There are some now, or none at all."""


class Queue:
    """A named queue of one vhost.

    Attributes:
        queue_id: its number in the journal and the store.
        line_ids: those that its lines have there, or will have.
        type: `classic`, `quorum` or `stream`.
        stream: its backlog, if it is one, which consumers read instead of taking from it.
        terms: what it does with its messages by itself.
        policy, operator_policy: those that count for it.
        effective_policy_definition: what they say together.
        waiters: resumed, once, when messages are at hand again or there are none any more.
        exclusive_owner: the session that declared it exclusive, or None.
        inbox: messages published in this turn and not yet in the backlog.
        inbox_bytes: size of their bodies.
        inbox_expires: some of them have a TTL of their own.
        duplicates: the keys of messages that have come; None if it takes all.
        pace: how fast its messages may go; None for as fast as they can.
        waiting_line: messages that are to be delivered later; None as long as there were none.
        letters_line: dead letters that are kept until they have arrived; None as long as there were
            none.
        unacked: deliveries that are not settled.
        incoming: the bindings that lead here, in the order in which they came.
        touched: it stands in the broker's list of queues to settle.
        deleted: it is gone; what is still unacked is dropped when it is settled.
    """

    kind = "queue"

    def __init__(
        self,
        broker: Broker,
        vhost: Vhost,
        queue_id: int,
        name: str,
        backlog: Backlog,
        *,
        line_ids: range,
        durable: bool,
        auto_delete: bool,
        exclusive_owner: Owner | None,
        arguments: Arguments,
    ) -> None:
        self.queue_id = queue_id
        self.line_ids = line_ids
        self.name = name
        self.vhost = vhost
        self.durable = durable
        self.auto_delete = auto_delete
        self.exclusive_owner = exclusive_owner
        self.arguments = arguments
        self.type = queue_type(arguments)
        self.backlog = backlog
        self.stream = backlog if isinstance(backlog, Stream) else None
        self._tells_settled = durable or isinstance(backlog, Groups)
        self.terms: Terms = NO_TERMS
        self.selection = Selection(
            single=arguments.values.get("x-single-active-consumer") is True,
            gives_way=self.type == "quorum",
        )
        self.exclusive_consumer: Consumer | None = None
        self.incoming: dict[Binding, None] = {}
        self.inbox: list[Message] = []
        self.inbox_bytes = 0
        self.inbox_expires = False
        self.unacked = 0
        self.touched = False
        self.deleted = False
        self.waiters: dict[Waiter, None] = {}
        self.duplicates: Duplicates | None = None
        self.pace: Pace | None = None
        self.expiry = Expiry()
        self.returns = Returns()
        self.waiting_line: Deferred | None = None
        self.letters_line: Deferred | None = None
        self._broker = broker
        self._alarm = Alarm(broker.deadlines, self._touch)  # to look at deadlines and limits again
        self._losses = Losses(broker, self, self._alarm)
        self._lease = Alarm(broker.deadlines, self._run_out)  # if nobody uses it until then
        self.policy: Policy | None = None
        self.operator_policy: Policy | None = None
        self.effective_policy_definition: dict[str, Any] = {}
        self.apply()

    def apply(self) -> None:
        """Arguments and policies have changed."""
        declared = {
            name[2:]: float(value) if isinstance(value, Decimal) else value
            for name, value in self.arguments.values.items()
        }
        self.terms = terms(
            queue_terms(self.effective_policy_definition, declared, self.type), self.type
        )
        is_other_ttl = bool(self.ready or self.unacked) and self.expiry.ttl_s != self.terms.ttl_s
        self.expiry.ttl_s = self.terms.ttl_s
        self.expiry.is_mixed |= is_other_ttl or len(self.line_ids) > 1
        self._is_limited = self.terms.is_limited
        rate = self.terms.rate_max
        if rate is None or self.pace is None or self.pace.rate != rate:
            self.pace = None if rate is None else Pace(rate, self._broker.now)
        self._has_brakes = self.pace is not None or self.terms.unacked_max is not None
        if self.stream is not None:
            self.stream.retain(self.terms.retention)
        for consumer in self.selection.consumers:
            consumer.channel.terms_changed(consumer)
        self.used()
        self.vhost.generation += 1  # what sessions remember of routes knows whether it may refuse
        self._broker.touch(self)

    @property
    def ready(self) -> int:
        """Messages that wait for a consumer."""
        return self.backlog.ready

    @property
    def is_coming(self) -> bool:
        """Whether some will be at hand without anybody's doing."""
        return self.backlog.is_coming or self._losses.goes_on

    @property
    def delayed(self) -> int:
        """Messages that are to be delivered later."""
        return 0 if self.waiting_line is None else self.waiting_line.waiting

    @property
    def kept(self) -> int:
        """Persistent messages of a durable queue, ready and unacknowledged."""
        return sum([line.kept for line in self.backlog.lines])

    @property
    def crowded(self) -> bool:
        """More is ready than its consumers, of which there are some, have taken of late."""
        is_long = self.backlog.ready > CROWD and self.stream is None
        return is_long and bool(self.selection.consumers)

    @property
    def heavy(self) -> bool:
        """The same of large messages, which are few."""
        return self.backlog.window_bytes > CROWD_BYTES and bool(self.selection.consumers)

    def used(self) -> None:
        """Somebody has used it: the time after which an unused queue expires begins anew.

        Source: RabbitMQ, "Time-To-Live and Expiration", queue TTL.
        """
        expires_s = self.terms.expires_s
        is_used = bool(self.selection.consumers) or self.deleted
        self._lease.set(None if expires_s is None or is_used else self._broker.now + expires_s)

    def stop(self) -> None:
        """It is deleted: nothing is to happen any more."""
        self.deleted = True
        self._losses.waiting.clear()
        self._alarm.set(None)
        self._lease.set(None)

    def _touch(self) -> None:
        if not self.deleted:
            self._broker.touch(self)

    def _run_out(self) -> None:
        self._broker.expire(self)

    # --- in ---------------------------------------------------------------------------------------

    def absorb(self) -> None:
        """Takes the inbox into the backlog."""
        messages = self.inbox
        if not messages or self.deleted:
            return
        if self.terms.delays:
            messages = self.inbox = put_off_delayed(self._broker, self, messages)
            self.inbox_bytes = bodies_size(messages)
            if not messages:
                return
        size, self.inbox, self.inbox_bytes = self.inbox_bytes, [], 0
        own, self.inbox_expires = self.inbox_expires, False
        if self.stream is not None or (not own and self.terms.ttl_s is None):
            self.backlog.put(messages, size)
            return
        self.expiry.is_mixed |= own
        for numbers, some in self.backlog.put(messages, size, tell=True):
            self.expiry.came(numbers, some, self._broker.now, own=own)

    def come_back(self, messages: list[Message]) -> None:
        """Messages have waited."""
        if not self.deleted:
            self._broker.put(self, [as_released(message) for message in messages])

    def refuses(self, message: Message) -> bool:
        """Whether there is no room for a message, which is then for its publisher to know.

        Source: RabbitMQ, "Queue Length Limit", overflow behaviour.
        """
        if not self.is_full_for(message):
            return False
        if self.duplicates is not None and self.duplicates.knows(headers_of(message)):
            return False  # it does not come in anyway
        if self.terms.overflow == REJECT_PUBLISH_DLX:
            dead_letter(self._broker, self, [message], MAXLEN)
        return True

    def is_full_for(self, message: Message) -> bool:
        """Whether there is no room for a message."""
        if not self.terms.refuses or not self._would_be_full(message):
            return False
        if self.terms.delays and wanted_delay_ms(message, self._broker.wall_ms()) > 0:
            return False  # it waits, and no limit concerns it until then
        # What was published before may be on its way to consumers, and so may this.
        self._broker.settle_queues()
        if not self._would_be_full(message):
            return False
        is_braked = self._has_brakes and not self._allowed(1)
        return self.ready > 0 or is_braked or not self.selection.has_room()

    def is_duplicate(self, message: Message) -> bool:
        """Whether a message with its key has come before; if not, its key is known from now on."""
        if self.duplicates is None or self.deleted:
            return False
        stays = self.terms.keys_stay or message[PERSISTENT] or self.type == "quorum"
        return self.duplicates.is_known(headers_of(message), durable=stays)

    def _would_be_full(self, message: Message) -> bool:
        return self.terms.is_beyond(
            self.backlog.ready + len(self.inbox) + 1,
            self.backlog.ready_bytes + self.inbox_bytes + body_bytes(message),
        )

    # --- out --------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Gives ready messages to consumers with room, in turn, and drops what is not to stay."""
        if self._losses.spent or self._losses.goes_on or self._losses.waiting:
            self._losses.begin()
        # What expires this very moment still goes to a consumer that can take it now.
        if self.expiry.deadlines and not self._losses.expire(nextafter(self._broker.now, -inf)):
            return
        if self.stream is not None:
            come_again = self.stream.tend(self._broker.now)
            if come_again is not None:
                self._alarm.set_by(come_again)
        if self.selection.consumers:
            self._serve()
        if self.expiry.deadlines or self._is_limited:
            self._losses.trim()
            if self._losses.has_made_room and self.selection.consumers and self.backlog.at_hand:
                self._broker.touch(self)  # others are at hand than before

    def _serve(self) -> None:
        if self.stream is not None:
            self._serve_readers(self.stream)
            return
        backlog, selection = self.backlog, self.selection
        while at_hand := backlog.at_hand:
            if self._has_brakes and not (at_hand := self._allowed(at_hand)):
                return
            takers = selection.takers(at_hand)
            if not takers:
                return
            if len(takers) == 1:
                consumer, room = takers[0]
                run = self._take(min(room, at_hand))
                if run is None:
                    selection.took(takers, 0)
                    return
                self._give(consumer, run, run.numbers, run.messages)
                selection.took(takers, len(run.messages))
            elif not self._deal(takers, at_hand):
                return

    def _allowed(self, count: int) -> int:
        """How many of so many messages may be handed out now."""
        if self.terms.unacked_max is not None:
            count = min(count, max(0, self.terms.unacked_max - self.unacked))
        if count and self.pace is not None:
            count = min(count, self.pace.left(self._broker.now))
            if not count:
                self._alarm.set_by(self.pace.ready_at())
        return count

    def _serve_readers(self, stream: Stream) -> None:
        """Gives each consumer what comes next at its place."""
        selection = self.selection
        for consumer in stream.awakened():
            if consumer in selection.consumers:
                selection.rejoin(consumer)
        filtered = 0
        while filtered < FILTERED_READS and (takers := selection.takers(1)):
            consumer, room = takers[0]
            if consumer.cursor is None:  # it stands for no reader
                continue
            filtered += consumer.cursor.wants is not None
            run = stream.read(consumer.cursor, room)
            if run is None:
                continue
            self._give(consumer, run, run.numbers, run.messages)
            # One that has read without finding anything has had its turn, too.
            selection.took(takers, len(run.messages) or 1)
        if filtered == FILTERED_READS:  # others have their turn before the next
            self._alarm.set_by(self._broker.now)

    def _deal(self, takers: list[tuple[Consumer, int]], limit: int) -> bool:
        """Deals one run to several consumers, one message each in turn; whether there was one."""
        ways = len(takers)
        run = self._take(min(min(room for _, room in takers) * ways, limit))
        if run is None:
            self.selection.took(takers, 0)
            return False
        numbers, messages = run.numbers, run.messages
        if len({consumer.channel for consumer, _ in takers}) == ways:
            for place, (consumer, _) in enumerate(takers[: len(messages)]):
                self._give(consumer, run, numbers[place::ways], messages[place::ways])
        else:
            # What goes out on one channel keeps its order, whoever it is for.
            for place, message in enumerate(messages):
                self._give(takers[place % ways][0], run, numbers[place : place + 1], [message])
        self.selection.took(takers, len(run.messages))
        return True

    def _take(self, limit: int) -> Run | None:
        """Takes messages that are to be handed out; `Losses.take` says what some of them can be."""
        return self._losses.take(limit) if self.expiry.is_mixed else self.backlog.take(limit)

    def _give(
        self, consumer: Consumer, run: Run, numbers: Sequence[int], messages: list[Message]
    ) -> None:
        """Hands out a part of a run."""
        count = len(messages)
        if not count:
            return
        if run.ticket:
            consumer.channel.hold(run.ticket)
        if self.returns.counts:
            messages = self.returns.counted(numbers, messages)
        if self.pace is not None:
            self.pace.spend(count)
        if consumer.pace is not None:
            consumer.pace.spend(count)
        if consumer.no_ack:
            self.forget(numbers, messages)
        else:
            self.unacked += count
            consumer.unacked += count
        consumer.channel.deliver(consumer, numbers, messages, run.redelivered)

    def get(self, consumer: Consumer) -> Run | None:
        """One message for basic.get, or None if none is at hand.

        Args:
            consumer: stands for the channel that gets; it is not one of the queue's consumers.
        """
        self.used()
        self._losses.begin()
        if self.expiry.deadlines and not self._losses.expire(self._broker.now):
            return None
        run = None
        while self.backlog.at_hand:
            run = self._take(1)
            if run is None or run.messages:
                break
        if self.expiry.deadlines:
            self._broker.touch(self)  # another message is the first one, and may have a deadline
        if run is None or not run.messages:
            return None
        if run.ticket:
            consumer.channel.hold(run.ticket)
        if self.pace is not None:
            self.pace.spend(1)
        if self.returns.counts:
            run.messages = self.returns.counted(run.numbers, run.messages)
        if consumer.no_ack:
            self.forget(run.numbers, run.messages)
        else:
            self.unacked += 1
            consumer.unacked += 1
        return run

    # --- settling ---------------------------------------------------------------------------------

    def release(self, consumer: Consumer, numbers: list[int], messages: list[Message]) -> None:
        """Deliveries are settled for good."""
        self.unacked -= len(numbers)
        self._regain(consumer, len(numbers))
        if self.stream is not None:
            if consumer.cursor is not None and not self.deleted:
                self.stream.settled(consumer.cursor, numbers)
        else:
            self.forget(numbers, messages)

    def reject(self, consumer: Consumer, numbers: list[int], messages: list[Message]) -> None:
        """Deliveries were rejected, and not to come back."""
        if self.deleted or self.stream is not None:
            self.release(consumer, numbers, messages)
            return
        self._regain(consumer, len(numbers))
        self._losses.reject(numbers, messages)

    def requeue(
        self, consumer: Consumer, deliveries: list[tuple[int, Message]], *, failed: bool = False
    ) -> None:
        """Deliveries come back to their places.

        Args:
            failed: because they could not be done, and not because they were returned.
        """
        self._regain(consumer, len(deliveries))
        if self.deleted:
            self.unacked -= len(deliveries)
        else:
            self._losses.requeue(deliveries, failed=failed)

    def _regain(self, consumer: Consumer, count: int) -> None:
        """The consumer has room for `count` messages more, if it is still there."""
        consumer.unacked -= count
        if not consumer.waiting and consumer in self.selection.consumers:
            self.selection.rejoin(consumer)

    def forget(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages are gone for good."""
        self.settle(numbers, messages)
        if self.duplicates is not None:
            self.forget_keys(messages)

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages are not at their places any more; what waits keeps its key."""
        if self._tells_settled and not self.deleted:
            self.backlog.settle(numbers, messages)
        if self.expiry.deadlines or self.returns.counts:
            self._forget_details(numbers)

    def forget_keys(self, messages: Sequence[Message]) -> None:
        """Messages have gone; their keys go with them, if they do not stay."""
        if self.duplicates is not None and not self.terms.keys_stay and not self.deleted:
            self.duplicates.forget(messages)

    def lost(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages are over their time, or one too many, and not in the backlog any more."""
        self.forget_keys(messages)
        self._forget_details(numbers)

    def _forget_details(self, numbers: Sequence[int]) -> None:
        if self.expiry.deadlines:
            self.expiry.forget(numbers)
        if self.returns.counts:
            self.returns.forget(numbers)

    def purge(self) -> int:
        """Drops all ready messages, and those that wait; how many were ready."""
        if self.waiting_line is not None:
            self.waiting_line.clear()
        count, numbers = self.backlog.purge()
        if self.duplicates is not None and not self.terms.keys_stay and not self.deleted:
            self.duplicates.clear()
        if self.expiry.deadlines:
            self.expiry.forget_all(numbers)
        if self.returns.counts:
            self.returns.forget_all(numbers)
        return count

    # --- what stands behind the window ------------------------------------------------------------

    def refill(self) -> list[Fetch]:
        """What to fetch from the store before a window runs dry."""
        wanted = bool(
            self.selection.consumers
            or self.waiters
            or self.expiry.matters
            or self.terms.excess(self.backlog.ready, self.backlog.ready_bytes)
        )
        fetches: list[Fetch] = []
        for line in self.backlog.lines:
            found = line.refill(
                wanted=wanted, detailed=self.expiry.matters or self.terms.counts_deliveries
            )
            if isinstance(found, Placed):
                self._came_back(found, None)
                self.dispatch()
            else:
                fetches += found
        return fetches

    def wake(self) -> list[Waiter]:
        """Who has waited for messages and can go on."""
        if not self.waiters or self._losses.goes_on:
            return []
        if self.backlog.is_coming and not self.backlog.at_hand:
            return []
        woken = list(self.waiters)
        self.waiters.clear()
        return woken

    def fetched(self, fetch: Fetch, answer: Fetched) -> int:
        """The answer to a fetch; how many messages that should be there are missing or damaged."""
        if self.deleted:
            return 0
        found = self.backlog.fetched(fetch, answer)
        if found is None:
            return 0
        placed, lost = found
        self._came_back(placed, answer.details)
        return lost

    def _came_back(self, placed: Placed, details: Details | None) -> None:
        if details is not None and self.terms.counts_deliveries:
            self.returns.were(placed.numbers, details.returned)
        if details is None and not self.expiry.matters:
            return
        enqueued_ms = details.enqueued_ms if details else ()
        self.expiry.came_back(
            placed.numbers, placed.messages, enqueued_ms, self._broker.epoch, self._broker.now
        )

    def stopped(self) -> None:
        """The broker stops and nothing is unacknowledged."""
        self.backlog.stopped()
