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
from amqpd.session.output import Piece

if TYPE_CHECKING:
    from amqpd.server.broker_server import BrokerServer

log = EventLog("connection")

PIECES_MAX = 512  # a system takes at least so many in one call (IOV_MAX)
HANG_UP_S = 1.0  # a client that was told all there is has this long to close its side
GONE = frozenset((errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNABORTED))


class Connection:
    """A client's socket, non-blocking."""

    def __init__(self, server: BrokerServer, sock: socket.socket, peer: Peer) -> None:
        self._server = server
        self._socket = sock
        self._peer = peer
        self._unsent: list[Piece] = []
        self._writing = False
        self._closed = False
        self._hanging_up = False
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
                if self._writing and self.session.is_flooded():
                    self._drained = trio.Event()
                    await self._drained.wait()
                while self.session.flow.stopped and not self._closed:
                    await self._server.relieved.wait()
        except OSError as error:
            self._lost(error)
        except trio.ClosedResourceError:
            log.debug("closed by this side", connection=self._peer.name)
        except Exception as bug:
            # One connection must not take the others with it.
            log.exception("internal error", bug, connection=self._peer.name)
        finally:
            self.close()
            self._server.disconnected(self.session)

    async def _read(self) -> bytes:
        """The next bytes; empty when the client has closed its side or this side has."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(self.session.appetite())
            except (BlockingIOError, InterruptedError):
                continue

    def flush(self) -> None:
        """Writes what the session has to say, as far as the socket takes it."""
        if self._closed:
            return
        if self.session.closing and not self._hanging_up:
            # However slowly the client reads, or if it does not: it ends.
            self._hanging_up = True
            self._server.start(self._close_later)
        if self._writing:
            return
        self._unsent = self.session.take_pieces()
        took = bool(self._unsent)
        self._send()
        if self._closed:
            return
        if self._unsent or (took and self.session.clogged):
            self._writing = True
            self._server.start(self._write)
        elif self.session.closing:
            self._shut_down()

    def _send(self) -> None:
        """Sends as much of what is unsent as the socket takes; a broken one is closed."""
        pieces = self._unsent
        try:
            while pieces:
                sent = self._socket.sendmsg(pieces[:PIECES_MAX])
                pieces = self._unsent = _behind(pieces, sent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._unsent = []
            self._lost(error)
            self.close()

    async def _write(self) -> None:
        """Writes the rest when the client has made room, then what has gathered meanwhile."""
        try:
            while not self._closed:
                await trio.lowlevel.wait_writable(self._socket)
                self._send()
                if not self._unsent:
                    break
        except trio.ClosedResourceError:
            return  # closed by the reading task
        finally:
            self._writing = False
            self._drained.set()
        if self.session.clogged:
            self._server.drained(self.session)
        self.flush()
        self._server.turn()

    def _shut_down(self) -> None:
        """All is said: closes our side, and waits for the client to close its own."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(error)
            self.close()

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
            self._server.relieve()

    def _lost(self, error: OSError) -> None:
        """The socket broke. A client that is gone is no error of ours."""
        if error.errno not in GONE and error.errno != errno.ENOTCONN:
            log.warning("socket error", connection=self._peer.name, error=str(error))
        else:
            log.debug("client is gone", connection=self._peer.name, error=str(error))


def _behind(pieces: list[Piece], sent: int) -> list[Piece]:
    """What is left of the pieces behind the first `sent` bytes."""
    for place, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[place + 1 :]]
        sent -= len(piece)
    return []
