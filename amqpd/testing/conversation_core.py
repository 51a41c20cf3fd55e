"""Conversations played on a Core: no sockets, no sleeping, time is a number."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Literal

from amqpd.config import Config, User
from amqpd.testing.conversation_play import Peer
from amqpd.testing.harness import Harness, Link

# How what a client sends reaches the core. TCP knows no frames: a broker must give the same answers
# however the bytes are cut, and however many frames one read brings.
Cut = Literal["frames", "together", "pieces"]
_PIECE_BYTES_MAX = 40
_PIECES_MAX = 200  # per line: a large body need not come in thousands of pieces


class CoreStage:
    """A fresh Core, with everything that it asks for done at once.

    Args:
        hotpath: as of Core.
        cut: `frames` hands each line of the conversation over by itself, `together` all lines that
            are sent before something is expected, `pieces` each line in random pieces.
        permissions: configure, write and read of the user guest, where they are not `.*`.
    """

    is_judge = False
    reply_s = 0.0
    quiet_s = 0.0

    def __init__(
        self,
        *,
        hotpath: bool = True,
        cut: Cut = "frames",
        permissions: Mapping[str, str] | None = None,
    ) -> None:
        allowed = {"configure": ".*", "write": ".*", "read": ".*", **(permissions or {})}
        user = User(configure=allowed["configure"], write=allowed["write"], read=allowed["read"])
        config = Config(user=user)
        self.harness = Harness(config, hotpath=hotpath)
        self._cut = cut
        self._random = Random(0)
        self._unsent: list[tuple[Link, bytearray]] = []

    def connect(self) -> Peer:
        self.flush()
        return _CorePeer(self, self.harness.connect())

    def wait(self, seconds: float) -> None:
        self.flush()
        self.harness.wait(seconds)

    def stop(self) -> None:
        self.flush()
        self.harness.core.shutdown("shutdown", self.harness.now)
        self.harness.settle()

    def send(self, link: Link, data: bytes) -> None:
        """Hands bytes of a client to the core, now or with what follows."""
        if self._cut == "together":
            if not self._unsent or self._unsent[-1][0] is not link:
                self._unsent.append((link, bytearray()))
            self._unsent[-1][1].extend(data)
        elif self._cut == "pieces":
            self._send_pieces(link, data)
        else:
            link.send(data)

    def flush(self) -> None:
        """Hands over what was kept back, in the order in which it was sent."""
        unsent, self._unsent = self._unsent, []
        for link, data in unsent:
            link.send(bytes(data))

    def _send_pieces(self, link: Link, data: bytes) -> None:
        longest = max(_PIECE_BYTES_MAX, len(data) // _PIECES_MAX)
        start = 0
        while start < len(data):
            end = start + self._random.randint(1, longest)
            link.send(data[start:end])
            start = end


class _CorePeer:
    """A client of a CoreStage."""

    def __init__(self, stage: CoreStage, link: Link) -> None:
        self._stage = stage
        self._link = link

    @property
    def closed(self) -> bool:
        return self._link.closed

    def send(self, data: bytes) -> None:
        self._stage.send(self._link, data)

    def receive(self, patience_s: float) -> bytes:
        self._stage.flush()
        return self._link.receive()

    def close(self) -> None:
        self._stage.flush()
        self._link.close()
