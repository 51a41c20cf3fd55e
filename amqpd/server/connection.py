"""One socket and its session: bytes in, bytes out, and nothing said twice.

A socket has one task, which reads. Output is written at once when a turn has made some; only when
the client's side is full does a second task wait for room, and meanwhile new output gathers in the
session, which is bounded there (`limits.output_bytes_high`).
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import trio

from amqpd.log import EventLog
from amqpd.session.connection import Peer

if TYPE_CHECKING:
    from amqpd.server.broker_server import BrokerServer

log = EventLog("connection")

READ_BYTES_MAX = 262_144
# A client that does not read is not read either, once replies to it (which deliveries are not: those
# stop at output_bytes_high) have grown to this many times output_bytes_high.
UNREAD_FACTOR = 16
HANG_UP_S = 1.0  # a client that was told all there is has this long to close its side
GONE = frozenset((errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNABORTED))


class Connection:
    """A client's socket, non-blocking."""

    def __init__(self, server: BrokerServer, sock: socket.socket, peer: Peer) -> None:
        self._server = server
        self._socket = sock
        self._peer = peer
        self._unsent: memoryview | bytes = b""
        self._writing = False
        self._closed = False
        self._unread_bytes_max = server.config.limits.output_bytes_high * UNREAD_FACTOR
        self._drained = trio.Event()
        self.session = server.core.connected(peer, trio.current_time())

    async def run(self) -> None:
        """Reads until either side closes."""
        try:
            while not self._closed:
                data = await self._read()
                if not data:
                    break
                self._server.core.received(self.session, data, trio.current_time())
                self._server.turn()
                if self._writing and self.session.output.size > self._unread_bytes_max:
                    self._drained = trio.Event()
                    await self._drained.wait()
        except OSError as error:
            self._lost(error)
        except trio.ClosedResourceError:
            pass  # closed by the writing side
        finally:
            self.close()
            self._server.core.disconnected(self.session, trio.current_time())
            self._server.turn()

    async def _read(self) -> bytes:
        """The next bytes; empty when the client has closed its side or this side has."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(READ_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                continue

    def flush(self) -> None:
        """Writes what the session has to say, as far as the socket takes it."""
        if self._writing or self._closed:
            return
        data = self.session.take_output()
        sent = self._send(data) if data else 0
        if self._closed:
            return
        if sent < len(data) or self.session.clogged:
            self._unsent = memoryview(data)[sent:]
            self._writing = True
            self._server.start(self._write)
        elif self.session.closing:
            self._hang_up()

    def _send(self, data: bytes | memoryview) -> int:
        """How much the socket took; a broken one is closed."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._lost(error)
            self.close()
            return 0

    async def _write(self) -> None:
        """Writes the rest when the client has made room, then what has gathered meanwhile."""
        try:
            while not self._closed:
                await trio.lowlevel.wait_writable(self._socket)
                self._unsent = self._unsent[self._send(self._unsent) :] if self._unsent else b""
                if not self._unsent:
                    break
        except trio.ClosedResourceError:
            return  # closed by the reading task
        finally:
            self._writing = False
            self._drained.set()
        if self.session.clogged:
            self._server.core.drained(self.session, trio.current_time())
        self.flush()
        self._server.turn()

    def _hang_up(self) -> None:
        """Closes our side, and the socket when the client has closed its own or a while after."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(error)
            self.close()
        else:
            self._server.start(self._close_later)

    async def _close_later(self) -> None:
        await trio.sleep(HANG_UP_S)
        self.close()

    def close(self) -> None:
        """Closes the socket; the reading task notices."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._drained.set()

    def _lost(self, error: OSError) -> None:
        """The socket broke. A client that is gone is no error of ours."""
        if error.errno not in GONE and error.errno != errno.ENOTCONN:
            log.warning("socket error", connection=self._peer.name, error=str(error))
        else:
            log.debug("client is gone", connection=self._peer.name, error=str(error))
