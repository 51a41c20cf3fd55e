"""What the kernel says about the broker's process."""

import os
from pathlib import Path

MIB = 1024 * 1024


class Process:
    """Resident memory (bytes) and open file descriptors of a process of this machine."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")

    @property
    def resident_bytes(self) -> int:
        pages = int((self._proc / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        return len(os.listdir(self._proc / "fd"))
