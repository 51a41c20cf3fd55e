"""The store in a file: what its threads and its tests call. No function here starts a thread.

`commit` and `tidy` belong to one thread, `fetch` to a second, `copy` to a third.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch
from amqpd.broker.recovered import Recovered
from amqpd.storage.database import (
    attach_scratch,
    connect,
    free_bytes,
    open_file,
    remove_scratch,
    scratch_of,
    told,
    transaction,
)
from amqpd.storage.errors import StorageError
from amqpd.storage.reader import Reader
from amqpd.storage.recovery import recover
from amqpd.storage.schema import empty_scratch
from amqpd.storage.state import State, write_state
from amqpd.storage.upkeep import (
    SIZES,
    Checkpointer,
    Sizes,
    WalIndex,
    copy,
    preallocate_wal,
    shrink,
)
from amqpd.storage.wal import wal_of
from amqpd.storage.writer import Writer


class SqliteStore:
    """An open file.

    Attributes:
        was_stopped: the process that had it before has closed it in good order.
        wal_damage: what is wrong with the WAL, for a person; empty if nothing is.

    Args:
        sync: as the setting `storage.sync`.
        sizes: what upkeep goes by.

    Raises:
        StorageError: the file cannot be used; the text says why and what to do.
    """

    def __init__(self, file: Path, sync: str = "full", sizes: Sizes = SIZES) -> None:
        self.file = file
        self._sizes = sizes
        self._connections: list[sqlite3.Connection] = []
        self._indexes: list[WalIndex] = []
        self._rest_to_copy = False
        self._shrunk = False
        self._closed = False
        try:
            self._open(sync)
        except BaseException:
            self._release()
            raise

    def _open(self, sync: str) -> None:
        self._writing, state, self.wal_damage = open_file(self.file)
        self._connections.append(self._writing)
        self.was_stopped = state.was_stopped
        self._writer = Writer(self._writing, self.file, sync)
        self._reader = Reader(self._connect(), self.file)
        copying = self._connect()
        with told(self.file):
            if sync == "off":
                copying.execute("PRAGMA main.synchronous = OFF")
            for each in (self.file, scratch_of(self.file)):
                self._indexes.append(WalIndex(each))
        self._checkpointer = Checkpointer(
            copying, self._indexes, self.file, self._sizes.wal_bytes_high
        )
        self._start()

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self.file)
        self._connections.append(connection)
        attach_scratch(connection, self.file)
        return connection

    def _start(self) -> None:
        """Notes in the file itself, and not only in its WAL, that the file is in use."""
        self._note(State(was_stopped=False), synced=False)
        with told(self.file):
            wal_bytes = preallocate_wal(self.file, self._sizes.wal_bytes_high)
            has_room = free_bytes(self.file) > wal_of(self.file).stat().st_size
        self._note(State(was_stopped=False, wal_bytes=wal_bytes))
        if has_room:
            copy(self._writing, self.file)

    def _note(self, state: State, *, synced: bool = True) -> None:
        with self._writer.transaction(synced=synced):
            write_state(self._writing, state)

    def recover(self) -> Recovered:
        """What a broker finds that starts on this file; spilled messages are gone.

        Raises:
            StorageError: something of it is not as it was written; the text says what.
        """
        with transaction(self._writing, self.file):
            empty_scratch(self._writing)
        return recover(self._writing, self.file)

    def commit(self, batch: Batch) -> int:
        """Makes a batch durable; its ticket.

        Raises:
            StoreFull: there is no room; nothing of it was written, and it can be tried again.
            StorageError: it cannot be said whether it was written. Nothing more may be promised.
        """
        self._writer.commit(batch)
        return batch.ticket

    def fetch(self, fetch: Fetch) -> Fetched:
        """Reads messages back; raises StorageError if the file cannot be read."""
        return self._reader.fetch(fetch)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether `copy` should be called."""
        return self._checkpointer.is_due

    def copy(self) -> None:
        """The long part of a checkpoint; raises StorageError if the file cannot be written."""
        self._checkpointer.copy()
        self._rest_to_copy = True

    def tidy(self, *, idle: bool) -> bool:
        """One step of what can wait until no batch does; whether there is more to do.

        Args:
            idle: nothing was committed for a while.

        Raises:
            StoreFull, StorageError: as `commit`.
        """
        if (self._rest_to_copy or (idle and self.needs_checkpoint)) and self._copy_rest():
            return True
        if not self._writer.swept:
            self._writer.sweep()
            return True
        if not idle:
            return False
        if shrink(self._writing, self.file, self._sizes.free_bytes_min):
            self._shrunk = True
            return True
        # The file is cut when all that was moved in it has been copied.
        self._rest_to_copy, self._shrunk = self._shrunk, False
        return self._rest_to_copy

    def _copy_rest(self) -> bool:
        """The short part of a checkpoint; whether anything could be copied. What another process
        is still reading over cannot."""
        self._rest_to_copy = False
        before = self._checkpointer.bytes_to_copy
        copy(self._writing, self.file)
        return self._checkpointer.bytes_to_copy < before

    def close(self, *, in_order: bool = True) -> None:
        """Closes the file; may be called again.

        Args:
            in_order: all that was handed over is committed.

        Raises:
            StorageError: it could not be noted that all is in order.
        """
        if self._closed:
            return
        self._closed = True
        try:
            # The WAL goes, in good order or not.
            self._note(State(was_stopped=in_order))
        except StorageError:
            if in_order:
                raise
        finally:
            self._release()

    def _release(self) -> None:
        """Closes what is open. The last connection copies what is left of the WAL and removes it;
        only then may the indexes be closed."""
        for connection in self._connections:
            connection.close()
        for index in self._indexes:
            index.close()
        with told(self.file):
            remove_scratch(self.file)
