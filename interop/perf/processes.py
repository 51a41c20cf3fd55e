"""What the operating system knows about a broker's processes: a broker is one process session."""

import os
import signal
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat behind the command name, which may hold spaces.
SESSION, USER_TICKS, SYSTEM_TICKS, RESIDENT_PAGES = 3, 11, 12, 21


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

    def _stats(self) -> list[list[str]]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we were looking
            if int(fields[SESSION]) == self._process.pid:
                found.append(fields)
        return found

    def cpu_s(self) -> float:
        """Processor time spent so far by those that still run, in seconds."""
        stats = self._stats()
        ticks = sum(int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS]) for fields in stats)
        return ticks / TICKS

    def memory_bytes(self) -> int:
        """Resident memory."""
        return sum(int(fields[RESIDENT_PAGES]) for fields in self._stats()) * PAGE_BYTES

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
