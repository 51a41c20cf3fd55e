"""Conversations played on a Core: no sockets, no sleeping, time is a number."""

from amqpd.testing.conversation_play import Peer
from amqpd.testing.harness import Harness


class CoreStage:
    """A fresh Core, with everything that it asks for done at once.

    Args:
        hotpath: as of Core; both must play every conversation alike.
    """

    is_judge = False
    reply_s = 0.0
    quiet_s = 0.0

    def __init__(self, *, hotpath: bool = True) -> None:
        self._harness = Harness(hotpath=hotpath)

    def connect(self) -> Peer:
        return self._harness.connect()

    def wait(self, seconds: float) -> None:
        self._harness.wait(seconds)
