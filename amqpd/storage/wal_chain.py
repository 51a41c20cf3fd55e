"""How far a WAL is whole, found out without SQLite: also while a broker writes it.

Each frame's checksum goes on from that of the frame before it, so that a WAL is a chain; SQLite
reads it, after a crash, up to the first frame that breaks it.

Source: SQLite, "Database File Format", section 4 (the write-ahead log).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from amqpd.storage.wal import damage, read_wal, wal_of

_HEADER_BYTES: Final = 32
_SUMMED: Final = 24  # bytes of the header that its checksum is of
_FRAME_HEADER_BYTES: Final = 24
_LOOKS_MAX: Final = 20


def find_damage(file: Path) -> str:
    """What is wrong with the WAL of a file that may be in use; empty if nothing is.

    Raises:
        OSError: it cannot be read.
    """
    for _ in range(_LOOKS_MAX):
        begun = _header(file)
        # The commits are found first: whatever stands before one of them is complete by then.
        found = read_wal(file)
        told = damage(found, last_whole_frame(file), file)
        if not told or _header(file) == begun:
            return told
    return ""  # it begins anew all the time, so it is well


def last_whole_frame(file: Path) -> int:
    """The number, from 1, of the last frame up to which the WAL is as it was written; 0 for none.

    Raises:
        OSError: it cannot be read.
    """
    header = _header(file)
    if len(header) < _HEADER_BYTES:
        return 0
    order = ">" if header[3] & 1 else "<"
    sums = _add((0, 0), header[:_SUMMED], order)
    if sums != struct.unpack(">2I", header[_SUMMED:]):
        return 0
    last = 0
    for number, frame in enumerate(_frames(file, int.from_bytes(header[8:12], "big")), 1):
        sums = _add(_add(sums, frame[:8], order), frame[_FRAME_HEADER_BYTES:], order)
        if frame[8:16] != header[16:24] or sums != struct.unpack_from(">2I", frame, 16):
            break
        last = number
    return last


def _header(file: Path) -> bytes:
    try:
        opened = os.open(wal_of(file), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(opened, _HEADER_BYTES, 0)
    finally:
        os.close(opened)


def _frames(file: Path, page_bytes: int) -> Iterator[bytes]:
    """All complete frames, whole or not."""
    size = _FRAME_HEADER_BYTES + page_bytes
    try:
        opened = os.open(wal_of(file), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the broker has stopped meanwhile
    try:
        place = _HEADER_BYTES
        while len(frame := os.pread(opened, size, place)) == size:
            yield frame
            place += size
    finally:
        os.close(opened)


def _add(sums: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    """The checksum of what it is of so far and of `data`."""
    first, second = sums
    for even, odd in struct.iter_unpack(f"{order}2I", data):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
