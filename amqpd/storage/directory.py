"""The data directory: where it is, that it can be used, and that one broker alone uses it.

The lock is on a file beside the store, held by an open file: the system gives it back however the
process ends, and no lock is ever left behind that a person must remove. The lock file itself stays;
were it deleted, two processes could each hold the lock of a different file of that name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from amqpd.config.sources import data_dir
from amqpd.storage.errors import StorageError

FILE_NAME: Final = "amqpd.db"
LOCK_NAME: Final = "amqpd.lock"
PID_DIGITS_MAX: Final = 20

ANOTHER: Final = "another directory: --data-dir"
NOT_ALLOWED: Final = (errno.EACCES, errno.EPERM)
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class DataDirectory:
    """A data directory; from `open_directory` it is this process's alone until `close`.

    Attributes:
        path: the directory, absolute.
        file: the store in it.
    """

    def __init__(self, path: Path, lock: int | None = None) -> None:
        self.path = path
        self.file = path / FILE_NAME
        self._lock = lock

    def close(self) -> None:
        """Lets others have it; may be called again."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)


def open_directory(
    configured: str, environ: Mapping[str, str], platform: str = sys.platform
) -> DataDirectory:
    """Takes a data directory for this process alone; creates it where it is missing.

    Args:
        configured: as in `storage.data_dir`; empty means the platform's place.

    Raises:
        StorageError: another process has it, or it cannot be created or written.
    """
    path = _resolved(configured, environ, platform)
    try:
        _create(path)
    except OSError as error:
        raise _refusal("create", path, error) from error
    _insist_on_directory(path)
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refusal("write", path, error) from error
    try:
        _take(lock, path)
    except BaseException:
        os.close(lock)
        raise
    return DataDirectory(path, lock)


def find_directory(
    configured: str, environ: Mapping[str, str], platform: str = sys.platform
) -> DataDirectory:
    """A data directory to be read only, maybe while a broker uses it: not locked, not created.

    Raises:
        StorageError: there is none, it has no store, or it cannot be read.
    """
    found = DataDirectory(_resolved(configured, environ, platform))
    _insist_on_directory(found.path)
    # The store is looked at but not opened: the first close of a file takes away all locks that
    # the process has on it, and SQLite's are of that kind.
    try:
        found.file.stat()
    except FileNotFoundError as error:
        raise StorageError(
            f"data directory {found.path} has no {FILE_NAME}: no broker has kept anything there;"
            f" give {ANOTHER}"
        ) from error
    except OSError as error:
        raise _refusal("read", found.path, error) from error
    if not os.access(found.file, os.R_OK):
        refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(found.file))
        raise _refusal("read", found.path, refused)
    return found


def _resolved(configured: str, environ: Mapping[str, str], platform: str) -> Path:
    path = data_dir(configured, environ, platform)
    if path.startswith("~"):
        raise StorageError(
            f"data directory {path} cannot be found: there is no home directory; give {ANOTHER}"
        )
    if "\0" in path:
        raise StorageError(
            f"data directory {path!r} is not possible: NUL in a name; give {ANOTHER}"
        )
    return Path(path)


def _create(path: Path) -> None:
    """Makes the directory and those above it that are missing, for this user alone."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        _sync(each.parent)


def _sync(directory: Path) -> None:
    """Has the disk know of what was made in a directory; SQLite does it for its own files only."""
    # Some file systems cannot, and some directories may be written but not read: SQLite goes on
    # then, and so do we.
    with suppress(OSError):
        opened = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _insist_on_directory(path: Path) -> None:
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError as error:
        raise StorageError(f"there is no data directory {path}; give {ANOTHER}") from error
    except OSError as error:
        raise _refusal("read", path, error) from error
    if not is_directory:
        raise StorageError(
            f"data directory {path} is not a directory; move it away or give {ANOTHER}"
        )


def _take(lock: int, path: Path) -> None:
    """Locks the lock file, and writes into it who has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(
            f"data directory {path} is in use by another amqpd{_holder(lock)};"
            f" stop it or give this one {ANOTHER}"
        ) from error
    except OSError as error:
        raise _refusal("lock", path, error) from error
    # The lock holds without the number, and a full disk is no reason to stay away from a store
    # that consumers could empty.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)


def _holder(lock: int) -> str:
    """` (pid 4711)` as the lock file tells it; empty while its holder has not written yet."""
    written = os.pread(lock, PID_DIGITS_MAX, 0).strip()
    return f" (pid {int(written)})" if written.isdigit() else ""


def _refusal(what: str, path: Path, error: OSError) -> StorageError:
    """What could not be done to a data directory, why, and the way out."""
    if error.errno in NOT_ALLOWED:
        way_out = f"allow it to this user (uid {os.geteuid()}) or give {ANOTHER}"
    elif error.errno in NO_ROOM:
        way_out = f"make room on that disk or give {ANOTHER}"
    else:
        way_out = f"give {ANOTHER}"
    where = "" if error.filename in (None, str(path)) else f"{error.filename}: "
    return StorageError(
        f"cannot {what} data directory {path}: {where}{error.strerror or error}; {way_out}"
    )
