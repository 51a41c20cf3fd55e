"""The broker under test: killed, and started again on the directory that the kill left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

# The interop rooms share how an amqpd looks when it starts; neither is a package to install.
sys.path.append(str(Path(__file__).parents[1] / "clients"))
from launch import BUG, READY

START_S_MAX = 20.0
STOP_S_MAX = 10.0


class Broker:
    """An amqpd that lives as often as it is started, always on the same data directory.

    Attributes:
        log: the lines of the present life, or of the last one.
        bugs: the lines of all lives that only a bug can have caused.
        environment: variables of the lives to come.
    """

    def __init__(self, data_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.environment = dict(environment or {})
        self.log: list[str] = []
        self.bugs: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = threading.Event()
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def uri(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    def start(self, within: float = START_S_MAX) -> float:
        """Starts it; the seconds until it was ready.

        Raises:
            RuntimeError: it was not ready within that time; the text holds its log.
        """
        begun = time.monotonic()
        self.launch()
        if not self._ready.wait(within) or not self._port:
            self.kill()
            raise RuntimeError("amqpd did not become ready:\n" + "\n".join(self.log[-30:]))
        return time.monotonic() - begun

    def launch(self) -> None:
        """Starts it without waiting until it is ready."""
        self.log, self._port = [], 0
        self._ready.clear()
        command = [sys.executable, "-m", "amqpd", "--port", "0"]
        command += ["--data-dir", str(self.data_dir), "--log-level", "warning"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | self.environment,
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """kill -9, if it runs."""
        self._end(signal.SIGKILL, STOP_S_MAX)

    def stop(self, within: float = STOP_S_MAX) -> int:
        """Asks it to stop; its exit status (-9: it did not stop and was killed)."""
        return self._end(signal.SIGTERM, within)

    def exit_status(self, within: float) -> int | None:
        """Waits for it to end by itself; None if it still runs then."""
        assert self._process is not None and self._reader is not None
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(STOP_S_MAX)
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Sends a signal and waits for nothing."""
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals, within: float) -> int:
        if self._process is None or self._reader is None:
            return 0
        self._process.send_signal(number)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_S_MAX)
        return self._process.returncode

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        log = self.log
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                log.append(line.rstrip("\n"))
                if BUG.search(line):
                    self.bugs.append(log[-1])
                if not self._port and (match := READY.search(line)):
                    self._port = int(match.group(1))
                    self._ready.set()
        self._ready.set()  # the end of its output ends the wait too
