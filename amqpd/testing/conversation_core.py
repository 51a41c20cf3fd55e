"""Conversations played on a Core: no sockets, no sleeping, time is a number."""

from random import Random

from amqpd.config import Config
from amqpd.core import Core
from amqpd.session.connection import Peer as Address
from amqpd.session.connection import Session
from amqpd.testing.conversation_play import Peer


class CorePeer:
    """A client of a Core."""

    def __init__(self, stage: "CoreStage", address: Address) -> None:
        self.closed = False
        self._stage = stage
        self._received = bytearray()
        self._session = stage.core.connected(address, stage.now)
        stage.peers[self._session] = self

    def send(self, data: bytes) -> None:
        if not self.closed:
            self._stage.core.received(self._session, data, self._stage.now)
            self._stage.settle()

    def receive(self, patience_s: float) -> bytes:
        self._stage.settle()
        data = bytes(self._received)
        self._received.clear()
        return data

    def close(self) -> None:
        if self._session in self._stage.peers:
            del self._stage.peers[self._session]
            self._stage.core.disconnected(self._session, self._stage.now)
            self._stage.settle()

    def take_output(self) -> None:
        """What a server does with a session that is ready: writes its output, closes it."""
        self._received += self._session.take_output()
        if self._session.closing:
            self.closed = True
            self.close()
        elif self._session.clogged:
            self._stage.core.drained(self._session, self._stage.now)


class CoreStage:
    """A fresh Core, with everything that it asks for done at once.

    Args:
        hotpath: as of Core; both must play every conversation alike.
    """

    is_judge = False
    reply_s = 0.0
    quiet_s = 0.0

    def __init__(self, *, hotpath: bool = True) -> None:
        self.core = Core(Config(), Random(0), hotpath=hotpath)
        self.now = 0.0
        self.peers: dict[Session, CorePeer] = {}
        self._deadline: float | None = None

    def connect(self) -> Peer:
        port = 50000 + len(self.core.sessions)
        name = f"127.0.0.1:{port} -> 127.0.0.1:5672"
        return CorePeer(self, Address(name, is_loopback=True))

    def wait(self, seconds: float) -> None:
        """Lets time pass, waking the core at each of its deadlines."""
        end = self.now + seconds
        self.settle()
        while self._deadline is not None and self._deadline <= end:
            self.now = max(self.now, self._deadline)
            self.core.tick(self.now)
            self.settle()
        self.now = end

    def settle(self) -> None:
        """Does what the core wants done, until it wants nothing more now."""
        while True:
            ready = self.core.ready()
            self._deadline = ready.deadline
            if not ready.sessions and ready.journal is None:
                return
            if ready.journal is not None:
                self.core.committed(ready.journal.ticket)
            for session in ready.sessions:
                peer = self.peers.get(session)
                if peer is not None:
                    peer.take_output()
