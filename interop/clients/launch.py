"""Starts amqpd as a subprocess on a free port and keeps what it logs."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

READY = re.compile(r"ready: amqp://127\.0\.0\.1:(\d+)")
# What a log must never hold, whatever clients do: a bug, not a client's mistake.
BUG = re.compile(r"Traceback|INTERNAL_ERROR|internal error", re.IGNORECASE)


class Amqpd:
    """A running amqpd; `log` holds its lines so far (stdout and stderr together).

    Raises RuntimeError, with the log, if it is not ready within `within` seconds.
    """

    def __init__(self, data_dir: Path, *options: str, within: float = 15.0) -> None:
        self.log: list[str] = []
        self._ready = threading.Event()
        self._port = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "amqpd", "--port", "0", "--data-dir", str(data_dir), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._ready.wait(within) or not self._port:
            self.process.kill()
            raise RuntimeError("amqpd did not become ready:\n" + "\n".join(self.log))

    @property
    def uri(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def bugs(self) -> list[str]:
        """The lines of the log that only a bug in the broker can have caused."""
        return [line for line in self.log if BUG.search(line)]

    def stop(self, within: float = 10.0) -> int:
        """Asks it to stop and returns its exit status (negative: the signal that ended it)."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(within)
        return self.process.returncode

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line.rstrip("\n"))
            if not self._port and (match := READY.search(line)):
                self._port = int(match.group(1))
                self._ready.set()
        self._ready.set()  # the end of its output ends the wait too
