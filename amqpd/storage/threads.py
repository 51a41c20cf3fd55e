"""The store's threads: one writes batches and tidies up, one reads messages back, one copies the
WAL.

They know nothing of the broker's loop: what they have to say is posted to it. What comes while a
batch is being committed is the next batch, so that batches grow with the load by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch
from amqpd.log import EventLog
from amqpd.storage.errors import StorageError, StoreFull
from amqpd.storage.sqlite import SqliteStore

log = EventLog("store")

Post = Callable[..., None]  # calls a function with arguments in the broker's loop


class Listener(Protocol):
    """Who is told, in the broker's loop."""

    def committed(self, ticket: int) -> None:
        """The batch with this ticket is durable."""

    def fetched(self, fetch: Fetch, answer: Fetched) -> None:
        """Messages were read back."""

    def full(self, on: bool) -> None:
        """There is no room to write, or there is again."""

    def failed(self, error: Exception) -> None:
        """Nothing more will be written."""


class StoreThreads:
    """A store at work.

    Args:
        post: has its first argument called in the broker's loop with the others; from any thread.
        full_pause_s: between two tries to write where there was no room.
        idle_s: without a batch, after which the file may be shrunk.
    """

    def __init__(
        self,
        store: SqliteStore,
        listener: Listener,
        post: Post,
        *,
        full_pause_s: float = 0.5,
        idle_s: float = 1.0,
    ) -> None:
        self._store = store
        self._listener = listener
        self._post = post
        self._full_pause_s = full_pause_s
        self._idle_s = idle_s
        self._stopping = Event()
        self._failed = False
        # Bound: the core hands out one batch at a time, and one fetch a queue.
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._fetches: SimpleQueue[Fetch | None] = SimpleQueue()
        self._copy = Event()
        self._copying = False
        self._threads = [
            Thread(target=self._guard, args=(work,), name=f"amqpd {name}", daemon=True)
            for name, work in (
                ("writer", self._write),
                ("reader", self._read),
                ("checkpoints", self._checkpoint),
            )
        ]
        for thread in self._threads:
            thread.start()

    def hand_over(self, batch: Batch) -> None:
        """Has the batch committed; the one before it is."""
        self._batches.put(batch)

    def fetch(self, fetch: Fetch) -> None:
        """Has messages read back."""
        self._fetches.put(fetch)

    def stop(self) -> None:
        """Ends the threads, when what was handed over is done, and closes the store.

        Raises:
            StorageError: it could not be closed in good order.
        """
        self._stopping.set()
        self._batches.put(None)
        self._fetches.put(None)
        self._copy.set()
        for thread in self._threads:
            thread.join()
        self._store.close(in_order=not self._failed)

    def _guard(self, work: Callable[[], Any]) -> None:
        """Whatever goes wrong in a thread is the end of the store, and is told."""
        try:
            work()
        except Exception as error:
            self._failed = True
            if not isinstance(error, StorageError):
                log.exception("internal error", error)
            self._post(self._listener.failed, error)

    # --- the writer -------------------------------------------------------------------------------

    def _write(self) -> None:
        while (batch := self._next_batch()) is not None:
            if self._failed or not self._commit(batch):
                return
            self._post(self._listener.committed, batch.ticket)
            self._copy_if_due()

    def _next_batch(self) -> Batch | None:
        """The next batch; tidies up while there is none."""
        idle, more = False, True
        while True:
            try:
                if more:
                    return self._batches.get_nowait()
                return self._batches.get(timeout=None if idle else self._idle_s)
            except Empty:
                if not more:
                    idle = True
                more = self._tidy(idle)

    def _copy_if_due(self) -> None:
        if not self._copying and self._store.needs_checkpoint:
            self._copying = True
            self._copy.set()

    def _tidy(self, idle: bool) -> bool:
        try:
            more = self._store.tidy(idle=idle)
            if more and not idle:
                self._copy_if_due()
            return more
        except StoreFull:
            return False  # it must wait until there is room

    def _commit(self, batch: Batch) -> bool:
        """Commits a batch, and waits where there is no room; False if it has to give up."""
        full = False
        while True:
            try:
                self._store.commit(batch)
            except StoreFull as error:
                if not full:
                    log.error("the disk is full: publishers wait", error=str(error))
                    self._post(self._listener.full, True)
                full = True
                if self._stopping.wait(self._full_pause_s):
                    log.error("the disk stayed full: what has happened last is not kept")
                    self._failed = True
                    return False
            else:
                if full:
                    log.info("there is room on the disk again")
                    self._post(self._listener.full, False)
                return True

    # --- the others -------------------------------------------------------------------------------

    def _read(self) -> None:
        while (fetch := self._fetches.get()) is not None:
            self._post(self._listener.fetched, fetch, self._store.fetch(fetch))

    def _checkpoint(self) -> None:
        while self._copy.wait() and not self._stopping.is_set():
            self._copy.clear()
            try:
                self._store.copy()
            except StoreFull as error:
                log.warning("no room for a checkpoint", error=str(error))
                self._stopping.wait(self._full_pause_s)
            self._copying = False
