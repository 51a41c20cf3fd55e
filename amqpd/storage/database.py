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
from amqpd.storage.state import State, read_state
from amqpd.storage.wal import WalContent, damage, read_wal, shortness, wal_of

PAGE_BYTES: Final = 4096
CACHE_KIB: Final = 4096  # a connection's page cache
STATEMENTS: Final = 256  # that a connection remembers
WAL_BYTES_KEPT: Final = 67_108_864  # a WAL that has grown beyond is cut when it begins anew
BUSY_S: Final = 10.0  # how long another process (a backup) may hold a lock

FULL: Final = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE))
# What SQLite says, in some places, when the system had no room left.
FULL_PERHAPS: Final = frozenset((sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE))
ROOM_BYTES_MIN: Final = 1_048_576

# Where our statements fail, the file is not what it was when they were written.
DAMAGED: Final = frozenset(
    (
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR),
        *(sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH),
    )
)
NOT_ALLOWED: Final = frozenset(
    (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
)
IN_USE: Final = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))
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
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # upkeep.py does it
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        except BaseException:
            connection.close()
            raise
    return connection


def attach_scratch(connection: sqlite3.Connection, file: Path) -> None:
    """Makes the scratch file, which must not outlive the process, part of a connection."""
    with told(file):
        connection.execute("ATTACH DATABASE ? AS scratch", (str(scratch_of(file)),))
        connection.execute("PRAGMA scratch.secure_delete = OFF")
        connection.execute("PRAGMA scratch.journal_mode = WAL")
        connection.execute("PRAGMA scratch.synchronous = OFF")
        connection.execute(f"PRAGMA scratch.journal_size_limit = {WAL_BYTES_KEPT}")


def open_file(file: Path) -> tuple[sqlite3.Connection, State, str]:
    """Opens the file, makes it if there is none, and brings it to the version of this amqpd.

    Returns a connection with an empty scratch file, the state in which the file was left, and what
    is wrong with the WAL, if anything is.

    Raises:
        StorageError: it is no file of amqpd, one of a newer version, damaged, or cannot be written.
    """
    with told(file):
        _make_private(file)
        found = read_wal(file)
    connection = connect(file)
    try:
        with told(file):
            _prepare(connection, file)
            wal_damage = ""
            if found.commits or not found.is_readable:
                wal_damage = damage(found, _last_frame(connection, found, file), file)
            state = read_state(connection)
            if not wal_damage and not state.was_stopped:
                wal_damage = shortness(found, state.wal_bytes, file)
            remove_scratch(file)
            _make_private(scratch_of(file))
            attach_scratch(connection, file)
            schema.make_scratch(connection)
    except BaseException:
        connection.close()
        raise
    return connection, state, wal_damage


def _last_frame(connection: sqlite3.Connection, found: WalContent, file: Path) -> int:
    """The last frame of the WAL that SQLite takes for whole, which only a checkpoint tells.

    A checkpoint needs as much room as the WAL has, and takes what there is if that is less. One can
    do without it: then all frames are taken for whole.
    """
    if free_bytes(file) < wal_of(file).stat().st_size:
        return found.commits[-1] if found.commits else 0
    (_, frames, _) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(frames)


def _make_private(file: Path) -> None:
    """Makes a file for this user alone, where there is none; those beside it will be as it is."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != schema.APPLICATION_ID and (tables or application):
        raise StorageError(f"{file} is not a file of amqpd; move it away")
    if version > schema.VERSION:
        raise StorageError(
            f"{file} was written by a newer amqpd (schema {version}, this one knows"
            f" {schema.VERSION}); install that version again"
        )
    if not tables:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Should the first start be cut short, the next one goes on with it.
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
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
            raise _full(file) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _not_allowed(file, error.strerror) from error
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
    primary = code & 0xFF
    if code in FULL or (code in FULL_PERHAPS and _is_full(file)):
        return _full(file)
    # Python gives no code where a text is not UTF-8.
    if primary in DAMAGED or (not code and isinstance(error, sqlite3.OperationalError)):
        return damaged_file(file, error)
    if primary in NOT_ALLOWED:
        return _not_allowed(file, error)
    if primary in IN_USE:
        return StorageError(f"{file} is in use by another process ({error}); end that one")
    return StorageError(f"{file} cannot be used: {error} ({name}); see what is wrong with its disk")


def damaged_file(file: Path, what: object) -> StorageError:
    """What is told of a file that is not as it was written."""
    return StorageError(f"{file} is damaged ({what}): {ADVICE}")


def _not_allowed(file: Path, why: object) -> StorageError:
    return StorageError(
        f"{file} cannot be written ({why}): allow it to this user, or give another directory:"
        " --data-dir"
    )


def _full(file: Path) -> StoreFull:
    return StoreFull(f"no room to write {file}")


def _is_full(file: Path) -> bool:
    try:
        return free_bytes(file) < ROOM_BYTES_MIN
    except OSError:
        return False  # then it is another trouble


def free_bytes(file: Path) -> int:
    """Free room on the disk of a file."""
    found = os.statvfs(file.parent)
    return found.f_bavail * found.f_frsize
