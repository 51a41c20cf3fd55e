"""What a session has to say, and what must wait for a commit before it may be said.

Frames leave in the order in which they were said. A promise (the `-ok` of something durable) holds
back all that is said after it, and its own bytes are made only when its ticket is committed, so
that no byte of a promise exists before the disk has kept it.
"""

from __future__ import annotations

from collections import deque

from amqpd.wire.methods import Method, encode_method

Piece = bytes | memoryview
Promised = tuple[int, Method]  # on a channel

# From this average size on, the pieces go to the socket as they are: copying them together would
# cost more than handing them over one by one.
LARGE_PIECE_BYTES = 4096


class Output:
    """Bytes for one client.

    Attributes:
        pieces: where frames are appended; another list after each promise.
        size: bytes said and not yet taken, held ones included.
    """

    __slots__ = ("_head", "_held", "pieces", "size")

    def __init__(self) -> None:
        self._head: list[Piece] = []
        # Tickets, what is promised for them, and what was said after that.
        self._held: deque[tuple[int, Promised | None, list[Piece]]] = deque()
        self.pieces = self._head
        self.size = 0

    def say(self, data: Piece) -> None:
        """Appends whole frames."""
        self.pieces.append(data)
        self.size += len(data)

    def say_at_once(self, frame: bytes) -> None:
        """Says a frame of channel 0 that does not wait for what is held."""
        self._head.append(frame)
        self.size += len(frame)

    def promise(self, ticket: int, channel: int, method: Method) -> None:
        """Says the method once the ticket is committed, and nothing after it before."""
        self.pieces = []
        self._held.append((ticket, (channel, method), self.pieces))

    def hold(self, ticket: int) -> None:
        """Says nothing more until the ticket is committed."""
        if not self._held or self._held[-1][0] < ticket:
            self.pieces = []
            self._held.append((ticket, None, self.pieces))

    def committed(self, ticket: int) -> None:
        """Says what was promised for this and earlier tickets."""
        held = self._held
        while held and held[0][0] <= ticket:
            _, promised, following = held.popleft()
            if promised is not None:
                frame = encode_method(*promised)
                self.size += len(frame)
                self._head.append(frame)
            self._head += following
        if not held:
            self.pieces = self._head

    @property
    def promises(self) -> bool:
        """Whether something waits for a commit."""
        return bool(self._held)

    def take(self) -> list[Piece]:
        """All that may be sent now: one piece, or many that are large."""
        pieces = self._head[:]
        self._head.clear()
        size = sum(map(len, pieces))
        self.size -= size
        if size < LARGE_PIECE_BYTES * len(pieces):
            return [b"".join(pieces)]
        return pieces

    @property
    def sayable(self) -> int:
        """Bytes that may be sent now."""
        return sum(map(len, self._head))

    def drop_promises(self) -> None:
        """Forgets what waits: the conversation is over."""
        self._held.clear()
        self.pieces = self._head
        self.size = self.sayable
