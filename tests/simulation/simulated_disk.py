"""A disk on which a broker stores: what is left on it after a crash or without power."""

from __future__ import annotations

from amqpd.broker.journal import Batch
from amqpd.storage.memory import MemoryStore


class Disk(MemoryStore):
    """A store that knows which of its batches could be lost with the power.

    Attributes:
        ticket: of the last batch that was committed.
        safe_ticket: of the last batch that is there whatever happens.
        at_risk: the batches since then, which promise nothing.
    """

    def __init__(self, image: MemoryStore | None = None) -> None:
        super().__init__()
        self.ticket = self.safe_ticket = 0
        self.at_risk: list[Batch] = []
        self._safe = MemoryStore()
        if image is not None:
            copy_image(image, self)
            copy_image(image, self._safe)

    def commit(self, batch: Batch) -> int:
        """Commits; a batch that promises something takes all before it along to the platter."""
        self.at_risk.append(batch)
        if batch.promised:
            for each in self.at_risk:
                self._safe.commit(each)
            self.at_risk.clear()
            self.safe_ticket = batch.ticket
        self.ticket = super().commit(batch)
        return self.ticket

    def lose_power(self, batches: int) -> Disk:
        """What is found when the power has failed: of the batches at risk only the first ones."""
        self.ticket = self.safe_ticket
        for batch in self.at_risk[:batches]:
            self.ticket = self._safe.commit(batch)
        return Disk(self._safe)


def copy_image(image: MemoryStore, store: MemoryStore) -> None:
    """Gives the store the same image, without what was spilled."""
    store.vhosts = dict(image.vhosts)
    store.exchanges = dict(image.exchanges)
    store.queues = dict(image.queues)
    store.bindings = {end: dict(bound) for end, bound in image.bindings.items()}
    store.messages = {queue: dict(messages) for queue, messages in image.messages.items()}
    store.deliveries = dict(image.deliveries)
    store.standings = dict(image.standings)
