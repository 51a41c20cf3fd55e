"""Damage in a WAL that SQLite keeps quiet about.

SQLite reads a WAL up to the first frame that is not as it was written, and takes it for the place
where the power failed. But a transaction that promises something is written only when the one
before it is safe on the disk: where two commits stand behind the frame at which SQLite stopped, it
was hardly a crash that broke it. (Of what promises nothing, more may be under way to the disk when
the power fails; then the alarm is a false one.) Damage in the last transaction, and of the frame
that ends the one before it, cannot be told from a crash.

A WAL that is missing or has been cut is no damage to SQLite either, so the file says how long it is
at least.

Source: SQLite, "Database File Format", section 4 (the write-ahead log).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, sequence, salts, checksums
_FRAME: Final = struct.Struct(">4I")  # page, size of the file after a commit or 0, salts
_FRAME_HEADER_BYTES: Final = 24
_MAGICS: Final = (0x377F0682, 0x377F0683)
_COMMITS_BEHIND_A_CRASH_MAX: Final = 1


class WalContent(NamedTuple):
    """What stands in a WAL file.

    Attributes:
        commits: numbers of the frames that end a transaction, from 1.
        is_readable: its header is as it was written.
        size: in bytes; 0 if there is none.
    """

    commits: list[int]
    is_readable: bool
    size: int = 0


def wal_of(file: Path) -> Path:
    """The WAL that belongs to a file."""
    return file.with_name(file.name + "-wal")


def read_wal(file: Path) -> WalContent:
    """Looks at the WAL of a file that no process has open."""
    try:
        opened = os.open(wal_of(file), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return WalContent([], True)
    try:
        size = os.fstat(opened).st_size
        header = os.pread(opened, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return WalContent([], True, size)
        fields = _HEADER.unpack(header)
        if not _is_intact(header, fields):
            return WalContent([], size <= _HEADER.size + _FRAME_HEADER_BYTES, size)
        return WalContent(_commits(opened, size, fields), True, size)
    finally:
        os.close(opened)


def _is_intact(header: bytes, fields: tuple[int, ...]) -> bool:
    if fields[0] not in _MAGICS:
        return False
    order = ">" if fields[0] & 1 else "<"
    first = second = 0
    for even, odd in struct.iter_unpack(f"{order}2I", header[:24]):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return (first, second) == fields[6:8]


def _commits(opened: int, size: int, fields: tuple[int, ...]) -> list[int]:
    page_bytes, salts = fields[2], fields[4:6]
    found: list[int] = []
    frame_bytes = _FRAME_HEADER_BYTES + page_bytes
    for number, start in enumerate(range(_HEADER.size, size - frame_bytes + 1, frame_bytes), 1):
        _, file_pages, *frame_salts = _FRAME.unpack(os.pread(opened, _FRAME.size, start))
        if file_pages and tuple(frame_salts) == salts:
            found.append(number)
    return found


def damage(found: WalContent, last_frame: int, file: Path) -> str:
    """What is wrong, for a person; empty if nothing is.

    Args:
        last_frame: the last frame that SQLite takes for whole.
    """
    lost = sum(number > last_frame for number in found.commits)
    if not found.is_readable:
        return f"{wal_of(file)} is damaged at its begin: what was in it is lost"
    if lost > _COMMITS_BEHIND_A_CRASH_MAX:
        return f"{wal_of(file)} is damaged behind frame {last_frame}: {lost} commits are lost"
    return ""


def shortness(found: WalContent, size_min: int, file: Path) -> str:
    """What is wrong with the size of a WAL, for a person; empty if nothing is.

    Args:
        size_min: so long it was, in bytes, when the broker that was not stopped had begun.
    """
    if found.size >= size_min:
        return ""
    if not found.size:
        return f"there is no {wal_of(file)}: if this is no backup, what was in it is lost"
    return f"{wal_of(file)} has been cut: what was behind byte {found.size} is lost"
