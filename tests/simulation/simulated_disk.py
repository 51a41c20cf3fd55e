"""A disk on which a broker stores: what is left on it after a crash or without power."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch
from amqpd.broker.recovered import Recovered
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes


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
            _copy_image(image, self)
            _copy_image(image, self._safe)

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

    def crash(self) -> Disk:
        """What the next broker finds when the process has died."""
        return Disk(self)

    def lose_power(self, batches: int) -> Disk:
        """What it finds when the power has failed: of the batches at risk only the first ones."""
        self.ticket = self.safe_ticket
        for batch in self.at_risk[:batches]:
            self.ticket = self._safe.commit(batch)
        return Disk(self._safe)

    @contextmanager
    def copy(self) -> Iterator[Disk]:
        """Another disk with the same on it."""
        yield Disk(self)

    def close(self) -> None:
        """It is not used any more."""


class FileDisk(Disk):
    """A store in a file. Beside it stands the image that it should hold.

    Args:
        directory: where it is; copies of it go beside.
        image: what is in the file already.
    """

    # Small, so that checkpoints and what belongs to them happen.
    SIZES = Sizes(wal_bytes_high=131_072, free_bytes_min=65_536)

    def __init__(self, directory: Path, image: MemoryStore | None = None) -> None:
        super().__init__(image)
        self._directory = directory
        self._file = SqliteStore(directory / "amqpd.db", "off", self.SIZES)
        self._copies = 0

    def commit(self, batch: Batch) -> int:
        """Commits, and tidies up from time to time, as the store's threads do."""
        self._file.commit(batch)
        if batch.ticket % 3 == 0:
            self._file.tidy(idle=batch.ticket % 2 == 0)
        if self._file.needs_checkpoint:
            self._file.copy()
        return super().commit(batch)

    def fetch(self, fetch: Fetch) -> Fetched:
        """Reads from the file."""
        return self._file.fetch(fetch)

    def recover(self) -> Recovered:
        """Reads from the file."""
        super().recover()
        return self._file.recover()

    def crash(self) -> Disk:
        """A copy of the files as they are: what a process leaves that is killed."""
        left = self._copied()
        self.close()
        return left

    def lose_power(self, batches: int) -> Disk:
        """Nobody can take away here what the power would: all is left."""
        return self.crash()

    @contextmanager
    def copy(self) -> Iterator[Disk]:
        """Another store on a copy of the files, for a while."""
        copied = self._copied()
        try:
            yield copied
        finally:
            copied.close()

    def _copied(self) -> FileDisk:
        self._copies += 1
        directory = self._directory.with_name(f"{self._directory.name}.{self._copies}")
        shutil.copytree(self._directory, directory)
        return FileDisk(directory, self)

    def close(self) -> None:
        """Closes the file and takes it away."""
        self._file.close(in_order=False)
        shutil.rmtree(self._directory, ignore_errors=True)


def _copy_image(image: MemoryStore, store: MemoryStore) -> None:
    """Gives the store the same image, without what was spilled."""
    store.vhosts = dict(image.vhosts)
    store.exchanges = dict(image.exchanges)
    store.queues = dict(image.queues)
    store.bindings = {end: dict(bound) for end, bound in image.bindings.items()}
    store.messages = {queue: dict(messages) for queue, messages in image.messages.items()}
    store.deliveries = dict(image.deliveries)
    store.standings = dict(image.standings)
    store.enqueued_ms = {queue: dict(each) for queue, each in image.enqueued_ms.items()}
    store.due_ms = {queue: dict(each) for queue, each in image.due_ms.items()}
    store.segments = {queue: dict(each) for queue, each in image.segments.items()}
    store.keys = {queue: dict(each) for queue, each in image.keys.items()}
    store.message_keys = {queue: dict(each) for queue, each in image.message_keys.items()}
    store.places = {queue: dict(each) for queue, each in image.places.items()}
