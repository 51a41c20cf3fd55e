"""A store that keeps everything in memory: the same image that a file would hold, gone at the end.

Batches are applied in the order of their tickets and are committed at once. What the image holds is
what a durable store must be able to give back after a crash, which is how tests see that the
journal leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpd.broker.journal import (
    Batch,
    Bound,
    Enqueued,
    ExchangeAdded,
    ExchangeRemoved,
    QueueAdded,
    QueueRemoved,
    Settled,
    Unbound,
)
from amqpd.broker.message import Message

BindingKey = tuple[str, str, str, bytes]


class MemoryStore:
    """The image of all durable things.

    Attributes:
        exchanges: by vhost and name.
        queues: by their number in the journal.
        bindings: by vhost and source, then by kind and name of the destination, key and encoded
            arguments.
        messages: by queue, then by their number in it.
    """

    def __init__(self) -> None:
        self.exchanges: dict[tuple[str, str], ExchangeAdded] = {}
        self.queues: dict[int, QueueAdded] = {}
        self.bindings: dict[tuple[str, str], dict[BindingKey, Bound]] = {}
        self.messages: dict[int, dict[int, Message]] = {}
        self._appliers: dict[type, Callable[[Any], None]] = {
            ExchangeAdded: self._add_exchange,
            ExchangeRemoved: self._remove_exchange,
            QueueAdded: self._add_queue,
            QueueRemoved: self._remove_queue,
            Bound: self._bind,
            Unbound: self._unbind,
            Enqueued: self._enqueue,
            Settled: self._settle,
        }

    def commit(self, batch: Batch) -> int:
        """Applies a batch; the ticket that is committed with it."""
        for operation in batch.operations:
            self._appliers[type(operation)](operation)
        return batch.ticket

    def _add_exchange(self, added: ExchangeAdded) -> None:
        self.exchanges[added.vhost, added.name] = added

    def _remove_exchange(self, removed: ExchangeRemoved) -> None:
        del self.exchanges[removed.vhost, removed.name]
        self.bindings.pop((removed.vhost, removed.name), None)

    def _add_queue(self, added: QueueAdded) -> None:
        self.queues[added.queue_id] = added
        self.messages[added.queue_id] = {}

    def _remove_queue(self, removed: QueueRemoved) -> None:
        del self.queues[removed.queue_id]
        del self.messages[removed.queue_id]

    def _bind(self, bound: Bound) -> None:
        self.bindings.setdefault((bound.vhost, bound.source), {})[_key(bound)] = bound

    def _unbind(self, unbound: Unbound) -> None:
        source = unbound.vhost, unbound.source
        self.bindings[source].pop(_key(unbound))
        if not self.bindings[source]:
            del self.bindings[source]

    def _enqueue(self, enqueued: Enqueued) -> None:
        self.messages[enqueued.queue_id].update(
            zip(enqueued.numbers, enqueued.messages, strict=True)
        )

    def _settle(self, settled: Settled) -> None:
        messages = self.messages[settled.queue_id]
        for number in settled.numbers:
            del messages[number]


def _key(binding: Bound | Unbound) -> BindingKey:
    return (
        binding.destination_kind,
        binding.destination,
        binding.binding_key,
        binding.arguments,
    )
