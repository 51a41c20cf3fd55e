"""What the operating system knows about a broker's processes: a broker is one process session."""

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat behind the command name, which may hold spaces.
SESSION, USER_TICKS, SYSTEM_TICKS, RESIDENT_PAGES = 3, 11, 12, 21
SAMPLE_S = 0.05
FORGET_PEAK = "5"  # what makes /proc/PID/clear_refs begin VmHWM anew


class ProcessSession:
    """A program and everything it has started, as long as it stays in the program's session."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._log = log

    def _stats(self) -> dict[int, list[str]]:
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we were looking
            if int(fields[SESSION]) == self._process.pid:
                found[int(entry.name)] = fields
        return found

    def cpu_s(self) -> float:
        """Processor time spent so far by those that still run, in seconds."""
        stats = self._stats().values()
        ticks = sum(int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS]) for fields in stats)
        return ticks / TICKS

    def memory_bytes(self) -> int:
        """Resident memory."""
        return sum(int(fields[RESIDENT_PAGES]) for fields in self._stats().values()) * PAGE_BYTES

    def pids(self) -> list[int]:
        """Those that run at present."""
        return list(self._stats())

    def pause(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def check(self) -> None:
        """Raises RuntimeError, with the end of what it printed, if the program has ended."""
        code = self._process.poll()
        if code is not None:
            text = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the broker ended with status {code}:\n{text}")

    def kill(self) -> None:
        """Kills without a word."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, within_s: float) -> None:
        """Asks politely, then kills."""
        if self._process.poll() is None:
            self.resume()
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


def peak_bytes(pid: int) -> int:
    """The most resident memory that the kernel has seen of a process; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 2**10
    return 0


class PeakMemory:
    """The most resident memory of a broker while the block runs.

    The kernel's own mark counts for each process; a sample every 50 ms counts for all together.

    Attributes:
        bytes: the peak, once the block is over.
    """

    def __init__(self, processes: ProcessSession) -> None:
        self.bytes = 0
        # Looked up once: going through all of /proc twenty times a second would be a load.
        self._pids = processes.pids()
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        for pid in self._pids:
            # Where the kernel does not let us, the mark is that of the whole life: never too low.
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text(FORGET_PEAK)
        self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._sampler.join()
        self.bytes = max(self.bytes, sum(map(peak_bytes, self._pids)))

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.bytes = max(self.bytes, sum(map(resident_bytes, self._pids)))
