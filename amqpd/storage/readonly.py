"""The file as others than its broker read it: never written, maybe in use, maybe damaged.

A read is short: while one lasts, the broker's WAL cannot begin anew and grows with all that is
written. Nothing is printed or waited for within one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from amqpd.storage.database import BUSY_S
from amqpd.storage.errors import StorageError
from amqpd.storage.schema import APPLICATION_ID, VERSION
from amqpd.storage.wal import wal_of

_NOT_ALLOWED: Final = frozenset(
    (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
)
_HELD_UP: Final = frozenset(
    (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT)
)

# What SQLite and Python say of bytes that make no sense.
UNREADABLE: Final = (sqlite3.Error, MemoryError)


def connect_read_only(file: Path, patience_s: float = BUSY_S) -> sqlite3.Connection:
    """A connection that cannot write, and reads what it can of a damaged file.

    Texts are str where they are UTF-8 and else bytes.

    Args:
        patience_s: how long another process may hold a lock.

    Raises:
        StorageError: the file cannot be opened; the text says why.
    """
    connection = _open(file, "mode=ro", patience_s)
    try:
        _look(connection)
    except sqlite3.Error as error:
        if _code(error) not in _NOT_ALLOWED:
            return connection  # what is wrong with it is for those to see who read
        connection.close()
        if _has_wal(file):
            raise StorageError(
                f"{file} cannot be read ({error}): its WAL needs files beside it that this user"
                " cannot make; run this as the broker's user, or on a copy of all files"
            ) from error
        # It is whole without anything beside it, and whoever cannot write here has no broker here.
        connection = _open(file, "immutable=1", patience_s)
    return connection


def _open(file: Path, how: str, patience_s: float) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?{how}", uri=True, timeout=patience_s, isolation_level=None
        )
    except sqlite3.Error as error:
        raise StorageError(f"{file} cannot be read: {error}") from error
    connection.text_factory = _text
    # Else SQLite reads nothing of a file that is cut short, or of one with a single wrong table.
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _look(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _has_wal(file: Path) -> bool:
    try:
        return wal_of(file).stat().st_size > 0
    except OSError:
        return False


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class Identity(NamedTuple):
    """What a file says that it is."""

    tables: int
    application: int
    version: int


def identify(connection: sqlite3.Connection, file: Path) -> Identity:
    """What a file says that it is.

    Raises:
        sqlite3.Error: nothing of it can be read.
        StorageError: it is of a newer version.
    """
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID and version > VERSION:
        raise StorageError(
            f"{file} was written by a newer amqpd (schema {version}, this one knows {VERSION});"
            " use that version"
        )
    return Identity(tables, application, version)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read within is of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def insist_on_damage(error: BaseException, file: Path) -> None:
    """Raises StorageError if it is not the file's content that could not be read."""
    if isinstance(error, sqlite3.Error) and _code(error) in _HELD_UP | _NOT_ALLOWED:
        raise StorageError(f"{file} cannot be read now: {error}") from error


def _code(error: sqlite3.Error) -> int:
    """The primary result code."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
