"""The brokers that are compared: started here, or somewhere else and given by address."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import ProcessSession

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.uri import parse

START_S_MAX = 60.0
STOP_S_MAX = 20.0
REPOSITORY = Path(__file__).resolve().parents[2]
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One that is started here, with a directory of its own that goes when it stops.

    Attributes:
        start_s: from its last start to the first connection that it accepted, in seconds.
    """

    DATA = "data"  # where its data is in its directory

    def __init__(self, name: str) -> None:
        self.name = name
        self.uri = ""
        self.start_s = 0.0
        self._directory: Path | None = None
        self._port = 0
        self.processes: ProcessSession | None = None

    def fresh(self) -> "Broker":
        """Another one of the same kind, not started."""
        return type(self)(self.name)

    @property
    def data_directory(self) -> Path:
        """Where it keeps what is durable, while it is started."""
        assert self._directory is not None
        return self._directory / self.DATA

    def command(self, directory: Path, port: int) -> tuple[list[str], dict[str, str]]:
        """What to start, and the environment to start it in."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it with nothing in it.

        Raises:
            RuntimeError: it does not come up.
        """
        self._directory = Path(tempfile.mkdtemp(prefix=f"perf-{self.name}-"))
        self._port = free_port()
        self.uri = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        self.boot()

    def boot(self) -> None:
        """Starts its processes on the data that it has, and waits for an accepted connection.

        Raises:
            RuntimeError: it does not come up.
        """
        assert self._directory is not None
        command, env = self.command(self._directory, self._port)
        begun = time.monotonic()
        self.processes = ProcessSession(command, os.environ | env, self._directory / "output")
        while True:
            try:
                link = Link.connect(parse(self.uri), "perf start")
                break
            except BenchError as error:
                self.processes.check()
                if time.monotonic() - begun > START_S_MAX:
                    raise RuntimeError(f"{self.name} did not start: {error}") from error
                time.sleep(0.002)
        self.start_s = time.monotonic() - begun
        link.close()

    def pause(self) -> None:
        """Takes it off the processor while another broker is measured."""
        if self.processes:
            self.processes.pause()

    def resume(self) -> None:
        if self.processes:
            self.processes.resume()

    def kill(self) -> None:
        """kill -9; its data stays for the next `boot`."""
        if self.processes:
            self.processes.kill()
            self.processes = None

    def stop(self) -> None:
        if self.processes:
            self.processes.stop(STOP_S_MAX)
            self.processes = None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None


class Amqpd(Broker):
    """amqpd as it stands in this repository, or in another checkout of it."""

    def __init__(self, name: str, source: Path = REPOSITORY) -> None:
        super().__init__(name)
        self._source = source

    def fresh(self) -> Broker:
        return Amqpd(self.name, self._source)

    def command(self, directory: Path, port: int) -> tuple[list[str], dict[str, str]]:
        options = ["--port", str(port), "--data-dir", str(directory / self.DATA)]
        # -P: the folder that we happen to be in does not come before PYTHONPATH.
        command = [sys.executable, "-P", "-m", "amqpd", *options, "--log-level", "warning"]
        return command, {"PYTHONPATH": str(self._source)}


class RabbitMQ(Broker):
    """Debian's rabbitmq-server, apart from any that runs on the machine already."""

    DATA = "mnesia"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._epmd_port = 0

    def command(self, directory: Path, port: int) -> tuple[list[str], dict[str, str]]:
        if not RABBITMQ_SERVER.exists():
            raise RuntimeError(f"{RABBITMQ_SERVER} is missing: install rabbitmq-server")
        self._epmd_port = self._epmd_port or free_port()
        plugins = directory / "enabled_plugins"
        plugins.write_text("[].\n")
        return [str(RABBITMQ_SERVER)], {
            "HOME": str(directory),  # where Erlang keeps its cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"perf-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / self.DATA),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        }

    def stop(self) -> None:
        super().stop()
        if self._epmd_port:
            # Erlang's port mapper outlives its nodes; this one is ours alone.
            env = os.environ | {"ERL_EPMD_PORT": str(self._epmd_port)}
            subprocess.run(["epmd", "-kill"], env=env, capture_output=True, check=False)
            self._epmd_port = 0


class Running(Broker):
    """One that runs already: it is neither started, stopped nor paused here."""

    def __init__(self, name: str, uri: str) -> None:
        super().__init__(name)
        self.uri = uri

    def start(self) -> None:
        """Nothing to do."""


KINDS: dict[str, type[Broker]] = {"amqpd": Amqpd, "rabbitmq": RabbitMQ}
