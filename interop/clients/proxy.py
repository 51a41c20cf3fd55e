"""A TCP proxy between a client and the broker that can cut, freeze and watch.

It makes tests of broken connections independent of the broker: no management call, no restart.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

HEARTBEAT = bytes([8, 0, 0, 0, 0, 0, 0, 0xCE])
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST


class Proxy:
    """Listens on a free port of 127.0.0.1; `uri` is the broker's with that port in it."""

    def __init__(self, broker_uri: str) -> None:
        parts = urlsplit(broker_uri)
        self._broker = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        login = parts.netloc.rpartition("@")[0] or "guest:guest"
        self.uri = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        self.accepted = 0
        self.dropped_by_broker = 0
        self.heartbeats = {"client": 0, "broker": 0}
        self._flows = threading.Event()
        self._flows.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Resets every connection; new ones are welcome."""
        pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            # The other side may have gone first: then there is nothing left to cut.
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            end.close()

    def freeze_client(self) -> None:
        """Passes on nothing more from clients: to the broker they look unresponsive."""
        self._flows.clear()

    def thaw_client(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self.thaw_client()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._broker)
                self.accepted += 1
                self._pairs.append((client, broker))
                for source, target, sender in (
                    (client, broker, "client"),
                    (broker, client, "broker"),
                ):
                    threading.Thread(
                        target=self._pass_on, args=(source, target, sender), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, sender: str) -> None:
        tail = b""
        with contextlib.suppress(OSError):  # either side is gone: so is this direction
            while data := source.recv(65536):
                if sender == "client":
                    self._flows.wait()
                target.sendall(data)
                seen = tail + data
                self.heartbeats[sender] += seen.count(HEARTBEAT)
                tail = seen[-len(HEARTBEAT) + 1 :]
        if sender == "broker" and any(source in pair for pair in self._pairs):
            self.dropped_by_broker += 1
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxied(broker_uri: str) -> Iterator[Proxy]:
    proxy = Proxy(broker_uri)
    try:
        yield proxy
    finally:
        proxy.close()
