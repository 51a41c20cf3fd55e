"""An AMQP client on a bare socket: it does what it is told, well behaved or not."""

import socket
import struct
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import base, body, commands, exceptions, frame, header

HEADER = b"AMQP\x00\x00\x09\x01"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST
TIMEOUT_S = 40.0  # RabbitMQ waits 30 s for the answer to its connection.close
FRAME_BODY_BYTES = 131_072 - 8


class RawClient:
    """A connection with channels as far as `handshake` and `open_channel` have taken it.

    Every wait is bounded: TimeoutError after TIMEOUT_S. ConnectionError when the broker hangs up.
    """

    def __init__(self, uri: str, receive_buffer: int = 0) -> None:
        parts = urlsplit(uri)
        self._login = (
            f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
        )
        self._vhost = unquote(parts.path[1:]) or "/"
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect((parts.hostname, parts.port or 5672))
        self._received = b""

    def handshake(self, heartbeat: int = 0) -> "RawClient":
        self.socket.sendall(HEADER)
        self.expect(commands.Connection.Start)
        self.send(0, commands.Connection.StartOk(mechanism="PLAIN", response=self._login))
        tune = self.expect(commands.Connection.Tune)
        self.send(
            0,
            commands.Connection.TuneOk(tune.channel_max, tune.frame_max, heartbeat),
            commands.Connection.Open(self._vhost),
        )
        self.expect(commands.Connection.OpenOk)
        return self

    def open_channel(self, number: int = 1) -> "RawClient":
        self.send(number, commands.Channel.Open())
        self.expect(commands.Channel.OpenOk)
        return self

    def send(self, channel: int, *frames: Any) -> None:
        self.socket.sendall(b"".join(frame.marshal(each, channel) for each in frames))

    def call(self, channel: int, method: base.Frame, answer: type) -> Any:
        self.send(channel, method)
        return self.expect(answer)

    def declare(self, queue: str, channel: int = 1, **options: Any) -> str:
        return self.call(
            channel, commands.Queue.Declare(queue=queue, **options), commands.Queue.DeclareOk
        ).queue

    def publish(self, queue: str, content: bytes, count: int = 1, channel: int = 1) -> None:
        method = commands.Basic.Publish(routing_key=queue)
        head = header.ContentHeader(0, len(content), commands.Basic.Properties())
        bodies = [
            body.ContentBody(content[start : start + FRAME_BODY_BYTES])
            for start in range(0, len(content), FRAME_BODY_BYTES)
        ]
        message = b"".join(frame.marshal(each, channel) for each in (method, head, *bodies))
        self.socket.sendall(message * count)

    def expect(self, kind: type) -> Any:
        """The next frame of this kind; what comes before it is dropped.

        AssertionError if the broker closes the channel or the connection instead.
        """
        closes = (commands.Channel.Close, commands.Connection.Close)
        while True:
            found = self._next_frame()
            if isinstance(found, kind):
                return found
            if isinstance(found, closes):
                raise AssertionError(f"expected {kind.name}, got {found.reply_text}")

    def expect_close(self) -> None:
        """Until the broker says why it is about to hang up."""
        while not isinstance(self._next_frame(), commands.Connection.Close):
            pass

    def wait_for_end(self) -> None:
        """Until the broker has hung up, with whatever it says before."""
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while self.socket.recv(65_536):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the broker has not hung up within {TIMEOUT_S} s")
        except ConnectionError:
            return

    def hang_up(self) -> None:
        """Closes the socket without a word of AMQP."""
        self.socket.close()

    def reset(self) -> None:
        """Closes it with RST, as the kernel of a crashed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()

    def close(self) -> None:
        self.call(0, commands.Connection.Close(200, "OK", 0, 0), commands.Connection.CloseOk)
        self.socket.close()

    def _next_frame(self) -> Any:
        while True:
            try:
                used, _, found = frame.unmarshal(self._received)
            except exceptions.UnmarshalingException:  # it has not arrived as a whole
                data = self.socket.recv(65_536)
                if not data:
                    raise ConnectionError("the broker hung up") from None
                self._received += data
            else:
                self._received = self._received[used:]
                return found
