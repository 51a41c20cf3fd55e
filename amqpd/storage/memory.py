"""A store that keeps everything in memory: the same image that a file would hold, gone at the end.

Batches are committed at once. What the image holds is what a durable store must be able to give
back after a crash, which is how tests see that the journal leaves nothing out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from heapq import nsmallest
from itertools import takewhile
from typing import Any

from amqpd.broker.duplicates import Known
from amqpd.broker.fetch import Details, Due, Fetch, Fetched
from amqpd.broker.journal import Batch, Changes, Standing
from amqpd.broker.message import BODY, HEADER, Message
from amqpd.broker.operations import (
    Bound,
    ExchangeAdded,
    ExchangeRemoved,
    QueueAdded,
    QueueRemoved,
    Unbound,
    VhostAdded,
)
from amqpd.broker.queues.retention import Segment
from amqpd.broker.recovered import Recovered
from amqpd.wire import content

BindingKey = tuple[str, str, str, bytes]


class MemoryStore:
    """The image of all durable things.

    Attributes:
        vhosts: by name.
        exchanges: by vhost and name.
        queues: by their number in the journal.
        bindings: by vhost and source, then by kind and name of the destination, key and encoded
            arguments.
        messages: by queue, then by their number in it.
        spilled: messages that need not outlive the process, in the same way.
        deliveries: how often a message came back from a consumer, by queue and number.
        standings: by queue.
        enqueued_ms: when the messages of a queue were stored, in milliseconds since 1970.
        segments: those of streams that are full, by queue and the offset of their first message.
        places: where consumers of streams are to go on, by queue and tag.
        keys: by which duplicates of messages are known, by queue and key.
        message_keys: those of messages of compacted streams, by queue and number.
        due_ms: when those of a deferred line are due, in milliseconds since 1970.
    """

    def __init__(self) -> None:
        self.vhosts: dict[str, VhostAdded] = {}
        self.exchanges: dict[tuple[str, str], ExchangeAdded] = {}
        self.queues: dict[int, QueueAdded] = {}
        self.bindings: dict[tuple[str, str], dict[BindingKey, Bound]] = {}
        self.messages: dict[int, dict[int, Message]] = {}
        self.spilled: dict[int, dict[int, Message]] = {}
        self.deliveries: dict[tuple[int, int], int] = {}
        self.standings: dict[int, Standing] = {}
        self.enqueued_ms: dict[int, dict[int, int]] = {}
        self.segments: dict[int, dict[int, Segment]] = {}
        self.places: dict[int, dict[str, int]] = {}
        self.keys: dict[int, dict[str, Known]] = {}
        self.message_keys: dict[int, dict[int, str]] = {}
        self.due_ms: dict[int, dict[int, int]] = {}
        self._appliers: dict[type, Callable[[Any], None]] = {
            VhostAdded: self._add_vhost,
            ExchangeAdded: self._add_exchange,
            ExchangeRemoved: self._remove_exchange,
            QueueAdded: self._add_queue,
            QueueRemoved: self._remove_queue,
            Bound: self._bind,
            Unbound: self._unbind,
        }

    def commit(self, batch: Batch) -> int:
        """Applies a batch; the ticket that is committed with it."""
        for operation in batch.operations:
            self._appliers[type(operation)](operation)
        for queue_id, changes in batch.changes.items():
            self._change(queue_id, changes, batch.wall_ms)
        return batch.ticket

    def fetch(self, fetch: Fetch) -> Fetched:
        """Reads messages back."""
        if fetch.after is not None:
            return self._fetch_due(fetch, fetch.after)
        if fetch.newest:
            return self._superseded(fetch)
        kept, spilled = self.messages.get(fetch.queue_id, {}), self.spilled.get(fetch.queue_id, {})
        enqueued_ms = self.enqueued_ms.get(fetch.queue_id, {})
        numbers: list[int] = []
        messages: list[Message] = []
        size, read_below = 0, fetch.below
        # What is read once is not read again: the whole queue costs what it has numbers.
        for number in range(fetch.first, fetch.below):
            message = kept.get(number) or spilled.get(number)
            if message is None or (not numbers and enqueued_ms[number] < fetch.since_ms):
                continue
            size += len(message[HEADER]) + len(message[BODY])
            if numbers and (size > fetch.bytes_max or len(numbers) == fetch.messages_max):
                read_below = numbers[-1] + 1
                break
            numbers.append(number)
            messages.append(message)
        details = None
        if fetch.detailed or any(
            content.flags(message[HEADER]) & content.EXPIRATION for message in messages
        ):
            returned = [self.deliveries.get((fetch.queue_id, each), 0) for each in numbers]
            details = Details([enqueued_ms[each] for each in numbers], returned)
        return Fetched(numbers, messages, [], read_below, details)

    def _superseded(self, fetch: Fetch) -> Fetched:
        messages = self.messages.get(fetch.queue_id, {})
        keys = self.message_keys.get(fetch.queue_id, {})
        numbers: dict[str, list[int]] = {}
        for number in sorted(messages):
            if number in keys:
                numbers.setdefault(keys[number], []).append(number)
        changed = {keys[each] for each in keys if fetch.first <= each < fetch.below}
        gone = [each for key in sorted(changed) for each in numbers.get(key, [])[: -fetch.newest]]
        some = gone[: fetch.messages_max]
        size = sum(content.body_size(messages[number][HEADER]) for number in some)
        return Fetched(some, [], [], fetch.below, size=size)

    def _fetch_due(self, fetch: Fetch, after: Due) -> Fetched:
        found = self.messages.get(fetch.queue_id, {}) | self.spilled.get(fetch.queue_id, {})
        due_ms = self.due_ms.get(fetch.queue_id, {})
        wanted = [each for number in found if (each := Due(due_ms[number], number)) > after]
        some = nsmallest(fetch.messages_max, wanted)
        return Fetched(
            [each.number for each in some],
            [found[each.number] for each in some],
            [],
            fetch.below if len(some) == len(wanted) else 0,
            Details([], [], [each.ms for each in some]),
        )

    def recover(self) -> Recovered:
        """What a broker finds that starts on this image; spilled messages are gone."""
        self.spilled.clear()
        bindings = [bound for each in self.bindings.values() for bound in each.values()]
        return Recovered(
            [
                *self.vhosts.values(),
                *self.exchanges.values(),
                *self.queues.values(),
                *bindings,
            ],
            dict(self.standings),
            max(self.messages, default=0),
            {queue_id: list(each.values()) for queue_id, each in self.segments.items()},
            {queue_id: dict(each) for queue_id, each in self.places.items()},
            {
                queue_id: sorted(each.values(), key=lambda known: known.number)
                for queue_id, each in self.keys.items()
            },
        )

    def _add_vhost(self, added: VhostAdded) -> None:
        self.vhosts[added.name] = added

    def _add_exchange(self, added: ExchangeAdded) -> None:
        self.exchanges[added.vhost, added.name] = added

    def _remove_exchange(self, removed: ExchangeRemoved) -> None:
        del self.exchanges[removed.vhost, removed.name]
        self.bindings.pop((removed.vhost, removed.name), None)

    def _add_queue(self, added: QueueAdded) -> None:
        self.queues[added.queue_id] = added
        for queue_id in range(added.queue_id, added.queue_id + added.lines):
            self.messages[queue_id] = {}

    def _remove_queue(self, removed: QueueRemoved) -> None:
        del self.queues[removed.queue_id]
        for queue_id in range(removed.queue_id, removed.queue_id + removed.lines):
            for number in self.messages.pop(queue_id):
                self.deliveries.pop((queue_id, number), None)
            self.spilled.pop(queue_id, None)
            self.standings.pop(queue_id, None)
            self.segments.pop(queue_id, None)
            self.places.pop(queue_id, None)
            self.keys.pop(queue_id, None)
            self.enqueued_ms.pop(queue_id, None)
            self.due_ms.pop(queue_id, None)
            self.message_keys.pop(queue_id, None)

    def _bind(self, bound: Bound) -> None:
        self.bindings.setdefault((bound.vhost, bound.source), {})[_key(bound)] = bound

    def _unbind(self, unbound: Unbound) -> None:
        source = unbound.vhost, unbound.source
        bindings = self.bindings.get(source, {})
        bindings.pop(_key(unbound), None)
        if not bindings:
            self.bindings.pop(source, None)

    def _change(self, queue_id: int, changes: Changes, wall_ms: int) -> None:
        dates = self.enqueued_ms.setdefault(queue_id, {})
        dates.update(dict.fromkeys([*changes.added, *changes.spilled], wall_ms))
        if changes.due_ms:
            self.due_ms.setdefault(queue_id, {}).update(changes.due_ms)
        if changes.standing is not None:
            self.standings[queue_id] = changes.standing
            self._change_kept(queue_id, changes, dates)
            if changes.full or changes.places or changes.dropped:
                self._change_stream(queue_id, changes)
        if changes.keys:
            self._change_keys(queue_id, changes.keys)
        spilled = self.spilled.setdefault(queue_id, {})
        spilled.update(changes.spilled)
        below = changes.unspilled_below
        # They come in order.
        gone = [*changes.unspilled, *takewhile(lambda each: each < below, spilled)]
        for number in gone:
            spilled.pop(number, None)
            dates.pop(number, None)
            self.due_ms.get(queue_id, {}).pop(number, None)
        if not spilled:
            del self.spilled[queue_id]
        if not dates:
            del self.enqueued_ms[queue_id]

    def _change_kept(self, queue_id: int, changes: Changes, dates: dict[int, int]) -> None:
        messages = self.messages[queue_id]
        messages.update(changes.added)
        if changes.message_keys:
            self.message_keys.setdefault(queue_id, {}).update(changes.message_keys)
        for number, times in changes.returned.items():
            if number in messages:
                key = queue_id, number
                self.deliveries[key] = self.deliveries.get(key, 0) + times
        ordered = sorted(messages) if changes.dropped else []
        gone = {*changes.settled, *changes.damaged}  # some may be dropped too
        for first, last in changes.dropped:
            gone.update(ordered[bisect_left(ordered, first) : bisect_left(ordered, last + 1)])
        for number in gone:
            del messages[number]
            dates.pop(number, None)
            self.due_ms.get(queue_id, {}).pop(number, None)
            self.message_keys.get(queue_id, {}).pop(number, None)
            self.deliveries.pop((queue_id, number), None)

    def _change_keys(self, queue_id: int, keys: dict[str, Known | None]) -> None:
        known = self.keys.setdefault(queue_id, {})
        for key, each in keys.items():
            if each is None:
                known.pop(key, None)
            else:
                known[key] = each
        if not known:
            del self.keys[queue_id]

    def _change_stream(self, queue_id: int, changes: Changes) -> None:
        segments = self.segments.setdefault(queue_id, {})
        segments.update((segment.first, segment) for segment in changes.full)
        for first, last in changes.dropped:
            for each in [each for each in segments if first <= each <= last]:
                del segments[each]
        places = self.places.setdefault(queue_id, {})
        for tag, place in changes.places.items():
            if place is None:
                places.pop(tag, None)
            else:
                places[tag] = place
        if not segments:
            del self.segments[queue_id]
        if not places:
            del self.places[queue_id]


def _key(binding: Bound | Unbound) -> BindingKey:
    return (
        binding.destination_kind,
        binding.destination,
        binding.binding_key,
        binding.arguments,
    )
