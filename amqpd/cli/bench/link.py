"""One connection with one channel: the handshake, and calls that wait for their answer."""

import socket
from typing import Any, Self, TypeVar

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import CHANNEL
from amqpd.cli.bench.uri import Address
from amqpd.errors import AmqpError
from amqpd.version import VERSION
from amqpd.wire import frames, methods
from amqpd.wire.constants import FRAME_METHOD, PROTOCOL_HEADER
from amqpd.wire.methods import Basic, Channel, Connection

TIMEOUT_S = 10.0
FRAME_BYTES_MAX = 128 * 1024
READ_BYTES = 64 * 1024
M = TypeVar("M", bound=methods.Method)


def refusal(method: methods.Method) -> BenchError | None:
    """The error that a method from the broker means to a load generator, if it means one."""
    if isinstance(method, Connection.Close):
        return BenchError(
            f"the broker closed the connection: {method.reply_code} {method.reply_text}"
        )
    if isinstance(method, Channel.Close):
        return BenchError(f"the broker closed the channel: {method.reply_code} {method.reply_text}")
    if isinstance(method, Basic.Cancel):
        return BenchError(f"the broker cancelled the consumer {method.consumer_tag}")
    return None


class Link:
    """A connection to the broker with channel 1 open.

    Attributes:
        sock: blocking with a time limit until `start()`, then not blocking.
        frame_bytes_max: as negotiated.
        server_properties: what the broker says about itself.
    """

    def __init__(self, sock: socket.socket, address: Address) -> None:
        """A link over a socket on which channel 1 is open already; `connect` is the usual way."""
        self.sock = sock
        self.address = address
        self.frame_bytes_max = FRAME_BYTES_MAX
        self.server_properties: dict[str, Any] = {}
        self._input = b""

    @classmethod
    def connect(cls, address: Address, name: str) -> Self:
        """Connects, logs in and opens channel 1.

        Args:
            name: what the broker's operator sees as the connection's name.

        Raises:
            BenchError: unreachable, not an AMQP 0-9-1 broker, or it refuses us.
        """
        try:
            sock = socket.create_connection((address.host, address.port), TIMEOUT_S)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BenchError(f"cannot reach {address}: {reason}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = cls(sock, address)
        try:
            link._handshake(name)
        except BaseException:
            sock.close()
            raise
        return link

    def _handshake(self, name: str) -> None:
        address = self.address
        self.send(PROTOCOL_HEADER)
        self.server_properties = dict(self.wait(Connection.Start).server_properties or {})
        capabilities: dict[str, Any] = {
            "authentication_failure_close": True,
            "basic.nack": True,
            "connection.blocked": True,
            "consumer_cancel_notify": True,
            "publisher_confirms": True,
        }
        properties: dict[str, Any] = {
            "product": "amqpd bench",
            "version": VERSION,
            "connection_name": name,
            "capabilities": capabilities,
        }
        response = f"\0{address.user}\0{address.password}"
        self.call(0, Connection.StartOk(properties, "PLAIN", response))
        tune = self.wait(Connection.Tune)
        self.frame_bytes_max = min(tune.frame_max or FRAME_BYTES_MAX, FRAME_BYTES_MAX)
        self.call(0, Connection.TuneOk(tune.channel_max, self.frame_bytes_max, 0))
        self.call(0, Connection.Open(virtual_host=address.vhost), Connection.OpenOk)
        self.call(CHANNEL, Channel.Open(), Channel.OpenOk)

    def send(self, data: bytes) -> None:
        """Sends all of it; only before `start()`."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise self.lost(error) from error

    def call(self, channel: int, method: methods.Method, answer: type[M] | None = None) -> M | None:
        """Sends a method and, if `answer` is given, waits for it."""
        self.send(methods.encode_method(channel, method))
        return self.wait(answer) if answer else None

    def wait(self, answer: type[M]) -> M:
        """The next method, which must be `answer`; only before `start()`.

        Raises:
            BenchError: the broker says something else, or nothing for ten seconds.
        """
        while True:
            method = self._next_method(answer.name)
            if isinstance(method, answer):
                return method
            error = refusal(method)
            if error:
                raise error
            if not isinstance(method, Connection.Blocked | Connection.Unblocked):
                raise BenchError(f"the broker sent {method.name} where {answer.name} was due")

    def _next_method(self, awaited: str) -> methods.Method:
        while True:
            if self._input.startswith(b"AMQP"):
                raise BenchError(f"{self.address} does not speak AMQP 0-9-1")
            try:
                frame = frames.cut(self._input, 0, 0)
            except AmqpError as error:
                raise BenchError(f"{self.address} does not speak AMQP 0-9-1") from error
            if frame is not None:
                self._input = self._input[frame.end :]
                if frame.type == FRAME_METHOD:
                    return methods.decode_method(frame.payload)
                continue
            self._input += self._read(awaited)

    def _read(self, awaited: str) -> bytes:
        try:
            data = self.sock.recv(READ_BYTES)
        except TimeoutError as error:
            text = f"{self.address} did not send {awaited} within {TIMEOUT_S:.0f} s"
            raise BenchError(text) from error
        except OSError as error:
            raise self.lost(error) from error
        if not data:
            raise self.lost(None, awaited)
        return data

    def lost(self, error: OSError | None, awaited: str = "") -> BenchError:
        """The error for a connection that has gone without a word."""
        reason = (error.strerror or str(error)) if error else "it closed the connection"
        if awaited == "Connection.Tune":
            reason += f" after the login of user {self.address.user}"
        elif awaited == "Connection.OpenOk":
            reason += f" when virtual host {self.address.vhost} was opened"
        return BenchError(f"lost the connection to {self.address}: {reason}")

    def start(self) -> bytes:
        """Makes the socket non-blocking for the load; returns what has been read but not used."""
        self.sock.setblocking(False)
        rest, self._input = self._input, b""
        return rest

    def close(self, unsent: bytes | memoryview = b"") -> None:
        """Says goodbye, so that no broker logs a client that vanished, and closes the socket.

        Args:
            unsent: the rest of a frame that must come first.
        """
        try:
            self.sock.settimeout(2.0)
            self.sock.sendall(unsent)
            self.sock.sendall(methods.encode_method(0, Connection.Close(200, "OK", 0, 0)))
            farewell = methods.encode_method(0, Connection.CloseOk())
            tail = b""
            while not tail.endswith(farewell):
                data = self.sock.recv(READ_BYTES)
                if not data:
                    break
                tail = (tail + data)[-len(farewell) :]
        except OSError:
            # The run is over and its figures are taken: a broker that is gone changes nothing.
            pass
        finally:
            self.sock.close()
