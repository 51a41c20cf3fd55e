"""The store as the server uses it: batches go out, tickets and messages come back."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import trio

from amqpd.broker.fetch import Fetch
from amqpd.broker.journal import Batch
from amqpd.broker.recovered import NOTHING, Recovered
from amqpd.config import Config
from amqpd.log import EventLog
from amqpd.storage.directory import DataDirectory, open_directory
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.threads import Listener, StoreThreads

log = EventLog("store")


class Store(Protocol):
    """What commits and reads back, and tells a listener in the broker's loop."""

    def hand_over(self, batch: Batch) -> None:
        """Has a batch committed."""

    def fetch(self, fetch: Fetch) -> None:
        """Has messages read back."""


class Place:
    """Where things are kept: a directory that is this process's alone, or nowhere.

    Attributes:
        recovered: what is there already.
        words: for the ready line.

    Raises:
        StorageError: it cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self.recovered: Recovered = NOTHING
        self.words = "everything in memory, gone when it stops"
        self.directory: DataDirectory | None = None
        self._file_store: SqliteStore | None = None
        self._threads: StoreThreads | None = None
        if not config.storage.memory_only:
            self._open(config)

    def _open(self, config: Config) -> None:
        directory = open_directory(config.storage.data_dir, os.environ)
        with ExitStack() as opened:
            opened.callback(directory.close)
            store = SqliteStore(directory.file, config.storage.sync)
            opened.callback(store.close, in_order=False)
            self.recovered = store.recover()
            opened.pop_all()
        self.directory, self._file_store = directory, store
        self.words = f"data in {directory.path}"
        if not store.was_stopped:
            log.warning(
                "the broker was not stopped in good order the last time: going on from the disk",
                file=store.file,
                messages=sum(each.messages for each in self.recovered.standings.values()),
            )
        if store.wal_damage:
            log.error("messages may be lost", damage=store.wal_damage)

    def start(self, listener: Listener) -> Store:
        """The store at work; within a trio run."""
        if self._file_store is None:
            return _InMemory(listener)
        loop = trio.lowlevel.current_trio_token()

        def post(*call: Any) -> None:
            # When the broker has stopped, there is nobody to be told.
            with suppress(trio.RunFinishedError):
                loop.run_sync_soon(*call)

        self._threads = StoreThreads(self._file_store, listener, post)
        return self._threads

    def close(self) -> None:
        """Ends the store and lets go of the directory; raises StorageError if that fails."""
        try:
            if self._threads is not None:
                self._threads.stop()
            elif self._file_store is not None:
                self._file_store.close()
        finally:
            if self.directory is not None:
                self.directory.close()


class _InMemory:
    """Commits at once, and keeps nothing when the process ends."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._store = MemoryStore()

    def hand_over(self, batch: Batch) -> None:
        try:
            ticket = self._store.commit(batch)
        except Exception as error:  # as with a file: what is not committed is not promised
            self._listener.failed(error)
            return
        self._listener.committed(ticket)

    def fetch(self, fetch: Fetch) -> None:
        self._listener.fetched(fetch, self._store.fetch(fetch))
