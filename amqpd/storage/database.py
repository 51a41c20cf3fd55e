"""Connections to the file and to the scratch file beside it, and SQLite's errors in our words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from amqpd.storage import schema
from amqpd.storage.errors import StorageError, StoreFull
from amqpd.storage.wal import damage, read_wal

PAGE_BYTES: Final = 4096
CACHE_KIB: Final = 4096  # a connection's page cache
STATEMENTS: Final = 256  # that a connection remembers
WAL_BYTES_KEPT: Final = 67_108_864  # a WAL that has grown beyond is cut when it begins anew
BUSY_S: Final = 10.0  # how long another process (a backup) may hold a lock

FULL: Final = frozenset((sqlite3.SQLITE_FULL,))
# What SQLite says, in some places, when the system had no room left.
FULL_PERHAPS: Final = frozenset(
    (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE)
)
ROOM_BYTES_MIN: Final = 1_048_576

DAMAGED: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
ADVICE: Final = (
    "see what is damaged with `amqpd store check`, get out what can be got out with `amqpd store"
    " export`, and start with another directory or a backup"
)


def scratch_of(file: Path) -> Path:
    """The scratch file that belongs to a file."""
    return file.with_name(f"{file.stem}-scratch{file.suffix}")


def remove_scratch(file: Path) -> None:
    """Forgets what need not outlive the process."""
    scratch = scratch_of(file)
    for suffix in ("", "-wal", "-shm"):
        scratch.with_name(scratch.name + suffix).unlink(missing_ok=True)


def connect(file: Path) -> sqlite3.Connection:
    """A connection for one thread at a time; statements run outside of transactions by default.

    Raises:
        StorageError: the file cannot be opened.
    """
    with told(file):
        connection = sqlite3.connect(
            file,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
        )
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # upkeep.py does it
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    return connection


def attach_scratch(connection: sqlite3.Connection, file: Path) -> None:
    """Makes the scratch file, which must not outlive the process, part of a connection."""
    with told(file):
        connection.execute("ATTACH DATABASE ? AS scratch", (str(scratch_of(file)),))
        connection.execute("PRAGMA scratch.secure_delete = OFF")
        connection.execute("PRAGMA scratch.journal_mode = WAL")
        connection.execute("PRAGMA scratch.synchronous = OFF")


def open_file(file: Path) -> tuple[sqlite3.Connection, str]:
    """Opens the file, makes it if there is none, and brings it to the version of this amqpd.

    Returns a connection with an empty scratch file, and what is wrong with the WAL, if anything is.

    Raises:
        StorageError: it is no file of amqpd, one of a newer version, damaged, or cannot be written.
    """
    found = read_wal(file)
    connection = connect(file)
    try:
        with told(file):
            _prepare(connection, file)
            wal_damage = ""
            if found.commits or not found.is_readable:
                checkpoint = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                wal_damage = damage(found, checkpoint[1], file)
            remove_scratch(file)
            attach_scratch(connection, file)
            schema.make_scratch(connection)
    except BaseException:
        connection.close()
        raise
    return connection, wal_damage


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != schema.APPLICATION_ID:
        raise StorageError(f"{file} is not a file of amqpd; move it away")
    if version > schema.VERSION:
        raise StorageError(
            f"{file} was written by a newer amqpd (schema {version}, this one knows"
            f" {schema.VERSION}); install that version again"
        )
    if not tables:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StorageError(f"{file} cannot be used: its file system does not allow WAL")
    if version < schema.VERSION:
        schema.migrate(connection)


@contextmanager
def told(file: Path) -> Iterator[None]:
    """Turns SQLite's errors into StorageError, or StoreFull where there is no room."""
    try:
        yield
    except sqlite3.Error as error:
        raise _in_our_words(file, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"no room to write {file}") from error
        raise StorageError(f"{file} cannot be used: {error.strerror or error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection, file: Path) -> Iterator[None]:
    """A transaction that is committed at the end, or undone where an exception ends it.

    Raises:
        StorageError, StoreFull: as `told`.
    """
    with told(file):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise


def _in_our_words(file: Path, error: sqlite3.Error) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in FULL or (code in FULL_PERHAPS and _is_full(file)):
        return StoreFull(f"no room to write {file}")
    if code & 0xFF in DAMAGED:
        return StorageError(f"{file} is damaged ({error}): {ADVICE}")
    if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageError(
            f"{file} cannot be written ({error}): allow it to this user, or give another directory:"
            " --data-dir"
        )
    return StorageError(f"{file} cannot be used: {error} ({name})")


def _is_full(file: Path) -> bool:
    try:
        found = os.statvfs(file.parent)
    except OSError:
        return False  # then it is another trouble
    return found.f_bavail * found.f_frsize < ROOM_BYTES_MIN
