"""Keeping the file in shape, off the hot path: checkpoints of the WAL, and shrinking.

A checkpoint copies what has been committed from the WAL into the file. The long part of it runs in
a thread and on a connection of its own, beside the writer. A WAL begins anew only when all of it
was copied while nobody wrote, so the writer's thread copies the short rest between two batches.

Source: SQLite, "Write-Ahead Logging", "WAL-mode File Format".
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from amqpd.storage.database import PAGE_BYTES, told
from amqpd.storage.wal import wal_of

SHRINK_PAGES: Final = 256  # given back to the system at once

_AMPLE: Final = 8  # times the WAL must be free for it to be given its size
_NUMBER: Final = struct.Struct("=I")
_ZEROS: Final = 1_048_576  # written at once
_MX_FRAME_OFFSET: Final = 16  # in the index: how many frames the WAL has
_COPIED_OFFSET: Final = 96  # and how many of them are in the file
_FRAME_BYTES: Final = PAGE_BYTES + 24


class Sizes(NamedTuple):
    """What upkeep goes by; tests have smaller ones.

    Attributes:
        wal_bytes_high: from here on the WAL is copied; so much room it is given beforehand.
        free_bytes_min: so much free space is left in the file for what comes next.
    """

    wal_bytes_high: int = 16_777_216
    free_bytes_min: int = 16_777_216


SIZES: Final = Sizes()


class WalIndex:
    """How much of a WAL is to be copied: its index says it, since the file stays long.

    The index is held open for as long as SQLite uses it: closing it would take away SQLite's locks.
    """

    def __init__(self, file: Path) -> None:
        self._index = os.open(file.with_name(file.name + "-shm"), os.O_RDONLY | os.O_CLOEXEC)

    @property
    def bytes_to_copy(self) -> int:
        """Bytes in the WAL that are not in the file yet."""
        header = os.pread(self._index, _COPIED_OFFSET + 4, 0)
        (frames,), (copied,) = (
            _NUMBER.unpack_from(header, offset) for offset in (_MX_FRAME_OFFSET, _COPIED_OFFSET)
        )
        return int(frames - copied) * _FRAME_BYTES

    def close(self) -> None:
        """Only when no connection of this process is open any more."""
        os.close(self._index)


def preallocate_wal(file: Path, wal_bytes: int) -> int:
    """Gives a WAL its size beforehand, while nobody writes: commits that need not grow the file
    take half the time. The size that it has from then on at least, which is less where room is
    short: what there is has better uses."""
    wal = os.open(wal_of(file), os.O_WRONLY | os.O_CLOEXEC)
    size = 0
    try:
        size = os.fstat(wal).st_size
        found = os.fstatvfs(wal)
        ample = found.f_bavail * found.f_frsize > wal_bytes * _AMPLE
        while ample and size < wal_bytes:
            size += os.pwrite(wal, bytes(min(_ZEROS, wal_bytes - size)), size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(wal)
    return min(size, wal_bytes)


class Checkpointer:
    """Copies what is committed into the file, through a connection of its own."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        indexes: Sequence[WalIndex],
        file: Path,
        wal_bytes_high: int,
    ) -> None:
        self._connection = connection
        self._indexes = indexes
        self._file = file
        self._wal_bytes_high = wal_bytes_high

    @property
    def is_due(self) -> bool:
        """Whether there is enough to copy."""
        return any(index.bytes_to_copy > self._wal_bytes_high for index in self._indexes)

    @property
    def bytes_to_copy(self) -> int:
        """How much there is to copy."""
        return sum(index.bytes_to_copy for index in self._indexes)

    def copy(self) -> None:
        """Copies what is committed now, while others read and write.

        Raises:
            StoreFull: there is no room for the file to grow.
            StorageError: the file cannot be written.
        """
        copy(self._connection, self._file)


def copy(connection: sqlite3.Connection, file: Path) -> None:
    """A checkpoint that waits for nobody."""
    with told(file):
        for schema in ("main", "scratch"):
            connection.execute(f"PRAGMA {schema}.wal_checkpoint(PASSIVE)").fetchone()


def shrink(connection: sqlite3.Connection, file: Path, free_bytes_min: int) -> bool:
    """Gives some of the file's free pages back to the system; whether that could be done."""
    with told(file):
        free = _free_pages(connection)
        spare = free - free_bytes_min // PAGE_BYTES
        if spare <= 0:
            return False
        pages = min(spare, SHRINK_PAGES)
        # Only a script is run to its end: SQLite hands back control behind each page.
        connection.executescript(f"PRAGMA main.incremental_vacuum({pages})")
        # A file that was rebuilt by other means may be one that cannot shrink.
        return _free_pages(connection) < free


def _free_pages(connection: sqlite3.Connection) -> int:
    (free,) = connection.execute("PRAGMA main.freelist_count").fetchone()
    return int(free)
